//! A job of GitHub Actions with one step that runs this action: the inputs, files and variables that the
//! runner makes, and node, which runs the step.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use storecache::action::INPUTS;
use tempfile::TempDir;

use super::plain_env::{self, PlainEnv};
use super::poll;
use super::procfs;
use super::programs;
use super::world::World;

const TIMEOUT: Duration = Duration::from_secs(120);

/// A job with a work tree, and one step that uses storecache.
pub struct Job {
    /// The directory of the runner's files, as the tests see it.
    directory: PathBuf,
    variables: BTreeMap<String, OsString>,
    _own: Option<TempDir>,
}

impl Job {
    /// A job on this machine that runs as the user who runs the tests.
    pub fn new() -> Job {
        let own = tempfile::tempdir().unwrap();
        let job = Job::prepare(own.path().to_owned(), Some(own));
        job.input("binary", plain_env::binary())
    }

    /// A job that saves and restores plain directories of a fixture.
    pub fn on(place: &PlainEnv, paths: &[&str]) -> Job {
        let job = Job::new().input("store", "plain").input("path", paths.join("\n"));
        let job = job.input("root", place.root());
        job.input("backend", format!("dir:{}", place.entries().display()))
    }

    /// A job in a world that runs as the world's user `runner`. A world has no node, so node runs outside and
    /// starts the program inside, with its standard input and its variables.
    pub fn inside(world: &World, name: &str) -> Job {
        let directory = world.backend().host_path().join(name);
        let job = Job::prepare(directory.clone(), None);
        world.ok(["chown", "-R", "runner:runner", &format!("/cache/{name}")]);
        let program = directory.join("program");
        let inside = format!("/cache/{name}");
        // Not a shell script, because a shell drops variables whose names contain a dash.
        let script = format!(
            r#"#!/usr/bin/env python3
import os, sys
os.environ.update(
    GITHUB_OUTPUT="{inside}/output", GITHUB_STATE="{inside}/state", RUNNER_TEMP="{inside}/temp",
    HOME="/home/runner", USER="runner", LOGNAME="runner")
words = "nsenter --all --target {} -- env --chdir {inside}/workspace".split()
words += "setpriv --reuid runner --regid runner --init-groups storecache".split()
os.execvp(words[0], words + sys.argv[1:])
"#,
            world.init()
        );
        programs::write(&program, script);
        let job = job.input("binary", program).input("store", world.package_manager().name());
        job.input("backend", "dir:/cache/entries")
    }

    fn prepare(directory: PathBuf, own: Option<TempDir>) -> Job {
        for name in ["workspace", "temp"] {
            fs::create_dir_all(directory.join(name)).unwrap();
        }
        for name in ["output", "state"] {
            fs::write(directory.join(name), "").unwrap();
            // Writable for the user who runs the step, as the runner makes them.
            fs::set_permissions(directory.join(name), Permissions::from_mode(0o666)).unwrap();
        }
        let mut job = Job { directory, variables: BTreeMap::new(), _own: own };
        job.set("PATH", std::env::var_os("PATH").unwrap());
        job.set("CI", "true");
        job.set("GITHUB_ACTIONS", "true");
        job.set("GITHUB_OUTPUT", job.file("output"));
        job.set("GITHUB_STATE", job.file("state"));
        job.set("GITHUB_WORKSPACE", job.workspace());
        job.set("RUNNER_TEMP", job.file("temp"));
        // Inputs that are not set have their defaults.
        for input in &INPUTS {
            // As the runner sets it while the job succeeds.
            let default = input.default.replace("${{ job.status }}", "success");
            // Without a token, because masking it would add a line to every log.
            job = job.input(input.name, default.replace("${{ github.token }}", ""));
        }
        job
    }

    fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.variables.insert(name.to_owned(), value.into());
    }

    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Job {
        self.set(name, value);
        self
    }

    pub fn input(self, name: &str, value: impl Into<OsString>) -> Job {
        self.env(&format!("INPUT_{}", name.to_uppercase()), value)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub fn workspace(&self) -> PathBuf {
        self.file("workspace")
    }

    /// Names in `RUNNER_TEMP`.
    pub fn temporary(&self) -> Vec<String> {
        let names = fs::read_dir(self.file("temp")).unwrap();
        names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    /// The state that this step has left for its post part.
    pub fn state(&self) -> BTreeMap<String, String> {
        parse(&fs::read_to_string(self.file("state")).unwrap())
    }

    /// Starts a part of the step, `main` or `post`.
    #[track_caller]
    pub fn start(&self, part: &str) -> RunningStep<'_> {
        fs::write(self.file("output"), "").unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("dist/{part}.js"));
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let mut command = Command::new("node");
        command.arg(script).current_dir(self.workspace()).env_clear().envs(&self.variables);
        let state = self.state();
        command.envs(state.iter().map(|(name, value)| (format!("STATE_{name}"), value)));
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .expect("the tests of the action need node");
        RunningStep { job: self, child, stdout, stderr }
    }

    #[track_caller]
    pub fn run(&self, part: &str) -> StepResult {
        self.start(part).wait()
    }

    /// Runs the main part, which must succeed.
    #[track_caller]
    pub fn main(&self) -> StepResult {
        self.run("main").ok()
    }

    /// Runs the post part, which must succeed.
    #[track_caller]
    pub fn post(&self) -> StepResult {
        self.run("post").ok()
    }
}

/// A part of the step that may still be running.
pub struct RunningStep<'j> {
    job: &'j Job,
    child: Child,
    stdout: File,
    stderr: File,
}

impl RunningStep<'_> {
    pub fn said(&self) -> String {
        read(&self.stderr)
    }

    /// The directory in `/proc` of the program that node runs. It exists as long as the program runs.
    #[track_caller]
    pub fn program(&self) -> PathBuf {
        let pid = procfs::first_child(self.child.id()).expect("node runs the program");
        PathBuf::from(format!("/proc/{pid}"))
    }

    /// Sends a signal to node only, as the runner does.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    #[track_caller]
    pub fn wait(mut self) -> StepResult {
        let status = poll::until("the step to end", TIMEOUT, || {
            self.child.try_wait().unwrap().ok_or_else(|| self.said())
        });
        let outputs = parse(&fs::read_to_string(self.job.file("output")).unwrap());
        let (said, wrote) = (self.said(), read(&self.stdout));
        assert_eq!(wrote, "", "a step prints nothing on standard output");
        StepResult { code: status.code().unwrap_or(-1), said, outputs }
    }
}

impl Drop for RunningStep<'_> {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The result of a part of the step.
#[derive(Debug)]
pub struct StepResult {
    pub code: i32,
    /// The log.
    pub said: String,
    pub outputs: BTreeMap<String, String>,
}

impl StepResult {
    #[track_caller]
    pub fn ok(self) -> StepResult {
        assert_eq!(self.code, 0, "{}", self.said);
        self
    }

    /// Kind and text of each annotation, as GitHub shows them.
    pub fn annotations(&self) -> Vec<(String, String)> {
        let lines = self.said.lines().filter_map(|line| {
            let (kind, text) = line.strip_prefix("::")?.split_once(" title=storecache::")?;
            let text = text.replace("%0A", "\n").replace("%0D", "\r").replace("%25", "%");
            Some((kind.to_owned(), text))
        });
        lines.collect()
    }

    #[track_caller]
    pub fn assert_no_annotations(&self) {
        assert_eq!(self.annotations(), [], "{}", self.said);
    }

    /// The groups of the log with the lines of each, and the lines outside of groups.
    #[track_caller]
    pub fn log_groups(&self) -> (Vec<(String, Vec<String>)>, Vec<String>) {
        let (mut folds, mut outside) = (Vec::<(String, Vec<String>)>::new(), Vec::new());
        let mut open = false;
        for line in self.said.lines() {
            if let Some(title) = line.strip_prefix("::group::") {
                assert!(!open, "folds do not nest: {}", self.said);
                folds.push((title.to_owned(), Vec::new()));
                open = true;
            } else if line == "::endgroup::" {
                assert!(open, "{}", self.said);
                open = false;
            } else if open {
                folds.last_mut().unwrap().1.push(line.to_owned());
            } else {
                outside.push(line.to_owned());
            }
        }
        assert!(!open, "every fold ends: {}", self.said);
        (folds, outside)
    }

    #[track_caller]
    pub fn output(&self, name: &str) -> &str {
        self.outputs.get(name).unwrap_or_else(|| panic!("no output {name}: {self:?}"))
    }
}

/// Parses a file of `name<<END` entries as the runner does.
#[track_caller]
fn parse(text: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let (name, end) = line.split_once("<<").unwrap_or_else(|| panic!("{line:?} in {text:?}"));
        let value: Vec<_> = lines.by_ref().take_while(|&line| line != end).collect();
        values.insert(name.to_owned(), value.join("\n"));
    }
    values
}

// Reads at a position, because a writer shares the offset of the file.
fn read(file: &File) -> String {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    let length = file.read_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}
