//! The network runtime: one thread, which runs all requests of a backend.
//!
//! A runtime with a thread pool would panic where the machine refuses it a thread, and then wait for ever. So would a
//! resolver that looks up host names on such a pool.

use anyhow::{Context, Result};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::ToSocketAddrs;
use std::sync::Arc;
use storecache_runtime::threads;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, oneshot};

/// A runtime that runs until this value is dropped. Any thread may wait for its tasks.
pub struct Engine {
    runtime: Option<Arc<Runtime>>,
    ends: Arc<Notify>,
}

impl Engine {
    pub fn start() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = Arc::new(runtime.context("start the network")?);
        let ends = Arc::new(Notify::new());
        let (driven, end) = (Arc::clone(&runtime), Arc::clone(&ends));
        threads::start("for the network", move || driven.block_on(end.notified()))?;
        Ok(Engine { runtime: Some(runtime), ends })
    }

    pub fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("only drop takes it")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // This may run in a task of the runtime, which must not drop the runtime itself. The thread of the runtime
        // drops it.
        drop(self.runtime.take());
        self.ends.notify_one();
    }
}

/// A resolver that looks up each host name on a thread of its own, because the function of the C library blocks.
pub struct Names;

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let (send, found) = oneshot::channel();
            threads::start("to look up a host", move || {
                // The receiver may be gone.
                let _ = send.send((name.as_str(), 0).to_socket_addrs());
            })?;
            let addresses: Addrs = Box::new(found.await??);
            Ok(addresses)
        })
    }
}
