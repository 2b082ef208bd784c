//! What a guardian is told, and what it answers: a line of JSON, or a word.

use super::super::mandate::Mandate;
use super::super::protocol::StoreRequest;
use super::super::target::StoreTarget;
use crate::daemon::{Daemon, MountUnit};
use crate::pulse::Sign;
use serde::{Deserialize, Serialize};

/// What the guardian is told first: what it watches over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ward {
    /// The store, and how its daemon is found.
    pub store: StoreRequest,
    /// On whose behalf; it does not go with the request.
    pub mandate: Mandate,
    /// Whether the store is changed. A save has nothing but a copy of its database to be removed.
    pub restores: bool,
}

impl Ward {
    pub fn of(target: &StoreTarget, restores: bool) -> Self {
        Ward { store: target.request.clone(), mandate: target.request.mandate, restores }
    }
}

/// The ward, as it is told to one of two.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Post {
    pub ward: Ward,
    /// Whether it is the other one that acts, as long as it lives.
    pub deputy: bool,
    /// The process of the other one.
    pub other: u32,
}

/// What it is told before the daemon stops.
#[derive(Debug, Serialize, Deserialize)]
pub struct Brief {
    /// Whether the commit takes away the unit that mounts the store read-only.
    pub takes_mount: bool,
}

/// What has to be started again.
#[derive(Debug, Clone)]
pub struct Stopped {
    pub daemon: Daemon,
    /// The unit that mounts the store read-only, if the daemon or the commit takes it away.
    pub mount: Option<MountUnit>,
}

/// The daemon that the guardian has found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Charge {
    /// Why it is taken to be the one in charge.
    pub why: String,
    pub warnings: Vec<String>,
    /// Whether there is any daemon.
    pub runs: bool,
}

/// What the guardian answers to whatever it is told, but the end.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// It is alive, and this is what it does. More follows.
    Alive(Sign, String),
    /// What has become of a daemon that a dead run had stopped.
    Watching(Vec<String>),
    Ready(Charge),
    Done,
    Failed(Vec<String>),
}

pub(super) const STOP: &str = "stop";
pub(super) const START: &str = "start";
/// For the deputy, which answers nothing: what the guardian is told next.
pub(super) const STOPPING: &str = "stopping";
pub(super) const STARTING: &str = "starting";
pub(super) const END: &str = "end";
