//! A network link between two namespaces, with a given rate.
//!
//! Servers are on this side, in a namespace that contains only the thread that made the link and the processes that
//! it starts. Clients are on the other side, which has no route to any other network. The link and both namespaces
//! end with the thread and the value, in whatever way these end.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};

use super::shell::sh;

/// Address of the servers.
pub const SERVERS: &str = "10.0.0.1";
const CLIENTS: &str = "10.0.0.2";

/// The rate of the link to the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Megabits per second, including Ethernet headers.
    Megabits(u32),
    Unshaped,
}

/// A link whose other end lives as long as this value.
pub struct Link {
    keeper: Child,
}

impl Link {
    /// Moves this thread, and every process that it starts from now on, to the servers' side of a new link.
    ///
    /// # Errors
    /// If the kernel does not support namespaces and virtual links, or does not permit them.
    pub fn enter() -> Result<Link> {
        unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
        let mut keeper = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec cat >/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("run unshare")?;
        // The process prints this when it is in its namespace.
        let mut up = [0; 3];
        let said = keeper.stdout.as_mut().context("the child has an output")?;
        std::io::Read::read_exact(said, &mut up).context("make the namespace of the clients")?;
        let link = Link { keeper };
        let there = link.room().join(" ");
        sh(&format!(
            "ip link set lo up
             ip link add servers type veth peer name clients netns {}
             ip address add {SERVERS}/24 dev servers
             ip link set servers up
             {there} ip address add {CLIENTS}/24 dev clients
             {there} ip link set clients up",
            link.keeper.id()
        ))?;
        Ok(link)
    }

    /// Returns the words that run a command on the clients' side.
    pub fn room(&self) -> Vec<String> {
        vec!["nsenter".into(), format!("--net=/proc/{}/ns/net", self.keeper.id()), "--".into()]
    }

    /// Limits the rate of traffic to the clients.
    ///
    /// # Errors
    /// If the kernel does not support it.
    pub fn shape(&self, rate: Rate) -> Result<()> {
        // Fails if the rate was not limited before.
        let _ = sh("tc qdisc del dev servers root");
        let Rate::Megabits(rate) = rate else { return Ok(()) };
        // The burst must hold a packet of 64 KiB, as the kernel passes them on, and some milliseconds of traffic.
        let burst = 512 * 1024;
        sh(&format!(
            "tc qdisc add dev servers root tbf rate {rate}mbit burst {burst} latency 100ms"
        ))
        .map(drop)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The process ends when its input is closed.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
