//! The closed list of programs that the root helper, its guardian and the control of daemons execute.
//!
//! Every [`Command`] of `src/privileged` and `src/daemon` is made in this file (`tests/programs.rs`), so this is
//! all that root's rights can execute. Names of units and services are arguments and never options: systemd has
//! units such as `-.mount`.

use super::{Exec, ProcessContext};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// The only search path that the root helper has.
pub const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:\
     /run/wrappers/bin:/run/current-system/sw/bin:\
     /run/current-system/profile/bin:/run/current-system/profile/sbin";

/// Where package managers are, as seen from the root of a store.
const PACKAGE_MANAGER_PATH: &str = "/nix/var/nix/profiles/default/bin:\
     /var/guix/profiles/per-user/root/current-guix/bin:\
     /usr/local/bin:/usr/bin:/bin:/run/current-system/sw/bin:/run/current-system/profile/bin";

/// The account that programs of a foreign root run as: nobody.
const NOBODY: u32 = 65534;

/// A program, with all that decides what it does.
pub enum Program<'a> {
    /// systemd's own program, which asks and orders systemd.
    Systemctl { order: UnitOrder<'a>, units: &'a [String] },
    /// The newest lines that the journal has of units.
    Journalctl { units: &'a [&'a str], since: &'a str, lines: &'a str },
    /// The program of a shepherd, run as the owner of the shepherd; `None` is this process's own user.
    Herd { socket: &'a Path, owner: Option<(u32, u32)>, order: HerdOrder<'a> },
    /// Has systemd detach the mount on the directory of a store.
    DetachMount { path: &'a str },
    /// The command that a user gave with --daemon command, run as that user and group; `None` is this process's
    /// own user.
    UserCommand { text: &'a str, user: Option<(u32, u32)> },
    /// The file that a daemon ran until it was stopped.
    Daemon(OpenProgram<'a>),
    /// Asks a package manager for its version, below the root of its store and as an account without rights.
    PackageManager { name: &'static str, root: Arc<OwnedFd> },
    /// This program again, as a guardian.
    Guardian { program: &'a Path, name: &'static str },
    /// This program again, as the root helper. The user process starts it.
    RootHelper { program: &'a Path, by_sudo: bool, words: &'a [&'a str] },
}

/// What `systemctl` is to do with units.
#[derive(Debug, Clone, Copy)]
pub enum UnitOrder<'a> {
    IsActive,
    /// Properties of each unit, separated by commas.
    Show(&'a str),
    /// The value of one property alone.
    Value(&'a str),
    Start,
    Stop,
    ResetFailed,
    /// SIGTERM for all processes of each unit.
    Kill,
    /// SIGTERM for the main process of each unit.
    KillMain,
}

impl UnitOrder<'_> {
    pub fn verb(self) -> &'static str {
        match self {
            UnitOrder::IsActive => "is-active",
            UnitOrder::Show(_) | UnitOrder::Value(_) => "show",
            UnitOrder::Start => "start",
            UnitOrder::Stop => "stop",
            UnitOrder::ResetFailed => "reset-failed",
            UnitOrder::Kill | UnitOrder::KillMain => "kill",
        }
    }
}

/// What a shepherd is to do.
#[derive(Debug, Clone, Copy)]
pub enum HerdOrder<'a> {
    /// Lists the services.
    List,
    Status(&'a str),
    Start(&'a str),
    Stop(&'a str),
}

impl<'a> HerdOrder<'a> {
    pub fn words(self) -> Vec<&'a str> {
        match self {
            HerdOrder::List => vec!["status"],
            HerdOrder::Status(service) => vec!["status", service],
            HerdOrder::Start(service) => vec!["start", service],
            HerdOrder::Stop(service) => vec!["stop", service],
        }
    }
}

/// An open file to execute, and what it gets.
pub struct OpenProgram<'a> {
    /// Its name, for errors. It is never looked up.
    pub path: &'a Path,
    pub exec: Exec,
    pub context: ProcessContext,
    /// Output and error output; nowhere if there is none.
    pub output: [Option<OwnedFd>; 2],
}

impl Program<'_> {
    /// The command that runs it.
    pub(super) fn command(self) -> Command {
        match self {
            Program::Systemctl { order, units } => systemctl(order, units),
            Program::Journalctl { units, since, lines } => journalctl(units, since, lines),
            Program::Herd { socket, owner, order } => herd(socket, owner, order),
            Program::DetachMount { path } => {
                let mut command = Command::new("systemd-run");
                let words = ["--quiet", "--wait", "--collect", "umount", "--lazy", path];
                command.args(words).stdin(Stdio::null());
                command
            }
            Program::UserCommand { text, user } => {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", text]).stdin(Stdio::null());
                // A daemon that the command leaves behind must not keep our pipes open.
                command.stdout(Stdio::null()).stderr(Stdio::null());
                run_as(&mut command, user);
                command
            }
            Program::Daemon(OpenProgram { path, exec, context, output }) => {
                let [stdout, stderr] = output.map(|to| to.map_or_else(Stdio::null, Stdio::from));
                let mut command = Command::new(path);
                command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
                context.apply(&mut command);
                // Behind the context, and in place of the path: the file that is open.
                exec.apply(&mut command);
                command
            }
            Program::PackageManager { name, root } => {
                let mut command = Command::new(name);
                command.arg("--version").env_clear().env("PATH", PACKAGE_MANAGER_PATH);
                command.stdin(Stdio::null()).stderr(Stdio::null());
                let (uid, gid) = (NOBODY, NOBODY);
                ProcessContext { root: Some(root), uid, gid, ..ProcessContext::default() }
                    .apply(&mut command);
                command
            }
            Program::Guardian { program, name } => {
                let mut command = Command::new(program);
                // A person who ends the root helper by its command line must not end its guardian with it.
                command.arg0(format!("storecache-{name}")).args(["privileged", "--guardian"]);
                command.env_clear().env("PATH", ROOT_PATH);
                ProcessContext { own_session: true, ..ProcessContext::default() }
                    .apply(&mut command);
                command
            }
            Program::RootHelper { program, by_sudo, words } => {
                let mut command = match by_sudo {
                    true => Command::new("sudo"),
                    false => Command::new(program),
                };
                if by_sudo {
                    command.args(["-n", "--"]).arg(program);
                }
                command.args(words).env_clear().env("PATH", ROOT_PATH);
                command
            }
        }
    }
}

fn systemctl(order: UnitOrder<'_>, units: &[String]) -> Command {
    let mut command = Command::new("systemctl");
    command.arg(order.verb());
    match order {
        UnitOrder::Show(properties) => _ = command.arg(format!("--property={properties}")),
        UnitOrder::Value(property) => {
            command.args(["--value".to_owned(), format!("--property={property}")]);
        }
        // Of systemd 252 and later `--kill-whom`, and this one still.
        UnitOrder::KillMain => _ = command.arg("--kill-who=main"),
        _ => {}
    }
    command.arg("--").args(units).stdin(Stdio::null());
    command
}

fn journalctl(units: &[&str], since: &str, lines: &str) -> Command {
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--no-pager", "--output=json", "--since", since, "--lines", lines]);
    units.iter().for_each(|unit| {
        command.args(["--unit", unit]);
    });
    command.stdin(Stdio::null());
    command
}

fn herd(socket: &Path, owner: Option<(u32, u32)>, order: HerdOrder<'_>) -> Command {
    let mut command = Command::new("herd");
    command.arg("--socket").arg(socket).arg("--").args(order.words());
    // In English, whatever the locale.
    command.env_clear().env("LC_ALL", "C");
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.stdin(Stdio::null());
    run_as(&mut command, owner);
    command
}

fn run_as(command: &mut Command, user: Option<(u32, u32)>) {
    if let Some((uid, gid)) = user {
        ProcessContext { uid, gid, groups: vec![gid], ..ProcessContext::default() }.apply(command);
    }
}
