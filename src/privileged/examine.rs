//! How a store and its daemon are, for `doctor`: one finding for each thing that a restore relies on.

use super::conversation::Conversation;
use super::protocol::{Finding, Light, Reply, StoreRequest};
use super::target::StoreTarget;
use crate::daemon::{Daemon, Found, MountUnit, await_ready, listener};
use crate::store::{
    Contents, LockMode, Owner, StaysReadOnly, check_database, is_read_only, lock, make_writable,
    strangers,
};
use anyhow::Result;
use rustix::fs::statvfs;
use std::time::{Duration, Instant};

/// How many names a finding lists.
const NAMED: usize = 3;
/// Less free space than this is worth a word, in bytes.
const LITTLE_SPACE: u64 = 1 << 30;
const FEW_INODES: u64 = 50_000;

type Look = fn(&StoreTarget) -> Result<Finding>;

/// Looks at everything and replies with what was found.
pub fn examine(talk: &Conversation, store: &StoreRequest) -> Result<()> {
    let target = StoreTarget::new(store)?;
    let look: [(&str, Look); 9] = [
        ("schema", schema),
        ("database", database),
        ("owners", owners),
        ("locks", locks),
        ("space", space),
        ("daemon", daemon),
        ("program", program),
        ("socket", socket),
        // Last: it may take this thread into another mount namespace.
        ("mount", mount),
    ];
    let mut found = Vec::new();
    for (check, look) in look {
        talk.cancel.check()?;
        // What can not be looked at is itself a finding.
        let finding = look(&target).unwrap_or_else(|e| Finding::red(format!("{e:#}"), None));
        found.push(Finding { check: check.into(), ..finding });
    }
    talk.reply(&Reply::Examined(found))
}

fn schema(target: &StoreTarget) -> Result<Finding> {
    let layout = &target.layout;
    Ok(match layout.live_schema()? {
        None => Finding::yellow("there is no database yet", None),
        Some(live) if live == layout.schema => Finding::green(format!("{live}, which is known")),
        Some(live) => Finding::red(
            format!("{live}, and this storecache knows {}", layout.schema),
            Some("use a storecache that knows it".into()),
        ),
    })
}

fn database(target: &StoreTarget) -> Result<Finding> {
    let layout = &target.layout;
    if !layout.database().exists() {
        return Ok(Finding::yellow("there is none yet", None));
    }
    check_database(layout)?;
    let contents = Contents::read(layout)?;
    let missing = contents.missing();
    if missing.is_empty() {
        let valid = contents.valid();
        return Ok(Finding::green(format!("sound; all {valid} valid items are on the disk")));
    }
    let repair = match layout.kind.program() {
        Some("guix") => "guix gc --verify=repair",
        _ => "nix-store --verify --repair",
    };
    let found = format!("valid, but not on the disk: {}", some_of(&missing));
    Ok(Finding::red(found, Some(repair.into())))
}

fn owners(target: &StoreTarget) -> Result<Finding> {
    let layout = &target.layout;
    let owner = Owner::of(layout)?;
    let strangers = strangers(layout, owner)?;
    if strangers.is_empty() {
        return Ok(Finding::green(format!("all items belong to user {}", owner.uid)));
    }
    let found = format!(
        "not of user {}, so that the daemon can not delete them: {}",
        owner.uid,
        some_of(&strangers)
    );
    let fix = format!("chown -hR {}:{} {}", owner.uid, owner.gid, layout.store().display());
    Ok(Finding::red(found, Some(fix)))
}

fn locks(target: &StoreTarget) -> Result<Finding> {
    let layout = &target.layout;
    let mut held = Vec::new();
    for path in [layout.gc_lock(), layout.big_lock()].iter().filter(|path| path.exists()) {
        let asked = lock(path, layout.lock_kind, LockMode::Exclusive, Duration::ZERO, &|| Ok(()));
        held.extend(asked.err().map(|e| format!("{e:#}")));
    }
    Ok(match held.is_empty() {
        true => Finding::green("nobody holds any"),
        // A client at work is no fault; one that stays holds up a commit.
        false => Finding::yellow(held.join("; "), Some("wait for it, or end that process".into())),
    })
}

fn space(target: &StoreTarget) -> Result<Finding> {
    let store = target.layout.store();
    let disk = statvfs(if store.exists() { &store } else { &target.layout.root })?;
    let bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    let found = match disk.f_files {
        // Some file systems make inodes as they go.
        0 => format!("{} MiB free", bytes >> 20),
        _ => format!("{} MiB and {} inodes free", bytes >> 20, disk.f_favail),
    };
    let scarce = bytes < LITTLE_SPACE || (disk.f_files > 0 && disk.f_favail < FEW_INODES);
    let collect = match target.layout.kind.program() {
        Some("guix") => "guix gc",
        _ => "nix-store --gc",
    };
    Ok(match scarce {
        false => Finding::green(found),
        true => Finding::yellow(found, Some(collect.into())),
    })
}

fn daemon(target: &StoreTarget) -> Result<Finding> {
    let Found { daemon, why, warnings } = target.daemon()?;
    Ok(match (daemon, warnings.is_empty()) {
        (Daemon::None, _) => Finding::yellow(why, None),
        (_, true) => Finding::green(why),
        (_, false) => Finding::yellow(format!("{why}; {}", warnings.join("; ")), None),
    })
}

fn program(target: &StoreTarget) -> Result<Finding> {
    let daemon = target.daemon()?.daemon;
    Ok(match daemon.replaced()? {
        None if daemon == Daemon::None => Finding::green("no daemon runs"),
        None => Finding::green("the daemon runs what is installed"),
        Some(replaced) => Finding::yellow(replaced.to_string(), Some("restart the daemon".into())),
    })
}

fn socket(target: &StoreTarget) -> Result<Finding> {
    if listener(&target.layout.socket())?.is_none() {
        // A store may be used without one: a restore needs its locks alone.
        let start = "start the daemon, unless this store is used without";
        return Ok(Finding::yellow("nobody listens", Some(start.into())));
    }
    let asked = Instant::now();
    let patience = target.daemon_patience.min(Duration::from_secs(5));
    Ok(match await_ready(&target.layout.socket(), &target.layout.probe(), patience) {
        Ok(_) => Finding::green(format!("answers in {} ms", asked.elapsed().as_millis())),
        Err(e) => Finding::red(format!("{e:#}"), Some("start the daemon".into())),
    })
}

fn mount(target: &StoreTarget) -> Result<Finding> {
    let layout = &target.layout;
    if !is_read_only(&layout.store())? {
        return Ok(Finding::green("the store is mounted writable"));
    }
    let refused = match make_writable(&layout.store()) {
        Ok(_) => {
            return Ok(Finding::green(
                "read-only; a restore writes through a namespace of its own",
            ));
        }
        Err(e) if e.is::<StaysReadOnly>() => e,
        Err(e) => return Err(e),
    };
    Ok(match MountUnit::of(layout.store_dir)? {
        Some(unit) => Finding::green(format!("read-only; a restore stops {} meanwhile", unit.name)),
        None => Finding::red(format!("{refused:#}"), None),
    })
}

fn some_of<T: ToString>(names: &[T]) -> String {
    let listed: Vec<String> = names.iter().take(NAMED).map(ToString::to_string).collect();
    let listed = listed.join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

impl Finding {
    fn green(found: impl Into<String>) -> Self {
        Finding { check: String::new(), light: Light::Green, found: found.into(), fix: None }
    }

    fn yellow(found: impl Into<String>, fix: Option<String>) -> Self {
        Finding { light: Light::Yellow, fix, ..Self::green(found) }
    }

    fn red(found: impl Into<String>, fix: Option<String>) -> Self {
        Finding { light: Light::Red, fix, ..Self::green(found) }
    }
}
