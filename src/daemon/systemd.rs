//! Daemons that are units of systemd.

use super::executable::{Program, Replaced};
use super::procfs;
use crate::disclosure;
use crate::pulse::{Vigil, Watch, describe};
use crate::system::{self, UnitOrder, await_output};
use crate::threads;
use crate::undo::insist;
use anyhow::{Context, Result, bail};
use crossbeam_channel::{RecvTimeoutError, bounded};
use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Component, Path, PathBuf};
use std::process::Output;
use std::time::Duration;

/// How long a service may take to stop before what is left of it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How often a systemctl that was killed is run again.
const KILLED: usize = 3;

/// Whether systemd is this machine's init (`man 3 sd_booted`).
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Units of a daemon that are active, sockets first.
pub struct Active {
    pub units: Vec<String>,
    services: Vec<Service>,
}

/// A service that is active, or that a socket would start.
struct Service {
    name: String,
    /// Its main process, if it runs.
    pid: Option<u32>,
    /// What it is started from.
    program: Option<PathBuf>,
}

impl Active {
    /// Those of `units` that are active, in the same order; nothing when none is.
    pub fn of(units: &[&str]) -> Result<Option<Self>> {
        let units = active(units)?;
        if units.is_empty() {
            return Ok(None);
        }
        let services = services(&units)?;
        Ok(Some(Active { units, services }))
    }

    /// Whether it is they who run the process that listens: systemd itself does so for a socket.
    pub fn run(&self, listener: u32) -> bool {
        let sockets = self.units.iter().any(|unit| unit.ends_with(".socket"));
        let mut pids = self.services.iter().filter_map(|service| service.pid);
        (listener == 1 && sockets) || pids.any(|pid| procfs::descends(listener, pid))
    }

    /// The units for people, with the process that they run.
    pub fn describe(&self) -> String {
        let pid = self.services.iter().find_map(|service| service.pid);
        let process = pid.map(|pid| format!(" as process {pid}")).unwrap_or_default();
        format!("systemd has {} active{process}", self.units.join(" and "))
    }
}

/// What a start of `units` would run, if that is not what runs now.
///
/// # Errors
/// When they could not be started again.
pub fn replaced(units: &[String]) -> Result<Option<Replaced>> {
    for service in services(units)? {
        let (Some(pid), Some(program)) = (service.pid, service.program) else { continue };
        let program = Program::of_service(pid, &program).context(service.name)?;
        if let Some(replaced) = program.report(pid) {
            return Ok(Some(replaced));
        }
    }
    Ok(None)
}

/// Units that stop in one transaction, so that no socket revives its service.
pub struct Stop {
    all: Vec<String>,
    services: Vec<String>,
}

impl Stop {
    /// Asks systemd all that the stop has to know.
    pub fn of(units: &[String]) -> Result<Self> {
        // A socket that is left alone starts its service for the next client, whether the service was
        // active before or not; so the services of sockets stop too.
        let services: Vec<String> = services(units)?.into_iter().map(|it| it.name).collect();
        let mut all: Vec<String> = units.to_vec();
        all.extend(services.iter().filter(|service| !units.contains(service)).cloned());
        // systemd refuses to start what was started five times in ten seconds, by whomever: it shall
        // count anew (`man 1 systemctl`, reset-failed). Where it does not, the start tells.
        let _ = systemctl(UnitOrder::ResetFailed, &all);
        Ok(Stop { all, services })
    }

    /// `patience` counts since the last sign of life of what stops. While systemd itself has a clock for it that
    /// runs (`TimeoutStopSec`), it is alive.
    pub fn now(&self, patience: Duration, cancelled: &dyn Fn() -> Result<()>) -> Result<()> {
        std::thread::scope(|scope| {
            let (stopped, is_stopped) = bounded::<()>(0);
            // Without it the stop takes longer, and nothing else.
            let _ = threads::start_in(scope, "that asks again", move || {
                while is_stopped.recv_timeout(ASK_AGAIN) == Err(RecvTimeoutError::Timeout) {
                    self.services.iter().for_each(|service| ask_again(service));
                }
            });
            let done = change(UnitOrder::Stop, &self.all, patience, cancelled);
            drop(stopped);
            done
        })
    }
}

/// Sends SIGTERM once more to what is left of a service that systemd has sent it to already. Otherwise systemd
/// would wait for a minute and a half before it kills it.
///
/// A nix-daemon misses a signal that comes as it takes in a client, see [`Watched::stop`](super::process::Watched::stop).
/// A worker of Guix 1.5 with an idle client takes two signals to end. systemd sends two, one of them when the main
/// process has ended; where that is quick they become one for the worker.
fn ask_again(service: &str) {
    let is = |name: &str, values: &[&str]| {
        property(service, name).is_ok_and(|value| values.contains(&value.as_str()))
    };
    if is("SubState", &["stop-sigterm", "final-sigterm"]) {
        // Of other kinds of services the workers are to live on.
        let takes_workers = is("KillMode", &["control-group"]);
        let order = if takes_workers { UnitOrder::Kill } else { UnitOrder::KillMain };
        // If it is gone by now, all the better.
        let _ = systemctl(order, &[service.to_owned()]);
    }
}

/// The same for a start.
pub fn start(units: &[String], patience: Duration) -> Result<()> {
    change(UnitOrder::Start, units, patience, &|| Ok(()))
}

/// Has systemd stop or start units, and waits until it has. Given up, the job stays with systemd.
fn change(
    order: UnitOrder<'_>,
    units: &[String],
    patience: Duration,
    cancelled: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let what = format!("systemctl {} {}", order.verb(), units.join(" "));
    let output = once_more_if_killed(|| {
        let mut vigil = Vigil::new(patience);
        let mut probe = || at_work(units, &mut vigil);
        let watch = Watch {
            what: &what,
            flag: "daemon-timeout",
            clock: patience,
            cancelled,
            probe: &mut probe,
        };
        await_output(system::Program::Systemctl { order, units }, watch)
    });
    let output = output.map_err(|e| e.context(stuck(units)))?;
    succeeded(&what, &output).map(drop)
}

/// What systemd waits for, if that is alive: units that change with a clock of systemd's own, or whose processes
/// work.
fn at_work(units: &[String], vigil: &mut Vigil) -> Option<String> {
    let wanted = "Id,ActiveState,SubState,TimeoutStopUSec,TimeoutStartUSec,ControlGroup";
    for unit in show(units, wanted).ok()? {
        let value = |name: &str| unit.get(name).map_or("", String::as_str);
        let (state, clock) = match value("ActiveState") {
            "deactivating" => ("deactivating", "TimeoutStopUSec"),
            "activating" => ("activating", "TimeoutStartUSec"),
            _ => continue,
        };
        let changes = format!("systemd has {} {state} ({})", value("Id"), value("SubState"));
        if value(clock) != "infinity" {
            return Some(changes);
        }
        if let Some(sign) = vigil.look(&processes(value("ControlGroup"))) {
            return Some(format!("{changes}, and {sign}"));
        }
    }
    None
}

/// Processes of a control group; none if its path does not lead down.
fn processes(group: &str) -> Vec<u32> {
    let leads_down = Path::new(group).components().all(|part| part != Component::ParentDir);
    if !leads_down || !group.starts_with('/') {
        return Vec::new();
    }
    let path = format!("/sys/fs/cgroup{group}/cgroup.procs");
    let listed = std::fs::read_to_string(path).unwrap_or_default();
    listed.lines().filter_map(|pid| pid.parse().ok()).collect()
}

/// What is in a state between, for people.
fn stuck(units: &[String]) -> String {
    let shown = show(units, "Id,ActiveState,SubState,ControlGroup").unwrap_or_default();
    let stuck = shown.iter().filter_map(|unit| {
        let state = unit.get("ActiveState").filter(|state| state.ends_with("activating"))?;
        let pids = processes(unit.get("ControlGroup").map_or("", String::as_str));
        let pids = pids.iter().map(|&pid| match disclosure::command_line(pid) {
            None if disclosure::is_limited() => procfs::describe(pid),
            _ => format!("{}, {}", procfs::describe(pid), describe(pid)),
        });
        let pids: Vec<_> = pids.collect();
        let (name, sub) = (unit.get("Id")?, unit.get("SubState")?);
        Some(format!("{name} is {state} ({sub}): {}", pids.join("; ")))
    });
    let stuck: Vec<_> = stuck.collect();
    if stuck.is_empty() { "systemd is not done".into() } else { stuck.join("; ") }
}

/// All that a stop of `units` takes along and a start of them alone does not bring back, and they.
pub fn to_start_again(units: &[String]) -> Result<Vec<String>> {
    let mut all: Vec<String> = units.to_vec();
    let mut added = all.clone();
    while !added.is_empty() {
        let shown = show(&added, "RequiredBy,BoundBy,ConsistsOf")?;
        let names =
            shown.iter().flat_map(BTreeMap::values).flat_map(|names| names.split_whitespace());
        let is_new = |name: &&str| is_unit_name(name) && !all.iter().any(|unit| unit == name);
        let mut new: Vec<&str> = names.filter(is_new).collect();
        new.sort_unstable();
        new.dedup();
        added = if new.is_empty() { Vec::new() } else { active(&new)? };
        all.extend_from_slice(&added);
    }
    Ok(all)
}

/// How a unit is that systemd has a file for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitState {
    pub name: String,
    /// As in `systemctl is-active`.
    pub active: String,
    /// What that means for this kind of unit, as `running` or `listening`.
    sub: String,
    /// How it ended last; `success` if it did not fail.
    result: String,
    /// How often systemd started it again unasked.
    pub restarts: u64,
}

impl fmt::Display for UnitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {} ({})", self.name, self.active, self.sub)?;
        if !matches!(self.result.as_str(), "" | "success") {
            write!(f, ", last result {}", self.result)?;
        }
        match self.restarts {
            0 => Ok(()),
            times => write!(f, ", started again by itself {times} times"),
        }
    }
}

/// The states of those of `units` that systemd knows; nothing when it does not run.
pub fn states(units: &[&str]) -> Result<Option<Vec<UnitState>>> {
    if !is_running() {
        return Ok(None);
    }
    let units: Vec<String> = units.iter().map(|&unit| unit.to_owned()).collect();
    let shown = show(&units, "Id,LoadState,ActiveState,SubState,Result,NRestarts")?;
    let known = shown.into_iter().filter_map(|mut unit| {
        let mut value = |name: &str| unit.remove(name).unwrap_or_default();
        (value("LoadState") == "loaded").then(|| UnitState {
            name: value("Id"),
            active: value("ActiveState"),
            sub: value("SubState"),
            result: value("Result"),
            restarts: value("NRestarts").parse().unwrap_or(0),
        })
    });
    Ok(Some(known.collect()))
}

/// Those of `units` that are active, in the same order.
pub fn active(units: &[&str]) -> Result<Vec<String>> {
    let all: Vec<String> = units.iter().map(|&unit| unit.to_owned()).collect();
    let asked = system::Program::Systemctl { order: UnitOrder::IsActive, units: &all };
    let output = system::output(asked).context("run systemctl is-active")?;
    // One line for each unit; the exit code only says whether any is active.
    let states = String::from_utf8_lossy(&output.stdout);
    let states: Vec<&str> = states.lines().map(str::trim).collect();
    if states.len() != units.len() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("systemctl is-active gave no answer for each unit: {}", error.trim());
    }
    let pairs = units.iter().zip(states);
    let active = pairs.filter(|(_, state)| matches!(*state, "active" | "activating"));
    Ok(active.map(|(unit, _)| (*unit).to_owned()).collect())
}

/// A property of a unit, as `systemctl show` prints it, with a line for each value of a list; empty
/// where the unit has none.
pub fn property(unit: &str, name: &str) -> Result<String> {
    Ok(systemctl(UnitOrder::Value(name), &[unit.to_owned()])?.trim().to_owned())
}

/// The services among `units`, and those that sockets among them start, which may have another name.
fn services(units: &[String]) -> Result<Vec<Service>> {
    let mut names: Vec<String> = Vec::new();
    for unit in show(units, "Id,Triggers")? {
        let value = |name: &str| unit.get(name).cloned().unwrap_or_default();
        let (id, triggers) = (value("Id"), value("Triggers"));
        let triggered = triggers.split_whitespace().map(str::to_owned);
        let named = triggered.chain([id]).filter(|name| is_unit_name(name));
        names.extend(named.filter(|name| name.ends_with(".service")));
    }
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let shown = show(&names, "Id,MainPID,ExecStart")?.into_iter();
    let services = shown.filter_map(|unit| {
        Some(Service {
            name: unit.get("Id").filter(|id| is_unit_name(id))?.clone(),
            pid: unit.get("MainPID").and_then(|pid| pid.parse().ok()).filter(|&pid| pid != 0),
            program: unit.get("ExecStart").and_then(|command| program(command)),
        })
    });
    Ok(services.collect())
}

/// Whether systemd can have a unit of that name (`man 5 systemd.unit`).
fn is_unit_name(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    (1..256).contains(&name.len()) && name.chars().all(is_allowed)
}

/// The file of a command as systemd shows it: `{ path=FILE ; argv[]=WORDS ; … }`.
fn program(command: &str) -> Option<PathBuf> {
    let (_, rest) = command.split_once("path=")?;
    let (path, _) = rest.split_once(" ; argv[]=")?;
    Some(path.into()).filter(|path: &PathBuf| path.is_absolute())
}

/// Properties of each unit.
fn show(units: &[String], properties: &str) -> Result<Vec<BTreeMap<String, String>>> {
    let shown = systemctl(UnitOrder::Show(properties), units)?;
    let units = shown.split("\n\n").map(|unit| {
        let pairs = unit.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    });
    Ok(units.collect())
}

fn systemctl(order: UnitOrder<'_>, units: &[String]) -> Result<String> {
    let verb = order.verb();
    let output = once_more_if_killed(|| {
        // Whatever is asked can be asked twice, and a stopped daemon depends on it.
        insist(|| system::output(system::Program::Systemctl { order, units }))
            .with_context(|| format!("run systemctl {verb}"))
    })?;
    succeeded(&format!("systemctl {verb} {}", units.join(" ")), &output)
}

/// Runs a systemctl that somebody killed again. What was asked may be done or not, and can be asked twice.
fn once_more_if_killed(mut ask: impl FnMut() -> Result<Output>) -> Result<Output> {
    let mut output = ask()?;
    for _ in 0..KILLED {
        if output.status.signal().is_none() {
            break;
        }
        output = ask()?;
    }
    Ok(output)
}

/// What a program said that has succeeded.
fn succeeded(what: &str, output: &Output) -> Result<String> {
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{what} failed ({}): {}", output.status, error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_unit_can_be_named() {
        for name in ["nix-daemon.service", "-.mount", r"a\x2db@1:2_3.socket"] {
            assert!(is_unit_name(name), "{name}");
        }
        for name in ["", "a b.service", "a/b.service", "a=b.service", &"a".repeat(256)] {
            assert!(!is_unit_name(name), "{name}");
        }
    }

    #[test]
    fn a_control_group_leads_down() {
        // This process is in some group, below which nothing is asked for.
        assert!(!processes("/").is_empty() || !Path::new("/sys/fs/cgroup/cgroup.procs").exists());
        for group in ["/../cgroup", "../cgroup", "/../../sys/fs/cgroup", ""] {
            assert_eq!(processes(group), [0u32; 0], "{group}");
        }
    }
}
