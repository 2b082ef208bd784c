//! The messages to and from guardians: a line of JSON, or a word.

use super::super::protocol::StoreRequest;
use super::super::requester_rights::Caller;
use super::super::store_context::StoreTarget;
use serde::{Deserialize, Serialize};
use storecache_daemon::{Daemon, MountUnit};
use storecache_runtime::advice::Advice;
use storecache_runtime::events::Event;
use storecache_runtime::liveness::Activity;

/// The guardian setup, which is the first message to a guardian.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GuardianSetup {
    /// The store and how to find its daemon.
    pub store: StoreRequest,
    /// The mandate, which is not serialized with the request.
    pub mandate: Caller,
    /// Whether the store is changed. After a save, only a copy of its database has to be removed.
    pub restores: bool,
}

impl GuardianSetup {
    pub fn new(target: &StoreTarget, restores: bool) -> Self {
        GuardianSetup { store: target.request.clone(), mandate: target.request.mandate, restores }
    }
}

/// The guardian setup, as sent to one of the two guardians.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct GuardianInit {
    pub setup: GuardianSetup,
    /// Whether this is the backup guardian, which acts only after the other guardian has ended.
    pub is_backup: bool,
    /// The process ID of the other guardian.
    pub other: u32,
}

/// The request to find the daemon and prepare its stop.
#[derive(Debug, Serialize, Deserialize)]
pub struct ArmRequest {
    /// Whether the commit stops the unit that mounts the store read-only.
    pub takes_mount: bool,
}

/// The daemon and mount unit that have to be started again.
#[derive(Debug, Clone)]
pub struct Stopped {
    pub daemon: Daemon,
    /// The unit that mounts the store read-only, if the daemon or the commit stops it.
    pub mount: Option<MountUnit>,
}

/// The daemon status: the daemon that the guardian has found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DaemonFound {
    /// Why this daemon is considered to be in charge.
    pub why: String,
    pub warnings: Vec<String>,
    /// Whether a daemon runs at all.
    pub runs: bool,
}

/// An answer of a guardian. Every order gets one, except [`END`], [`STOPPING`] and [`STARTING`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// An activity report. The answer follows.
    Alive(Activity, String),
    /// A decision of the guardian and its reason. The answer follows, or the answer to the next order.
    Event(Event),
    /// The guardian is set up. The texts are warnings about a daemon that a killed run had stopped.
    Watching(Vec<String>),
    Ready(DaemonFound),
    Done,
    /// The causes of the failure, outermost first, and advice.
    Failed(Vec<String>, Advice),
}

pub(super) const STOP: &str = "stop";
pub(super) const START: &str = "start";
/// For the backup guardian, which does not answer it: the order that the guardian gets next.
pub(super) const STOPPING: &str = "stopping";
pub(super) const STARTING: &str = "starting";
pub(super) const END: &str = "end";
