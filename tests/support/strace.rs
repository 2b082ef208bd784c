//! Uses strace to record what the root helper and its guardians open, connect to, execute and take from other
//! processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::poll;

const TIMEOUT: Duration = Duration::from_secs(60);

/// The calls by which a process gets input that was not passed to it. A question mark allows for
/// architectures without the call.
const CALLS: &str = "trace=?open,openat,openat2,connect,execve,execveat,?readlink,readlinkat,\
    clone,clone3,?fork,?vfork,close_range,getsockopt,pidfd_open,pidfd_getfd";

/// `SO_PEERPIDFD` as printed by a strace that is older than the option
/// (`linux:include/uapi/asm-generic/socket.h`).
const PEER_PIDFD: &str = "0x4d";

/// The arguments for a strace that is not the parent of the command, and that runs until everything that the
/// command started has ended.
pub(super) fn arguments(trace: &Path) -> Vec<String> {
    let fixed = ["-D", "-ff", "-y", "-qq", "-s", "8192", "--pidns-translation"];
    let fixed = fixed.into_iter().map(str::to_owned);
    let rest = ["-e", CALLS, "-e", "signal=none", "-o"].map(str::to_owned);
    fixed.chain(rest).chain([trace.to_str().unwrap().to_owned()]).collect()
}

/// A process of storecache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    Helper,
    /// The guardian or the backup guardian.
    Guardian,
}

/// The object that a call names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// A path that is opened, or a symlink that is read.
    File(String),
    /// The path of a socket.
    Socket(String),
    /// The path of a program, and its arguments.
    Program(Vec<String>),
    /// The call or socket option that returns a descriptor or identifies the process at its other end, and
    /// the number of the descriptor if it is fixed.
    Descriptor(String),
}

/// The files of one trace: one for each thread, named `PREFIX.TID`.
pub struct Trace {
    directory: tempfile::TempDir,
}

impl Trace {
    pub fn new() -> Trace {
        Trace { directory: tempfile::tempdir().unwrap() }
    }

    pub(super) fn prefix(&self) -> PathBuf {
        self.directory.path().join("trace")
    }

    /// The calls of each thread.
    fn threads(&self) -> BTreeMap<u32, String> {
        let files = fs::read_dir(self.directory.path()).unwrap();
        let calls = files.map(|file| {
            let path = file.unwrap().path();
            let thread = path.extension().unwrap().to_str().unwrap().parse().unwrap();
            (thread, String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned())
        });
        calls.collect()
    }

    /// Everything that the helper and its guardians have named so far.
    #[track_caller]
    pub fn inputs(&self) -> BTreeSet<(Process, Input)> {
        // The trace of a thread may appear before the call that started the thread has returned.
        let (mut threads, first) = poll::until("a whole trace", TIMEOUT, || {
            let threads = self.threads();
            let started: BTreeSet<u32> = threads.values().flat_map(|text| children(text)).collect();
            let first: Vec<u32> =
                threads.keys().copied().filter(|thread| !started.contains(thread)).collect();
            match first[..] {
                [first] => Ok((threads, first)),
                _ => Err(format!("no traced thread started the threads {first:?}")),
            }
        });
        let mut pending: Vec<(u32, Option<Process>)> = vec![(first, None)];
        let mut inputs = BTreeSet::new();
        while let Some((thread, mut process)) = pending.pop() {
            for line in threads.remove(&thread).unwrap_or_default().lines() {
                let Some(call) = Call::parse(line) else { continue };
                if let Some(child) = call.child() {
                    pending.push((child, process));
                }
                if let (Some(process), Some(input)) = (process, call.input()) {
                    inputs.insert((process, input));
                }
                if call.name.starts_with("exec") && call.succeeded() {
                    process = call.becomes();
                }
            }
        }
        inputs
    }
}

fn children(text: &str) -> Vec<u32> {
    text.lines().filter_map(|line| Call::parse(line)?.child()).collect()
}

/// A line of a trace.
struct Call<'a> {
    name: &'a str,
    arguments: &'a str,
    result: &'a str,
}

impl<'a> Call<'a> {
    fn parse(line: &'a str) -> Option<Call<'a>> {
        let (name, rest) = line.split_once('(')?;
        let (arguments, result) = rest.rsplit_once(" = ")?;
        Some(Call { name, arguments, result })
    }

    fn succeeded(&self) -> bool {
        !self.result.starts_with('-') && !self.result.starts_with('?')
    }

    /// The thread that the call started, by its number outside of the world.
    fn child(&self) -> Option<u32> {
        let starts = ["clone", "clone3", "fork", "vfork"].contains(&self.name);
        if !starts || !self.succeeded() {
            return None;
        }
        let outer = self.result.split_once("/* ").map_or(self.result, |(_, outer)| outer);
        outer.split_whitespace().next()?.parse().ok()
    }

    /// The quoted words of the arguments.
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut rest = self.arguments;
        while let Some((_, after)) = rest.split_once('"') {
            let mut word = String::new();
            let mut characters = after.char_indices();
            let end = loop {
                match characters.next() {
                    Some((at, '"')) => break at + 1,
                    Some((_, '\\')) => word.extend(characters.next().map(|(_, next)| next)),
                    Some((_, other)) => word.push(other),
                    None => break after.len(),
                }
            };
            words.push(word);
            rest = &after[end..];
        }
        words
    }

    /// The path, resolved against the directory of the descriptor.
    fn path(&self) -> Option<String> {
        let path = self.words().into_iter().next()?;
        let below = self.arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
        match below {
            Some((directory, _)) if !path.starts_with('/') => {
                Some(format!("{}/{path}", directory.trim_end_matches('/')))
            }
            _ => Some(path),
        }
    }

    fn input(&self) -> Option<Input> {
        match self.name {
            "open" | "openat" | "openat2" | "readlink" | "readlinkat" => {
                self.path().map(Input::File)
            }
            "connect" => self.words().into_iter().next().map(Input::Socket),
            "execve" | "execveat" => Some(Input::Program(self.words())),
            "pidfd_open" => Some(Input::Descriptor(self.name.to_owned())),
            "pidfd_getfd" => self.number(1),
            "close_range" => self.number(0),
            "getsockopt" => self.option().map(|option| Input::Descriptor(option.to_owned())),
            _ => None,
        }
    }

    /// The call and the number of the descriptor that an argument names.
    fn number(&self, argument: usize) -> Option<Input> {
        // strace appends the file that this process has open under that number.
        let number = self.arguments.split(", ").nth(argument)?.split('<').next()?;
        Some(Input::Descriptor(format!("{} {number}", self.name)))
    }

    /// The socket option that is read, if it identifies the process at the other end.
    fn option(&self) -> Option<&'static str> {
        let option = self.arguments.split(", ").nth(2)?.split(' ').next()?;
        match option {
            "SO_PEERCRED" => Some("SO_PEERCRED"),
            "SO_PEERPIDFD" | PEER_PIDFD => Some("SO_PEERPIDFD"),
            _ => None,
        }
    }

    /// The process of storecache that a thread runs as after this call.
    fn becomes(&self) -> Option<Process> {
        let words = self.words();
        let has = |word: &str| words.iter().any(|it| it == word);
        let ours = words.first()?.ends_with("/storecache") || words[0] == "/proc/self/exe";
        match (ours && has("privileged"), has("--guardian")) {
            (true, true) => Some(Process::Guardian),
            (true, false) => Some(Process::Helper),
            _ => None,
        }
    }
}
