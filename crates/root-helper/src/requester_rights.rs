//! On whose behalf the root helper acts, and with which rights.
//!
//! A user who may run `storecache privileged` through sudo, and nothing else, must not become root by that. So for a
//! confined requester the root helper keeps root's rights only on the store of this machine: the file-system root is
//! `/`, the directories are the compiled-in ones, and the requester cannot change any of the directories that lead to
//! them. For everything else it permanently gives up root's rights and continues with those of the requester.
//!
//! It is not enough that a directory belongs to root: every item of a store belongs to root and has content that
//! users chose, and a mounted file system reports whatever owners its creator wanted.

use super::protocol::StoreRequest;
use super::sanitize::Environment;
use anyhow::{Context, Result, anyhow, bail};
use nix::unistd::{Gid, Uid, User, getgrouplist, setgroups, setresgid, setresuid};
use rustix::fs::{FileType, fstat};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::io::stdin;
use std::path::Path;
use std::time::Duration;
use storecache_runtime::advice::{Advice, WithAdvice};
use storecache_runtime::path_audit::Suspects;
use storecache_store::{Layout, StoreKind, refuse_root_in_store};

/// How long a confined requester may hold locks and staging without progress, or keep the daemon stopped.
pub const CONFINED_LIMIT: Duration = Duration::from_secs(60);

/// The requester and the requester's rights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The user and group of the requester, or `None` if the requester is root.
    pub requester: Option<(u32, u32)>,
    /// Whether the requester may become root anyway, so that nothing has to be withheld.
    pub everywhere: bool,
}

/// Variables set by programs other than sudo that run commands as root.
const OTHER_WAYS: [&str; 2] = ["DOAS_USER", "PKEXEC_UID"];

impl Caller {
    /// Returns the mandate of the user who started this process. sudo names that user in variables that only sudo can
    /// have set.
    ///
    /// # Errors
    /// If a user other than root seems to have started this process, and it is not clear which user.
    pub fn from_environment(environment: &Environment, everywhere: bool) -> Result<Self> {
        if !geteuid().is_root() {
            // Without root, this process has the rights of its user and no others, so it does not matter who that is.
            return Ok(Caller { requester: None, everywhere });
        }
        let value = |name: &str| environment.iter().find(|(it, _)| it == name).map(|(_, v)| v);
        let number = |name: &str| -> Result<Option<u32>> {
            let text = value(name).map(|text| text.to_str().and_then(|text| text.parse().ok()));
            text.map(|number| number.with_context(|| format!("{name} is not a number"))).transpose()
        };
        let requester = match (number("SUDO_UID")?, number("SUDO_GID")?) {
            (Some(0), _) => None,
            (Some(uid), Some(gid)) => Some((uid, gid)),
            (None, None) => {
                if let Some(name) = OTHER_WAYS.iter().find(|name| value(name).is_some()) {
                    bail!(
                        anyhow!("{name} is set, but SUDO_UID is not")
                            .hint("start the root helper through sudo")
                    );
                }
                if let Some(uid) = stranger_at_the_pipe()? {
                    bail!(
                        anyhow!("requests come from user {uid}, but SUDO_UID is not set")
                            .hint("start the root helper through sudo")
                    );
                }
                None
            }
            _ => bail!("SUDO_UID and SUDO_GID must both be set"),
        };
        Ok(Caller { requester, everywhere })
    }

    /// Returns the user and group of a requester who must not act as root on paths of their own choice.
    pub fn confined(&self) -> Option<(u32, u32)> {
        self.requester.filter(|_| !self.everywhere)
    }

    /// Returns how long a confined requester may hold locks and staging without progress, or keep the daemon stopped.
    /// Returns `None` if there is no such limit.
    pub fn limit(&self) -> Option<Duration> {
        self.confined().map(|_| CONFINED_LIMIT)
    }

    /// Decides whether root's rights may be used on this store, gives them up if not, and limits how long the request
    /// may make other processes wait. Returns advice if the process runs without root's rights. No other thread
    /// may run yet.
    ///
    /// # Errors
    /// If the file-system root lies in a store: restoring into an item, or saving from one, is not allowed.
    pub fn apply(&mut self, store: &mut StoreRequest) -> Result<Option<Advice>> {
        if let Some(limit) = self.limit() {
            store.lock_timeout = store.lock_timeout.min(limit);
            store.daemon_timeout = store.daemon_timeout.min(limit);
            store.stall = store.stall.min(limit);
        }
        let us = geteuid();
        if !us.is_root() {
            refuse_root_in_store(&store.root)?;
            return Ok(Some(ran_with_rights_of(us.as_raw(), "sudo is not available")));
        }
        let Some((uid, gid)) = self.confined() else {
            refuse_root_in_store(&store.root)?;
            return Ok(None);
        };
        let objection = match store.kind {
            StoreKind::Plain => Some("that user chooses the directories".to_owned()),
            StoreKind::Guix | StoreKind::Nix => objection(store, uid, gid)?,
        };
        let Some(why) = objection else { return Ok(None) };
        self.give_up_root()?;
        refuse_root_in_store(&store.root)?;
        Ok(Some(ran_with_rights_of(uid, &why)))
    }

    /// Continues with the rights of the requester. No other thread may run yet.
    fn give_up_root(&mut self) -> Result<()> {
        if let Some((uid, gid)) = self.requester.take() {
            let about = || format!("switch to the rights of user {uid}");
            setgroups(&groups(uid, gid)).with_context(about)?;
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            setresgid(gid, gid, gid).with_context(about)?;
            setresuid(uid, uid, uid).with_context(about)?;
        }
        Ok(())
    }
}

fn ran_with_rights_of(uid: u32, why: &str) -> Advice {
    let note = format!("this ran with the rights of user {uid}, because {why}");
    Advice { notes: vec![note], ..Advice::hint("run storecache as root to use root's rights") }
}

/// Returns the user who created the pipe that requests come from, if that user is not root.
fn stranger_at_the_pipe() -> Result<Option<u32>> {
    let input = fstat(stdin()).context("check standard input")?;
    let kind = FileType::from_raw_mode(input.st_mode);
    let is_pipe = matches!(kind, FileType::Fifo | FileType::Socket);
    Ok(Some(input.st_uid).filter(|&uid| is_pipe && uid != 0))
}

/// Returns the groups of a user. If the user is not listed, returns only the group that sudo names.
fn groups(uid: u32, gid: u32) -> Vec<Gid> {
    let gid = Gid::from_raw(gid);
    let name = User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
    let name = name.and_then(|name| CString::new(name).ok());
    name.and_then(|name| getgrouplist(&name, gid).ok()).unwrap_or_else(|| vec![gid])
}

/// Returns why root's rights must not be used on a store for this user, or `None` if they may be used. Sets the root
/// of the request to `/` in that case, so that a link that led there cannot lead elsewhere later.
fn objection(store: &mut StoreRequest, uid: u32, gid: u32) -> Result<Option<String>> {
    let root = Path::new("/");
    if !store.root.canonicalize().is_ok_and(|real| real == root) {
        let named = store.root.display();
        return Ok(Some(format!("{named} is not the root of this machine's file system")));
    }
    store.root = root.to_owned();
    let groups = groups(uid, gid).into_iter().map(Gid::as_raw).collect();
    let requester = Suspects::User { uid, groups };
    let layout = Layout::new(store.kind, root)?;
    // The directory of the daemon's socket is audited where the daemon is searched for.
    for place in [layout.store(), layout.database_dir(), layout.roots()] {
        if let Err(reason) = requester.follow(&place)? {
            return Ok(Some(reason));
        }
    }
    Ok(None)
}
