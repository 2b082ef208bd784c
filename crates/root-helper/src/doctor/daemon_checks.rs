//! Checks of the daemon of a store: what runs it, its units and journal in systemd, its program, and whether it
//! answers.

use super::super::guardian::place_of_records;
use super::super::protocol::{Finding, Light};
use super::super::store_context::StoreTarget;
use anyhow::Result;
use std::path::Path;
use std::time::{Duration, Instant};
use storecache_daemon::systemd_journal::{self, Heap, Weight};
use storecache_daemon::{
    Daemon, DetectedDaemon, Listener, SocketExposure, UnitState, await_ready, socket_exposure,
    unit_states,
};
use storecache_runtime::advice::in_one_line;
use storecache_runtime::disclosure;
use storecache_store::{Layout, Owner};

/// How long a daemon may take to answer.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How much of a line of a journal is shown, in characters.
const SHOWN: usize = 160;

pub fn daemon(target: &StoreTarget) -> Result<Finding> {
    let DetectedDaemon { daemon, why, warnings } = target.daemon()?;
    Ok(match (daemon, warnings.is_empty()) {
        // A store can be used without a daemon: a restore then needs only its locks.
        (Daemon::None, _) => Finding::yellow(why, Some(start(target)?)),
        (_, true) => Finding::green(why),
        (daemon, false) => {
            let found = format!("{why}; {}", warnings.join("; "));
            Finding::yellow(found, Some(restart(target, &daemon)?))
        }
    })
}

/// The state of the units that the daemon may have in systemd.
pub fn unit(target: &StoreTarget) -> Result<Finding> {
    let Some(states) = states(target)? else {
        return Ok(Finding::green("systemd is not running"));
    };
    if states.is_empty() {
        return Ok(Finding::green(format!(
            "systemd has none of the units {}",
            target.units().join(", ")
        )));
    }
    let said: Vec<String> = states.iter().map(ToString::to_string).collect();
    let said = said.join("; ");
    let names = |bad: &dyn Fn(&&UnitState) -> bool| -> Vec<&str> {
        states.iter().filter(bad).map(|unit| unit.name.as_str()).collect()
    };
    let failed = names(&|unit| unit.active == "failed");
    if !failed.is_empty() {
        let failed = failed.join(" ");
        let fix = format!("systemctl reset-failed {failed}; systemctl start {failed}");
        return Ok(Finding::red(said, Some(fix)));
    }
    if !states.iter().any(|unit| unit.active == "active") {
        let fix = format!("systemctl start {}", states[0].name);
        return Ok(Finding::yellow(said, Some(fix)));
    }
    let again = names(&|unit| unit.restarts > 0);
    if !again.is_empty() {
        let fix = format!("journalctl --no-pager --lines 50 --unit {}", again.join(" --unit "));
        return Ok(Finding::yellow(said, Some(fix)));
    }
    Ok(Finding::green(said))
}

/// Recent complaints of the daemon in the journal.
pub fn journal(target: &StoreTarget) -> Result<Finding> {
    let states = states(target)?.unwrap_or_default();
    if states.is_empty() {
        return Ok(Finding::green("no journal: the daemon is not a systemd unit"));
    }
    let units: Vec<&str> = states.iter().map(|unit| unit.name.as_str()).collect();
    if disclosure::is_limited() {
        // Let journalctl, run as that user, decide whether the user may read a journal.
        let found = "not read: storecache may act as root only on the store";
        return Ok(Finding::yellow(found, Some(read_journal(&units))));
    }
    let heaps = systemd_journal::classes_of(&units)?;
    let span = systemd_journal::SPAN;
    let Some(worst) = heaps.first() else {
        return Ok(Finding::green(format!("no complaints in the last {span}")));
    };
    let told: Vec<String> = heaps.iter().map(heap_in_words).collect();
    let found = format!("in the last {span}: {}", told.join("; "));
    let fix = mend(worst, &target.layout, &units);
    Ok(match worst.class.weight {
        Weight::Usual => Finding::green(found),
        Weight::Worrying => Finding::yellow(found, Some(fix)),
        Weight::Grave => Finding::red(found, Some(fix)),
    })
}

fn heap_in_words(heap: &Heap) -> String {
    let last: String =
        heap.last.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let cut: String = last.chars().take(SHOWN).collect();
    let more = if cut.len() < last.len() { "…" } else { "" };
    let times = if heap.lines == 1 { "once".into() } else { format!("{} times", heap.lines) };
    format!("{} {times} ({cut}{more})", heap.class.name)
}

/// Returns a command that helps against a class of complaints.
fn mend(worst: &Heap, layout: &Layout, units: &[&str]) -> String {
    match worst.class.name {
        "damaged database" => layout.kind.verify_command().into(),
        "full disk" => layout.kind.gc_command().into(),
        "read-only store" => format!("findmnt --target {}", layout.store().display()),
        "daemon exit" => format!("systemctl restart {}", units.join(" ")),
        _ => read_journal(units),
    }
}

fn read_journal(units: &[&str]) -> String {
    format!("journalctl --no-pager --since -10min --unit {}", units.join(" --unit "))
}

pub fn program(target: &StoreTarget) -> Result<Finding> {
    let daemon = target.daemon()?.daemon;
    Ok(match daemon.replaced()? {
        None if !daemon.exists() => Finding::green("no daemon runs"),
        None => Finding::green("the daemon runs the installed program"),
        Some(replaced) => Finding::yellow(replaced.to_string(), Some(restart(target, &daemon)?)),
    })
}

/// Whether a stopped daemon can be recorded for the next restore.
pub fn record(_: &StoreTarget) -> Result<Finding> {
    Ok(match place_of_records() {
        Ok(place) => Finding::green(format!("a stopped daemon is recorded in {}", place.display())),
        Err(e) => Finding::yellow(
            format!(
                "{}; if every process of a restore is killed, start the daemon yourself",
                in_one_line(e.as_ref())
            ),
            Some("install -d -m 700 -o root -g root /run/storecache".into()),
        ),
    })
}

/// Whether the daemon answers, and whether another user could take its place.
pub fn socket(target: &StoreTarget) -> Result<Finding> {
    let socket = target.layout.socket();
    let answer = answer(target)?;
    let owner = Owner::find(&target.layout)?.uid;
    let Some(exposure) = socket_exposure(&socket, owner)? else { return Ok(answer) };
    if answer.light == Light::Red {
        return Ok(answer);
    }
    let fix = match exposure {
        SocketExposure::SymbolicLink => {
            format!("{}; {}", exposure.fix(&socket, owner), start(target)?)
        }
        SocketExposure::Writable(_) => exposure.fix(&socket, owner),
    };
    let found = format!("{}; {}", answer.found, exposure.describe(&socket));
    Ok(Finding::yellow(found, Some(fix)))
}

fn answer(target: &StoreTarget) -> Result<Finding> {
    let layout = &target.layout;
    if Listener::find(&layout.socket())?.is_none() {
        return Ok(Finding::yellow("no process listens on the socket", Some(start(target)?)));
    }
    let asked = Instant::now();
    let timeout = target.daemon_timeout.min(LONGEST_WAIT);
    Ok(match await_ready(&target.run, &layout.socket(), &layout.probe(), timeout) {
        Ok(_) => Finding::green(format!("answers in {} ms", asked.elapsed().as_millis())),
        Err(e) => {
            let daemon = target.daemon().map_or(Daemon::None, |found| found.daemon);
            Finding::red(in_one_line(e.as_ref()), Some(restart(target, &daemon)?))
        }
    })
}

/// Returns the states of the daemon's units, or `None` if systemd does not run, or if the store belongs to another
/// root than systemd does.
fn states(target: &StoreTarget) -> Result<Option<Vec<UnitState>>> {
    match target.layout.root == Path::new("/") {
        true => unit_states(target.units()),
        false => Ok(None),
    }
}

/// Returns a command that starts a daemon if none runs.
fn start(target: &StoreTarget) -> Result<String> {
    let known = states(target)?.unwrap_or_default();
    Ok(match known.first() {
        Some(unit) => format!("systemctl start {}", unit.name),
        None => target.layout.kind.start_command().into(),
    })
}

/// Returns a command that restarts a running daemon.
fn restart(target: &StoreTarget, daemon: &Daemon) -> Result<String> {
    Ok(match daemon {
        Daemon::Systemd { units } => format!("systemctl restart {}", units.join(" ")),
        Daemon::Shepherd { service, .. } => format!("herd restart {service}"),
        Daemon::Process { pid } => format!("kill {pid}; {}", start(target)?),
        Daemon::Command { stop, start, .. } => format!("{stop}; {start}"),
        Daemon::None => start(target)?,
    })
}
