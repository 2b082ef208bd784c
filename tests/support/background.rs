//! Runs the program under test on this machine in the background of a test.

use std::fs::File;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::invocation::Output;
use super::{poll, procfs};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A running process of the program, which is killed when this value is dropped.
pub struct Background {
    words: String,
    child: Child,
    stdout: File,
    stderr: tempfile::NamedTempFile,
}

impl Background {
    pub fn start(command: &mut Command) -> Background {
        let words: Vec<_> =
            command.get_args().map(|it| it.to_string_lossy().into_owned()).collect();
        let stdout = tempfile::NamedTempFile::new().unwrap();
        let stderr = tempfile::NamedTempFile::new().unwrap();
        command.stdin(Stdio::null()).stdout(stdout.reopen().unwrap());
        let child = command.stderr(stderr.reopen().unwrap()).spawn().unwrap();
        Background { words: words.join(" "), child, stdout: stdout.into_file(), stderr }
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(self.stderr.path()).unwrap()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until the process has printed this text on standard error.
    #[track_caller]
    pub fn wait_for_stderr(&mut self, text: &str) {
        poll::until(&format!("{text:?} to be printed"), TIMEOUT, || {
            let said = self.said();
            if said.contains(text) {
                return Ok(());
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the run ended without {text:?}: {said}");
            Err(said)
        });
    }

    /// The pid of the root helper. The tests run as root on this machine, so there is no sudo in between.
    #[track_caller]
    pub fn root_helper_pid(&self) -> Pid {
        let pid = poll::until("the root helper", TIMEOUT, || {
            procfs::first_child(self.child.id()).ok_or("no child process")
        });
        Pid::from_raw(pid as i32).unwrap()
    }

    #[track_caller]
    pub fn wait(mut self) -> Output {
        let status = poll::until(&format!("`{}` to end", self.words), TIMEOUT, || {
            self.child.try_wait().unwrap().ok_or_else(|| self.said())
        });
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).unwrap();
        Output { command: self.words.clone(), status, stdout, stderr: self.said() }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}
