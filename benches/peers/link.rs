//! A network between two namespaces, as fast as it is told to be.
//!
//! Servers are on this side, in a namespace that only the thread that made the link and what it starts are
//! in; clients are on the other. Nothing leads from there to anywhere else. All of it goes with the thread
//! and the value, however they end.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};

use super::shell::sh;

/// Where servers listen.
pub const SERVERS: &str = "10.0.0.1";
const CLIENTS: &str = "10.0.0.2";

/// How fast the link to the clients is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Megabits a second, headers of Ethernet included.
    Megabits(u32),
    Unshaped,
}

/// A link whose other end lives as long as this value.
pub struct Link {
    keeper: Child,
}

impl Link {
    /// Puts this thread, and whatever it starts from now on, on the servers' side of a new link.
    ///
    /// # Errors
    /// Where the kernel or the rights for namespaces and virtual links are missing.
    pub fn enter() -> Result<Link> {
        unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
        let mut keeper = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec cat >/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("run unshare")?;
        // Once it is up it is where it shall be.
        let mut up = [0; 3];
        let said = keeper.stdout.as_mut().context("it has an output")?;
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

    /// Words that run a command on the clients' side.
    pub fn room(&self) -> Vec<String> {
        vec!["nsenter".into(), format!("--net=/proc/{}/ns/net", self.keeper.id()), "--".into()]
    }

    /// Shapes what flows to the clients.
    ///
    /// # Errors
    /// If the kernel does not know how.
    pub fn shape(&self, rate: Rate) -> Result<()> {
        // There may be none.
        let _ = sh("tc qdisc del dev servers root");
        let Rate::Megabits(rate) = rate else { return Ok(()) };
        // The burst has to hold a packet of 64 KiB as the kernel hands them on, and some milliseconds.
        let burst = 512 * 1024;
        sh(&format!(
            "tc qdisc add dev servers root tbf rate {rate}mbit burst {burst} latency 100ms"
        ))
        .map(drop)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
