//! Daemons that are units of systemd.

use super::executable::{Program, Replaced};
use super::procfs;
use anyhow::{Context, Result, bail};
use crossbeam_channel::{RecvTimeoutError, bounded};
use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Component, Path, PathBuf};
use std::process::Output;
use std::time::Duration;
use storecache_programs as system;
use storecache_programs::{UnitOrder, await_output};
use storecache_runtime::RunContext;
use storecache_runtime::liveness::{StallTimer, Watch, describe};
use storecache_runtime::retry::insist;
use storecache_runtime::{disclosure, threads};

/// How long a service may take to stop before its remaining processes get another signal.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How often to run a killed systemctl again.
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
    /// The file that it is started from.
    program: Option<PathBuf>,
}

impl Active {
    /// Finds those of `units` that are active, in the same order; `None` if all are inactive.
    pub fn find(units: &[&str]) -> Result<Option<Self>> {
        let units = active(units)?;
        if units.is_empty() {
            return Ok(None);
        }
        let services = services(&units)?;
        Ok(Some(Active { units, services }))
    }

    /// Whether these units run the process that listens: for a socket, this is systemd itself.
    pub fn run(&self, listener: u32) -> bool {
        let sockets = self.units.iter().any(|unit| unit.ends_with(".socket"));
        let mut pids = self.services.iter().filter_map(|service| service.pid);
        (listener == 1 && sockets) || pids.any(|pid| procfs::descends(listener, pid))
    }

    /// Describes the units for messages, with their main process.
    pub fn describe(&self) -> String {
        let pid = self.services.iter().find_map(|service| service.pid);
        let process = pid.map(|pid| format!(" as process {pid}")).unwrap_or_default();
        format!("systemd has {} active{process}", self.units.join(" and "))
    }
}

/// Returns a report if a start of `units` would run a different file from the one that runs now.
///
/// # Errors
/// If they could not be started again.
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

/// Units that stop in one transaction, so that no socket starts its service again.
pub struct Stop {
    all: Vec<String>,
    services: Vec<String>,
}

impl Stop {
    /// Queries systemd for everything that the stop requires.
    pub fn new(units: &[String]) -> Result<Self> {
        // The end of a socket does not end its service, which any client may have started by then. So stop the
        // services of sockets too, whether or not they are active now.
        let services: Vec<String> = services(units)?.into_iter().map(|it| it.name).collect();
        let mut all: Vec<String> = units.to_vec();
        all.extend(services.iter().filter(|service| !units.contains(service)).cloned());
        // systemd refuses to start a unit that was started five times in ten seconds, whatever program asked
        // for it. Reset this count (`man 1 systemctl`, reset-failed). If that fails, the start reports the
        // error.
        let _ = systemctl(UnitOrder::ResetFailed, &all);
        Ok(Stop { all, services })
    }

    /// Stops the units. `timeout` counts from the last activity of the stopping processes. A running timeout
    /// of systemd itself (`TimeoutStopSec`) counts as activity.
    pub fn now(
        &self,
        run: &RunContext,
        timeout: Duration,
        cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        std::thread::scope(|scope| {
            let (stopped, is_stopped) = bounded::<()>(0);
            // Without this thread the stop only takes longer.
            let _ = threads::start_in(scope, "to repeat the signal", move || {
                let mut is_first = true;
                while is_stopped.recv_timeout(ASK_AGAIN) == Err(RecvTimeoutError::Timeout) {
                    self.services.iter().for_each(|service| ask_again(service, is_first));
                    is_first = false;
                }
            });
            let done = change(run, UnitOrder::Stop, &self.all, timeout, cancelled);
            drop(stopped);
            done
        })
    }
}

/// Sends SIGTERM again to the remaining processes of a service that systemd has sent it to already. Otherwise
/// systemd would wait for a minute and a half before it kills them.
///
/// A nix-daemon misses a signal that arrives while it accepts a client, see
/// [`ProcessHandle::stop`](super::bare_process::ProcessHandle::stop). A worker of Guix 1.5 with an idle client needs
/// two signals to end. systemd sends two, the second one when the main process has ended; if that happens quickly,
/// the worker receives them as one.
///
/// A main process alone gets one more signal and not another: its handler may start over with each signal.
fn ask_again(service: &str, is_first: bool) {
    let is = |name: &str, values: &[&str]| {
        property(service, name).is_ok_and(|value| values.contains(&value.as_str()))
    };
    if is("SubState", &["stop-sigterm", "final-sigterm"]) {
        // With other kill modes, the workers must live on.
        let takes_workers = is("KillMode", &["control-group"]);
        let order = match takes_workers {
            true => UnitOrder::Kill,
            false if is_first => UnitOrder::KillMain,
            false => return,
        };
        // An error is harmless: the service may have ended by now.
        let _ = systemctl(order, &[service.to_owned()]);
    }
}

/// Starts units and waits until they have started. `timeout` counts from their last activity.
pub fn start(run: &RunContext, units: &[String], timeout: Duration) -> Result<()> {
    change(run, UnitOrder::Start, units, timeout, &|| Ok(()))
}

/// Makes systemd stop or start units, and waits until it has. If this gives up, systemd still continues its
/// job.
fn change(
    run: &RunContext,
    order: UnitOrder<'_>,
    units: &[String],
    timeout: Duration,
    cancelled: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let what = format!("systemctl {} {}", order.verb(), units.join(" "));
    let output = once_more_if_killed(|| {
        let mut stall_timer = StallTimer::new(timeout);
        let mut probe = || at_work(units, &mut stall_timer);
        let watch = Watch {
            run,
            what: &what,
            flag: "daemon-timeout",
            timeout,
            check_canceled: cancelled,
            probe: &mut probe,
        };
        await_output(system::Program::Systemctl { order, units }, watch)
    });
    let output = output.map_err(|e| e.context(stuck(units)))?;
    succeeded(&what, &output).map(drop)
}

/// Describes what systemd is waiting for, if that counts as activity: a unit that changes its state under a
/// timeout of systemd's own, or a unit whose processes work.
fn at_work(units: &[String], stall_timer: &mut StallTimer) -> Option<String> {
    let wanted = "Id,ActiveState,SubState,TimeoutStopUSec,TimeoutStartUSec,ControlGroup";
    for unit in show(units, wanted).ok()? {
        let value = |name: &str| unit.get(name).map_or("", String::as_str);
        let (state, timeout) = match value("ActiveState") {
            "deactivating" => ("deactivating", "TimeoutStopUSec"),
            "activating" => ("activating", "TimeoutStartUSec"),
            _ => continue,
        };
        let changes = format!("{} is {state} ({})", value("Id"), value("SubState"));
        if value(timeout) != "infinity" {
            return Some(changes);
        }
        if let Some(activity) = stall_timer.sample(&processes(value("ControlGroup"))) {
            return Some(format!("{changes}, and {activity}"));
        }
    }
    None
}

/// Returns the processes of a control group; empty if its path is not absolute, or contains `..`.
fn processes(group: &str) -> Vec<u32> {
    let leads_down = Path::new(group).components().all(|part| part != Component::ParentDir);
    if !leads_down || !group.starts_with('/') {
        return Vec::new();
    }
    let path = format!("/sys/fs/cgroup{group}/cgroup.procs");
    let listed = std::fs::read_to_string(path).unwrap_or_default();
    listed.lines().filter_map(|pid| pid.parse().ok()).collect()
}

/// Describes the units that have not finished starting or stopping, for messages.
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
    if stuck.is_empty() { "systemd has not finished".into() } else { stuck.join("; ") }
}

/// Returns `units`, and all active units that stop together with them and are not started by a start of `units`
/// alone.
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

/// The state of a unit that systemd has loaded from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitState {
    pub name: String,
    /// As printed by `systemctl is-active`.
    pub active: String,
    /// The state in the terms of this kind of unit, such as `running` or `listening`.
    sub: String,
    /// The result of its last run; `success` if it did not fail.
    result: String,
    /// How often systemd has restarted it automatically.
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
            times => write!(f, ", restarted automatically {times} times"),
        }
    }
}

/// Returns the states of those of `units` that systemd knows; `None` if systemd does not run.
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

/// Returns those of `units` that are active, in the same order.
pub fn active(units: &[&str]) -> Result<Vec<String>> {
    let all: Vec<String> = units.iter().map(|&unit| unit.to_owned()).collect();
    let asked = system::Program::Systemctl { order: UnitOrder::IsActive, units: &all };
    let output = system::output(asked).context("run systemctl is-active")?;
    // One line for each unit; the exit code only shows whether any is active.
    let states = String::from_utf8_lossy(&output.stdout);
    let states: Vec<&str> = states.lines().map(str::trim).collect();
    if states.len() != units.len() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("systemctl is-active did not report each unit: {}", error.trim());
    }
    let pairs = units.iter().zip(states);
    let active = pairs.filter(|(_, state)| matches!(*state, "active" | "activating"));
    Ok(active.map(|(unit, _)| (*unit).to_owned()).collect())
}

/// Returns a property of a unit as `systemctl show` prints it, with a line for each value of a list; empty if
/// the unit does not have the property.
pub fn property(unit: &str, name: &str) -> Result<String> {
    Ok(systemctl(UnitOrder::Value(name), &[unit.to_owned()])?.trim().to_owned())
}

/// Returns the services among `units`, and those that sockets among them start, which may have other names.
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

/// Whether `name` is a valid name of a unit (`man 5 systemd.unit`).
fn is_unit_name(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    (1..256).contains(&name.len()) && name.chars().all(is_allowed)
}

/// Parses the file of a command as systemd prints it: `{ path=FILE ; argv[]=WORDS ; … }`.
fn program(command: &str) -> Option<PathBuf> {
    let (_, rest) = command.split_once("path=")?;
    let (path, _) = rest.split_once(" ; argv[]=")?;
    Some(path.into()).filter(|path: &PathBuf| path.is_absolute())
}

/// Returns properties of each unit.
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
        // Retry: every request can be repeated, and a stopped daemon depends on it.
        insist(|| system::output(system::Program::Systemctl { order, units }))
            .with_context(|| format!("run systemctl {verb}"))
    })?;
    succeeded(&format!("systemctl {verb} {}", units.join(" ")), &output)
}

/// Runs systemctl again if another process killed it. The request may have been carried out or not, and can be
/// repeated.
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

/// Returns the standard output of a program that has succeeded.
///
/// # Errors
/// If it has failed.
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
    fn unit_names_are_validated() {
        for name in ["nix-daemon.service", "-.mount", r"a\x2db@1:2_3.socket"] {
            assert!(is_unit_name(name), "{name}");
        }
        for name in ["", "a b.service", "a/b.service", "a=b.service", &"a".repeat(256)] {
            assert!(!is_unit_name(name), "{name}");
        }
    }

    #[test]
    fn control_group_paths_cannot_leave_the_hierarchy() {
        // The root group contains processes, if control groups are mounted.
        assert!(!processes("/").is_empty() || !Path::new("/sys/fs/cgroup/cgroup.procs").exists());
        for group in ["/../cgroup", "../cgroup", "/../../sys/fs/cgroup", ""] {
            assert_eq!(processes(group), [0u32; 0], "{group}");
        }
    }
}
