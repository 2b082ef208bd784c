//! Daemons that are units of systemd.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether systemd is this machine's init (`man 3 sd_booted`).
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Those of `units` that are active, in the same order.
pub fn active(units: &[&str]) -> Result<Vec<String>> {
    let output = Command::new("systemctl")
        .arg("is-active")
        .args(units)
        .stdin(Stdio::null())
        .output()
        .context("run systemctl is-active")?;
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

/// A property of a unit, as `systemctl show` prints it; empty where the unit has none.
pub fn property(unit: &str, name: &str) -> Result<String> {
    let output = Command::new("systemctl")
        .args(["show", "--value", "--property", name, unit])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run systemctl show {unit}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Stops all units in one transaction, so that no socket revives its service.
pub fn stop(units: &[String]) -> Result<()> {
    // A socket that is left alone starts its service for the next client, whether the service was
    // active before or not; so the services of sockets stop too.
    let services = units.iter().filter_map(|u| u.strip_suffix(".socket"));
    let services = services.map(|name| format!("{name}.service"));
    let mut all: Vec<String> = units.to_vec();
    all.extend(services.filter(|service| !units.contains(service)));
    systemctl("stop", &all)
}

pub fn start(units: &[String]) -> Result<()> {
    systemctl("start", units)
}

fn systemctl(verb: &str, units: &[String]) -> Result<()> {
    let output = Command::new("systemctl")
        .arg(verb)
        .args(units)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run systemctl {verb}"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        let units = units.join(" ");
        bail!("systemctl {verb} {units} failed ({}): {}", output.status, error.trim());
    }
    Ok(())
}
