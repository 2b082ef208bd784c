//! Takes the place of `run.rs` in fuzzers, and executes nothing. Records what would be executed, and returns the
//! answers that a fuzz target has prepared.

use super::Program;
use anyhow::Result;
use std::ffi::OsString;
use std::io::{Error, ErrorKind};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use storecache_runtime::liveness::Watch;

/// Executions after this number fail, as if there were too many processes, so that every loop ends.
const LIMIT: usize = 200;

/// A program that would have been executed.
#[derive(Debug, Clone)]
pub struct Execution {
    pub program: Kind,
    /// Program and arguments, as the kernel would receive them.
    pub words: Vec<OsString>,
    /// User and group, if not those of this process.
    pub user: Option<(u32, u32)>,
    /// Exit status: see [`Answer`].
    pub status: i32,
    /// Its output.
    pub printed: String,
}

/// The entry of the closed list that a program belongs to.
#[derive(Debug, Clone)]
pub enum Kind {
    Systemctl { verb: &'static str, units: Vec<String> },
    Journalctl,
    Herd { socket: OsString, words: Vec<String> },
    DetachMount { path: String },
    UserCommand { text: String },
    Daemon { identity: (u64, u64), groups: Vec<u32>, variables: Vec<OsString> },
    PackageManager,
    Guardian,
    RootHelper,
}

/// The output and exit status of a program.
#[derive(Debug, Clone)]
pub struct Answer {
    /// A verb, with the requested properties: see [`key`].
    pub key: String,
    pub status: i32,
    pub printed: String,
}

struct Script {
    answers: Vec<Answer>,
    executed: Vec<Execution>,
}

static SCRIPT: Mutex<Script> = Mutex::new(Script { answers: Vec::new(), executed: Vec::new() });

fn script() -> MutexGuard<'static, Script> {
    SCRIPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Clears the record of executions, and sets the answers. If several answers have one key, each is returned
/// once, and then the last one repeatedly.
pub fn answer_with(answers: Vec<Answer>) {
    *script() = Script { answers, executed: Vec::new() };
}

/// Returns the executions since [`answer_with`].
pub fn executed() -> Vec<Execution> {
    std::mem::take(&mut script().executed)
}

/// Returns whether a shepherd would have stopped a service by now, and with it the process of the service.
pub fn has_herd_stopped() -> bool {
    let is_stop = |execution: &Execution| match &execution.program {
        Kind::Herd { words, .. } => words[0] == "stop" && execution.status == 0,
        _ => false,
    };
    script().executed.iter().any(is_stop)
}

/// Returns the key of the answer: `is-active`, `show/Id,Triggers`, `value/KillMode`, `herd/status`, `sh`.
fn key(program: &Kind, words: &[OsString]) -> String {
    match program {
        Kind::Systemctl { verb, .. } => {
            let options = words.iter().filter_map(|word| word.to_str()?.strip_prefix("--"));
            let options: Vec<_> = options.take_while(|option| !option.is_empty()).collect();
            match options[..] {
                [] => (*verb).to_owned(),
                ["value", property] => property.replace("property=", "value/"),
                [properties, ..] => properties.replace("property=", "show/"),
            }
        }
        Kind::Herd { words, .. } => match &words[..] {
            [list] => format!("herd/{list}/"),
            [verb, ..] => format!("herd/{verb}"),
            [] => "herd".into(),
        },
        Kind::UserCommand { .. } => "sh".into(),
        Kind::DetachMount { .. } => "umount".into(),
        _ => "other".into(),
    }
}

fn execute(program: Program<'_>) -> Result<Output, Error> {
    let (kind, user) = describe(&program);
    let command = program.command();
    let arguments = command.get_args().map(|word| word.to_owned());
    let words: Vec<_> = [command.get_program().to_owned()].into_iter().chain(arguments).collect();
    // The standard library shows this in place of a word with a NUL byte, which it refuses.
    if words.iter().any(|word| word == "<string-with-nul>") {
        return Err(ErrorKind::InvalidInput.into());
    }
    let key = key(&kind, &words);
    let mut script = script();
    let mut answer = None;
    if let Some(at) = script.answers.iter().position(|answer| answer.key == key) {
        let is_last = script.answers.iter().filter(|answer| answer.key == key).count() == 1;
        answer = Some(script.answers[at].clone());
        if !is_last {
            script.answers.remove(at);
        }
    }
    let Answer { status, printed, .. } =
        answer.unwrap_or_else(|| Answer { key, status: 0, printed: String::new() });
    script.executed.push(Execution {
        program: kind,
        words,
        user,
        status,
        printed: printed.clone(),
    });
    if script.executed.len() > LIMIT {
        return Err(ErrorKind::WouldBlock.into());
    }
    if status < 0 {
        return Err(Error::from_raw_os_error(-status));
    }
    let (stdout, stderr) = match status {
        0 => (printed, String::new()),
        _ => (printed.clone(), printed),
    };
    Ok(Output { status: exit(status), stdout: stdout.into(), stderr: stderr.into() })
}

/// Returns the kind of a program, and the user that it runs as.
fn describe(program: &Program<'_>) -> (Kind, Option<(u32, u32)>) {
    match program {
        Program::Systemctl { order, units } => {
            (Kind::Systemctl { verb: order.verb(), units: units.to_vec() }, None)
        }
        Program::Journalctl { .. } => (Kind::Journalctl, None),
        Program::Herd { socket, owner, order } => {
            let words = order.words().into_iter().map(str::to_owned).collect();
            (Kind::Herd { socket: socket.as_os_str().to_owned(), words }, *owner)
        }
        Program::DetachMount { path } => (Kind::DetachMount { path: (*path).to_owned() }, None),
        Program::UserCommand { text, user } => {
            (Kind::UserCommand { text: (*text).to_owned() }, *user)
        }
        Program::Daemon(daemon) => {
            let variable = |word: &std::ffi::CString| {
                let bytes = word.to_bytes().to_vec();
                std::os::unix::ffi::OsStringExt::from_vec(bytes)
            };
            let kind = Kind::Daemon {
                identity: daemon.exec.identity,
                groups: daemon.context.groups.clone(),
                variables: daemon.exec.environment.iter().map(variable).collect(),
            };
            (kind, Some((daemon.context.uid, daemon.context.gid)))
        }
        Program::PackageManager { .. } => (Kind::PackageManager, None),
        Program::Guardian { .. } => (Kind::Guardian, None),
        Program::RootHelper { .. } => (Kind::RootHelper, None),
    }
}

/// Converts a status: values below 256 are exit codes, and values above are 256 plus a signal.
fn exit(status: i32) -> ExitStatus {
    ExitStatus::from_raw(if status < 256 { status << 8 } else { (status - 256).clamp(1, 64) })
}

pub fn output(program: Program<'_>) -> Result<Output, Error> {
    execute(program)
}

pub fn await_output(program: Program<'_>, watch: Watch<'_>) -> Result<Output> {
    (watch.check_canceled)()?;
    let output = execute(program)?;
    // The real implementation may call the probe at any time.
    (watch.probe)();
    Ok(output)
}

pub fn await_status(program: Program<'_>, watch: Watch<'_>) -> Result<ExitStatus> {
    await_output(program, watch).map(|output| output.status)
}

pub fn spawn(program: Program<'_>) -> Result<Child, Error> {
    execute(program)?;
    Err(ErrorKind::Unsupported.into())
}

pub fn start(program: Program<'_>) -> Result<(), Error> {
    execute(program).map(drop)
}
