//! On whose behalf the root half acts, and where it may do so as root.
//!
//! Somebody who may run `storecache privileged` through sudo, and nothing else, shall not become root
//! by that. So root's rights are for stores that root itself has put in place. Wherever whoever asked
//! could have a hand in, the root half gives root up for good and goes on with their rights: on
//! directories that they name, and on a store that they own or could swap.

use super::protocol::StoreRequest;
use super::surroundings::Environment;
use crate::store::{Layout, StoreKind};
use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, User, getgrouplist, setgroups, setresgid, setresuid};
use rustix::fs::{FileType, fstat};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use std::ffi::{CString, OsString};
use std::fs::Metadata;
use std::io::stdin;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Who asked, and what they may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mandate {
    /// User and group, if it is not root.
    pub requester: Option<(u32, u32)>,
    /// They may become root anyway, so that nothing has to be kept from them.
    pub everywhere: bool,
}

/// Variables of programs that run others as root, besides sudo.
const OTHER_WAYS: [&str; 2] = ["DOAS_USER", "PKEXEC_UID"];

/// As many symbolic links as the kernel follows.
const LINKS: u32 = 40;

impl Mandate {
    /// Of whoever started this process: sudo names them, and nobody but sudo can have set that.
    ///
    /// # Errors
    /// When somebody other than root seems to be behind it, and it is not clear who.
    pub fn of(environment: &Environment, everywhere: bool) -> Result<Self> {
        if !geteuid().is_root() {
            // Whoever it is, they have their own rights and no others.
            return Ok(Mandate { requester: None, everywhere });
        }
        let value = |name: &str| environment.iter().find(|(it, _)| it == name).map(|(_, v)| v);
        let number = |name: &str| -> Result<Option<u32>> {
            let text = value(name).map(|text| text.to_str().and_then(|text| text.parse().ok()));
            text.map(|number| number.with_context(|| format!("{name} holds no number"))).transpose()
        };
        let requester = match (number("SUDO_UID")?, number("SUDO_GID")?) {
            (Some(0), _) => None,
            (Some(uid), Some(gid)) => Some((uid, gid)),
            (None, None) => {
                if let Some(name) = OTHER_WAYS.iter().find(|name| value(name).is_some()) {
                    bail!("{name} is set, and SUDO_UID is not; start the root half through sudo");
                }
                if let Some(uid) = stranger_at_the_pipe()? {
                    bail!(
                        "the user {uid} is at the other end, and SUDO_UID does not say so; start \
                         the root half through sudo"
                    );
                }
                None
            }
            _ => bail!("of SUDO_UID and SUDO_GID one is missing"),
        };
        Ok(Mandate { requester, everywhere })
    }

    /// Who must not get to act as root wherever they point.
    pub fn confined(&self) -> Option<(u32, u32)> {
        self.requester.filter(|_| !self.everywhere)
    }

    /// Sees to it that root's rights are used only where root alone decides what is there, or else
    /// gives them up. Then says why. No other thread may run yet.
    pub fn apply(&mut self, store: &mut StoreRequest) -> Result<Option<String>> {
        let us = geteuid();
        if !us.is_root() {
            return Ok(Some(ran_with_rights_of(us.as_raw(), "they have no sudo")));
        }
        let Some((uid, gid)) = self.confined() else { return Ok(None) };
        let suspect = Suspect { uid, groups: groups(uid, gid) };
        let why = match store.kind {
            StoreKind::Plain => Some("it is they who name the directories".to_owned()),
            _ => suspect.objection(store)?,
        };
        let Some(why) = why else { return Ok(None) };
        self.give_up_root()?;
        Ok(Some(ran_with_rights_of(uid, &why)))
    }

    /// Goes on with the rights of whoever asked. No other thread may run yet.
    fn give_up_root(&mut self) -> Result<()> {
        if let Some((uid, gid)) = self.requester.take() {
            let about = || format!("take on the rights of user {uid}");
            setgroups(&groups(uid, gid)).with_context(about)?;
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            setresgid(gid, gid, gid).with_context(about)?;
            setresuid(uid, uid, uid).with_context(about)?;
        }
        Ok(())
    }
}

fn ran_with_rights_of(uid: u32, why: &str) -> String {
    format!(
        "this ran with the rights of user {uid}, since {why}; run storecache as root to use those of root"
    )
}

/// The maker of the pipe that requests come from, if that is not root.
fn stranger_at_the_pipe() -> Result<Option<u32>> {
    let input = fstat(stdin()).context("look at the input")?;
    let kind = FileType::from_raw_mode(input.st_mode);
    let is_pipe = matches!(kind, FileType::Fifo | FileType::Socket);
    Ok(Some(input.st_uid).filter(|&uid| is_pipe && uid != 0))
}

/// The groups of a user; the one that sudo names where the user is not listed.
fn groups(uid: u32, gid: u32) -> Vec<Gid> {
    let gid = Gid::from_raw(gid);
    let name = User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
    let name = name.and_then(|name| CString::new(name).ok());
    name.and_then(|name| getgrouplist(&name, gid).ok()).unwrap_or_else(|| vec![gid])
}

/// Somebody with an interest in what lies where.
struct Suspect {
    uid: u32,
    groups: Vec<Gid>,
}

impl Suspect {
    /// Why a store is no business of root, if that is so. Its root is replaced by where that leads.
    fn objection(&self, store: &mut StoreRequest) -> Result<Option<String>> {
        store.root = match self.follow(&store.root)? {
            Ok(root) => root,
            Err(hand) => return Ok(Some(hand)),
        };
        let layout = Layout::of(store.kind, &store.root)?;
        // Not that of the socket: some let users put theirs there, so whoever listens is trusted with
        // nothing.
        let places = [layout.store(), layout.database_dir(), layout.roots()];
        for place in places {
            if let Err(hand) = self.follow(&place)? {
                return Ok(Some(hand));
            }
        }
        Ok(None)
    }

    /// Where `place` really is, as far as there is anything, unless they could have a hand in that: by
    /// owning a directory on the way, or by being allowed to put another one in its stead.
    fn follow(&self, place: &Path) -> Result<Result<PathBuf, String>> {
        let mut ahead: Vec<OsString> = Vec::new();
        let push = |ahead: &mut Vec<OsString>, path: &Path| {
            let names = path.components().rev().map(|it| it.as_os_str().to_owned());
            ahead.extend(names);
        };
        push(&mut ahead, place);
        let mut here = PathBuf::from("/");
        let mut links = 0;
        let mut way = Way::default();
        while let Some(name) = ahead.pop() {
            let next = here.join(&name);
            let Ok(found) = next.symlink_metadata() else {
                here = next;
                here.extend(ahead.into_iter().rev());
                return Ok(Ok(here));
            };
            if found.is_symlink() {
                links += 1;
                if links > LINKS {
                    bail!("{} has too many symbolic links in it", place.display());
                }
                push(&mut ahead, &next.read_link()?);
                continue;
            }
            here = match name == ".." {
                true => here.parent().unwrap_or(Path::new("/")).to_owned(),
                false => next,
            };
            if let Some(hand) = self.hand_in(&here, &found, &mut way) {
                return Ok(Err(hand));
            }
        }
        Ok(Ok(here))
    }

    fn hand_in(&self, here: &Path, found: &Metadata, way: &mut Way) -> Option<String> {
        let (shown, user) = (here.display(), self.uid);
        let (owner, mode) = (found.uid(), found.permissions().mode());
        if owner == user {
            return Some(format!("{shown} belongs to user {user}"));
        }
        if owner != 0 && way.open_to_all {
            return Some(format!("{shown} is where anybody could have put it"));
        }
        way.open_to_all = mode & 0o002 != 0;
        let by_group = mode & 0o020 != 0 && self.groups.contains(&Gid::from_raw(found.gid()));
        let sticky = mode & 0o1000 != 0;
        let may_write = (by_group || way.open_to_all) && !sticky;
        may_write.then(|| format!("user {user} may write to {shown}"))
    }
}

/// What the directory before has been like.
#[derive(Default)]
struct Way {
    open_to_all: bool,
}
