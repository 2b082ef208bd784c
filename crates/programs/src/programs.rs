//! The closed list of programs that the root helper, its guardian and the control of daemons execute.
//!
//! Every [`Command`] of `crates/root-helper/src` and `crates/daemon/src` is created in this file
//! (`tests/fast/executed_programs.rs`), so this is everything that can be executed with root's rights. Names of units
//! and services are passed as arguments and never as options: systemd has units such as `-.mount`.

use super::{Exec, ProcessContext};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// The only search path of the root helper.
pub const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:\
     /run/wrappers/bin:/run/current-system/sw/bin:\
     /run/current-system/profile/bin:/run/current-system/profile/sbin";

/// Directories that contain package managers, relative to the root of a store.
const PACKAGE_MANAGER_PATH: &str = "/nix/var/nix/profiles/default/bin:\
     /var/guix/profiles/per-user/root/current-guix/bin:\
     /usr/local/bin:/usr/bin:/bin:/run/current-system/sw/bin:/run/current-system/profile/bin";

/// The user and group ID of the account `nobody`, as which a package manager below the root of a store runs.
const NOBODY: u32 = 65534;

/// A program, with everything that decides what it does.
pub enum Program<'a> {
    /// The command line tool of systemd, which queries and controls units.
    Systemctl { order: UnitOrder<'a>, units: &'a [String] },
    /// Prints the latest lines that the journal has of units.
    Journalctl { units: &'a [&'a str], since: &'a str, lines: &'a str },
    /// The command line tool of a shepherd, run as the owner of the shepherd; `None` is the user of this process.
    Herd { socket: &'a Path, owner: Option<(u32, u32)>, order: HerdOrder<'a> },
    /// Makes systemd detach the mount on the directory of a store.
    DetachMount { path: &'a str },
    /// The command that a user passed with --daemon command, run as that user and group; `None` is the user of this
    /// process.
    UserCommand { text: &'a str, user: Option<(u32, u32)> },
    /// The executable file of the daemon before it was stopped.
    Daemon(OpenProgram<'a>),
    /// Asks a package manager for its version, below the root of its store and as an account without rights.
    PackageManager { name: &'static str, root: Arc<OwnedFd> },
    /// This program again, as a guardian.
    Guardian { program: &'a Path, name: &'static str },
    /// This program again, as the root helper. The user process starts it.
    RootHelper { program: &'a Path, by_sudo: bool, words: &'a [&'a str] },
}

/// An operation of `systemctl` on units.
#[derive(Debug, Clone, Copy)]
pub enum UnitOrder<'a> {
    IsActive,
    /// Prints properties of each unit, separated by commas.
    Show(&'a str),
    /// Prints only the value of one property.
    Value(&'a str),
    Start,
    Stop,
    ResetFailed,
    /// Sends SIGTERM to all processes of each unit.
    Kill,
    /// Sends SIGTERM to the main process of each unit.
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

/// An operation on a shepherd.
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

/// An open file to execute, and its context.
pub struct OpenProgram<'a> {
    /// The name of the file, for errors. It is never looked up.
    pub path: &'a Path,
    pub exec: Exec,
    pub context: ProcessContext,
    /// Standard output and standard error; `None` is `/dev/null`.
    pub output: [Option<OwnedFd>; 2],
}

impl Program<'_> {
    /// Returns the command that runs the program.
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
                // After the context is entered, execute the open file instead of the path.
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
                // A person who kills the root helper by its command line must not kill its guardian too.
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
        // systemd 252 and later name it `--kill-whom`, and still accept this name.
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
    // Print English, regardless of the locale.
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
