//! What the network runs on: one thread, on which all requests of a backend are made.
//!
//! A runtime with threads of its own would panic where the machine refuses one of them, and then wait for
//! ever. So does whoever looks up names of hosts on such threads.

use crate::threads;
use anyhow::{Context, Result};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::ToSocketAddrs;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, oneshot};

/// Runs until it is dropped. Who waits for something on it may be any thread.
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
        // This may be a task of the runtime itself, which must not be the one to end it: its thread is.
        drop(self.runtime.take());
        self.ends.notify_one();
    }
}

/// Looks up names of hosts, each on a thread of its own: the C library has no other way.
pub struct Names;

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let (send, found) = oneshot::channel();
            threads::start("to look up a host", move || {
                // Nobody may wait for it any more.
                let _ = send.send((name.as_str(), 0).to_socket_addrs());
            })?;
            let addresses: Addrs = Box::new(found.await??);
            Ok(addresses)
        })
    }
}
