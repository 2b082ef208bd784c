//! Tests of slow and silent runs: storecache waits while there is activity, and reports it; an abort is
//! reported by phase, time and last activity, and not by its consequences.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::background::Background;
use crate::support::cache_service::{CacheService, Fault, RequestKind, TOKEN};
use crate::support::message_log::cause;
use crate::support::plain_env::{self, PlainEnv, PlainTree, assert_same_tree};
use crate::support::world_runs::report;
use crate::support::{Output, poll};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

const TOOL: &str = "/opt/tool";
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// Texts that name a mere consequence of an abort and must never be reported as a cause.
const CONSEQUENCE_TEXTS: [&str; 8] = [
    "roken pipe",
    "closed the connection",
    "hung up",
    "canceled by a signal",
    "ended without a reply",
    "packing was stopped",
    "unpacking was stopped",
    "panicked",
];

/// Returns a command that saves or restores `/opt/tool` in a directory.
fn command(place: &PlainEnv, verb: &str, more: &[&str]) -> Command {
    let mut command = Command::new(plain_env::binary());
    command.args([verb, "--store", "plain", "--key", "test", "--path", TOOL, "--root"]);
    command.arg(place.root()).arg("--json").args(more).env_remove("GITHUB_EVENT_PATH");
    if !more.contains(&"--network-timeout") {
        command.arg("--backend").arg(format!("dir:{}", place.entries().display()));
    }
    command
}

/// As [`command`], through a cache service.
fn through(place: &PlainEnv, service: &CacheService, verb: &str, more: &[&str]) -> Command {
    let mut command = command(place, verb, &[&["--network-timeout", "1"], more].concat());
    command.env("ACTIONS_RESULTS_URL", service.url()).env("ACTIONS_CACHE_URL", service.url());
    command.env("ACTIONS_RUNTIME_TOKEN", TOKEN).env("ACTIONS_CACHE_SERVICE_V2", "1");
    command
}

fn run(mut command: Command) -> Output {
    Background::start(&mut command).wait()
}

/// Fails unless this timeout aborted the run in this phase, and the run reported that and nothing else.
#[track_caller]
fn assert_aborted(output: &Output, clock: &str, phase: &str, words: &[&str]) -> Value {
    assert_eq!(output.code(), 1, "{output}");
    let report = report(output);
    let reason = report["reason"].as_str().unwrap();
    for word in words {
        assert!(reason.contains(word), "{word:?} is not in {reason}");
    }
    assert!(reason.contains(&format!(": {phase}: ")), "{reason}");
    assert!(reason.contains("last activity"), "{reason}");
    let cut = &report["cut"];
    assert_eq!(
        (cut["clock"].as_str(), cut["phase"].as_str()),
        (Some(clock), Some(phase)),
        "{report}"
    );
    assert!(cut["silent_seconds"].as_f64().is_some() && cut["last_sign"].is_string(), "{report}");
    let what = cause(reason).split("; in phase ").next().unwrap();
    assert!(output.stderr.contains(&format!("error: {what}\n")), "{output}");
    assert!(output.stderr.contains(&format!("hint: set --{clock} to allow more time")), "{output}");
    assert_no_consequences(output);
    report
}

#[track_caller]
fn assert_no_consequences(output: &Output) {
    for text in CONSEQUENCE_TEXTS {
        assert!(!format!("{output}").contains(text), "{text:?} only follows from it:\n{output}");
    }
}

/// Returns a directory of some megabytes that do not compress, and its tree.
fn plain_store_with_random_data() -> (PlainEnv, PlainTree) {
    let place = PlainEnv::new();
    place.write("/opt/tool/small", "small\n");
    let mut number = 1_u64;
    let bytes = (0..6_000_000).map(|_| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (number >> 33) as u8
    });
    fs::write(place.host("/opt/tool/large"), bytes.collect::<Vec<_>>()).unwrap();
    let tree = place.tree(TOOL);
    (place, tree)
}

#[track_caller]
fn assert_untouched(place: &PlainEnv) {
    assert!(!place.host(TOOL).exists(), "something was restored");
    assert_eq!(place.leftovers(), [""; 0]);
}

/// Takes the lock that excludes other restores.
fn hold_run_lock(place: &PlainEnv) -> File {
    let lock = File::open(place.host("/opt")).unwrap();
    lock.lock().unwrap();
    lock
}

#[test]
fn restore_waits_for_a_slow_server_response() {
    for at in [RequestKind::Lookup, RequestKind::Range] {
        let (place, tree) = plain_store_with_random_data();
        let service = CacheService::start();
        run(through(&place, &service, "save", &[])).ok();
        place.remove(TOOL);
        service.inject_faults(at, [Fault::Hold]);
        let more = ["--answer-timeout", "60", "--stall-timeout", "3"];
        let mut restore = Background::start(&mut through(&place, &service, "restore", &more));
        // Longer than the second for which a body may stall.
        restore.wait_for_stderr("the cache service did not answer for 2");
        service.release_held_requests();
        let report = report(&restore.wait().ok());
        assert_eq!(report["hit"], "exact", "{report}");
        assert_same_tree(&tree, &place.tree(TOOL));
    }
}

#[test]
fn save_waits_for_a_slow_server_response() {
    for at in [RequestKind::Reserve, RequestKind::Block, RequestKind::Finalize] {
        let (place, _) = plain_store_with_random_data();
        let service = CacheService::start();
        service.inject_faults(at, [Fault::Hold]);
        let more = ["--answer-timeout", "60", "--stall-timeout", "3"];
        let mut save = Background::start(&mut through(&place, &service, "save", &more));
        save.wait_for_stderr("still working: ");
        save.wait_for_stderr("the cache service did not answer for 2");
        service.release_held_requests();
        let report = report(&save.wait().ok());
        assert_eq!(report["saved"], true, "{report}");
        assert_eq!(service.seen(RequestKind::Reserve).len(), 1, "{report}");
    }
}

#[test]
fn deadline_during_a_request_reports_phase_and_last_activity() {
    for (at, phase) in [(RequestKind::Lookup, "lookup"), (RequestKind::Range, "lookup")] {
        let (place, _) = plain_store_with_random_data();
        let service = CacheService::start();
        run(through(&place, &service, "save", &[])).ok();
        place.remove(TOOL);
        service.inject_faults(at, [Fault::Stall]);
        let more = ["--answer-timeout", "60", "--deadline", "1"];
        let output = run(through(&place, &service, "restore", &more));
        let report =
            assert_aborted(&output, "deadline", phase, &["the deadline of 1 s has passed"]);
        assert_eq!(report["hit"], "miss");
        assert_eq!(report["cancelled"], Value::Null, "the run was not canceled");
        assert_untouched(&place);
    }
    for at in [RequestKind::Reserve, RequestKind::Block, RequestKind::Finalize] {
        let (place, _) = plain_store_with_random_data();
        let service = CacheService::start();
        service.inject_faults(at, [Fault::Stall]);
        let more = ["--answer-timeout", "60", "--deadline", "1"];
        let output = run(through(&place, &service, "save", &more));
        assert_aborted(&output, "deadline", "pack", &["the deadline of 1 s has passed"]);
        assert_eq!(service.keys(), [""; 0]);
    }
}

#[test]
fn unreached_deadline_changes_nothing() {
    let (place, tree) = plain_store_with_random_data();
    run(command(&place, "save", &["--deadline", "600"])).ok();
    place.remove(TOOL);
    run(command(&place, "restore", &["--deadline", "600", "--stall-timeout", "5"])).ok();
    assert_same_tree(&tree, &place.tree(TOOL));
}

/// A file system whose server receives requests and answers none, mounted over a directory as long as the value
/// lives.
struct HangingMount {
    at: PathBuf,
    /// The server's end.
    _device: File,
}

impl HangingMount {
    /// Source of the protocol: `include/uapi/linux/fuse.h`, version 7.31.
    fn at(directory: &Path) -> HangingMount {
        let mut device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let number = device.as_raw_fd();
        let data = format!("fd={number},rootmode=40000,user_id=0,group_id=0");
        let data = CString::new(data).unwrap();
        mount("silent", directory, "fuse", MountFlags::empty(), Some(data.as_c_str())).unwrap();
        // The first request is FUSE_INIT; without an answer to it, the kernel would not send others.
        let mut request = vec![0; 64 << 10];
        let length = device.read(&mut request).unwrap();
        assert!(length >= 56 && request[4..8] == 26u32.to_ne_bytes(), "no FUSE_INIT");
        let mut answer = vec![0; 16 + 64];
        answer[0..4].copy_from_slice(&80u32.to_ne_bytes());
        answer[8..16].copy_from_slice(&request[8..16]);
        answer[16..20].copy_from_slice(&7u32.to_ne_bytes());
        answer[20..24].copy_from_slice(&31u32.to_ne_bytes());
        answer[36..40].copy_from_slice(&4096u32.to_ne_bytes());
        device.write_all(&answer).unwrap();
        HangingMount { at: directory.to_owned(), _device: device }
    }
}

impl Drop for HangingMount {
    fn drop(&mut self) {
        let _ = unmount(&self.at, UnmountFlags::DETACH);
    }
}

#[test]
fn unresponsive_disk_hits_the_stall_timeout_or_deadline() {
    let (place, _) = plain_store_with_random_data();
    run(command(&place, "save", &[])).ok();
    place.remove(TOOL);
    let silent = HangingMount::at(&place.entries());
    let words = ["dir:", "showed no activity for 1"];
    let output = run(command(&place, "restore", &["--stall-timeout", "1"]));
    assert_aborted(&output, "stall-timeout", "lookup", &words);
    let output = run(command(&place, "restore", &["--deadline", "1"]));
    assert_aborted(&output, "deadline", "lookup", &["the deadline of 1 s has passed"]);
    drop(silent);
    assert_untouched(&place);
}

#[test]
fn lock_wait_does_not_hit_the_stall_timeout() {
    let (place, tree) = plain_store_with_random_data();
    run(command(&place, "save", &[])).ok();
    place.remove(TOOL);
    let lock = hold_run_lock(&place);
    let mut restore = Background::start(&mut command(&place, "restore", &["--stall-timeout", "3"]));
    restore.wait_for_stderr("still working: plan: ");
    restore.wait_for_stderr("waiting for 5");
    drop(lock);
    let output = restore.wait().ok();
    let holder = format!("is held by process {}", std::process::id());
    assert!(output.stderr.contains(&holder), "{output}");
    assert_same_tree(&tree, &place.tree(TOOL));
}

#[test]
fn lock_wait_is_reported_while_another_disk_hangs() {
    let (place, _) = plain_store_with_random_data();
    run(command(&place, "save", &[])).ok();
    place.remove(TOOL);
    let directory = place.host("/silent");
    fs::create_dir(&directory).unwrap();
    let _silent = HangingMount::at(&directory);
    // The helper searches all open files of processes for the holder of the lock.
    let open = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let _open = rustix::fs::open(&directory, open, rustix::fs::Mode::empty()).unwrap();
    let lock = hold_run_lock(&place);
    let mut restore = Background::start(&mut command(&place, "restore", &["--stall-timeout", "3"]));
    restore.wait_for_stderr("waiting for 5");
    drop(lock);
    restore.wait().ok();
}

#[test]
fn lock_timeout_and_deadline_name_the_lock_holder() {
    let (place, _) = plain_store_with_random_data();
    run(command(&place, "save", &[])).ok();
    place.remove(TOOL);
    let lock = hold_run_lock(&place);
    let output = run(command(&place, "restore", &["--lock-timeout", "1"])).fails();
    let report = report(&output);
    let reason = report["reason"].as_str().unwrap();
    let held = format!("is still held after 1 s by process {}", std::process::id());
    assert!(reason.contains(&held) && reason.starts_with("restore: plan: "), "{reason}");
    assert_no_consequences(&output);
    let output = run(command(&place, "restore", &["--deadline", "5"]));
    let held =
        format!("since then: the lock on {} is held by process", place.host("/opt").display());
    assert_aborted(&output, "deadline", "plan", &["the deadline of 5 s has passed", &held]);
    drop(lock);
    assert_untouched(&place);
}

#[test]
fn stopped_root_helper_is_detected_and_rolls_back() {
    // The second request is for the index, and the third for frames.
    for (before, phase) in [(1, "plan"), (2, "unpack")] {
        let (place, _) = plain_store_with_random_data();
        let service = CacheService::start();
        run(through(&place, &service, "save", &[])).ok();
        place.remove(TOOL);
        let faults = std::iter::repeat_n(Fault::Slow, before).chain([Fault::Hold]);
        service.inject_faults(RequestKind::Range, faults);
        let more = ["--answer-timeout", "60", "--stall-timeout", "1"];
        let mut restore = Background::start(&mut through(&place, &service, "restore", &more));
        restore.wait_for_stderr("did not answer");
        let root = restore.root_helper_pid();
        kill_process(root, Signal::STOP).unwrap();
        service.release_held_requests();
        let output = restore.wait();
        let root = root.as_raw_nonzero();
        let name = format!("the root helper (process {root})");
        let words = [name.as_str(), "showed no activity for 1", "and is stopped"];
        assert_aborted(&output, "stall-timeout", phase, &words);
        assert_untouched(&place);
        poll::until("the root helper to have ended", TIMEOUT, || {
            let there = Path::new(&format!("/proc/{root}")).exists();
            if there { Err("it still runs") } else { Ok(()) }
        });
    }
}

/// A file system in a file, which can be frozen: processes that write to it then wait as for a disk that hangs.
struct Disk {
    place: PlainEnv,
    image: tempfile::NamedTempFile,
    frozen: bool,
}

impl Disk {
    /// Mounts the file system at the root of a fixture.
    fn below(place: PlainEnv) -> Disk {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(64 << 20).unwrap();
        let disk = Disk { place, image, frozen: false };
        disk.sh("mkfs.ext4 -q -F \"$1\" && mount -o loop \"$1\" \"$2\"");
        disk
    }

    fn sh(&self, script: &str) {
        let mut command = Command::new("sh");
        command.args(["-ec", script, "-"]).arg(self.image.path()).arg(self.place.root());
        plain_env::output(&mut command).ok();
    }

    fn freeze(&mut self) {
        self.sh("fsfreeze -f \"$2\"");
        self.frozen = true;
    }

    fn thaw(&mut self) {
        self.frozen = false;
        self.sh("fsfreeze -u \"$2\"");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.frozen {
            self.thaw();
        }
        self.sh("umount \"$2\"");
    }
}

/// Returns a fixture whose directories are on a disk of their own, empty, with a snapshot beside it.
fn plain_store_on_a_disk() -> (Disk, PlainTree) {
    let (place, tree) = plain_store_with_random_data();
    run(command(&place, "save", &[])).ok();
    fs::remove_dir_all(place.root()).unwrap();
    fs::create_dir(place.root()).unwrap();
    let disk = Disk::below(place);
    fs::create_dir(disk.place.host("/opt")).unwrap();
    (disk, tree)
}

#[test]
fn root_helper_waiting_for_a_disk_is_not_aborted() {
    let (mut disk, tree) = plain_store_on_a_disk();
    disk.freeze();
    let more = ["--stall-timeout", "1"];
    let mut restore = Background::start(&mut command(&disk.place, "restore", &more));
    restore.wait_for_stderr("still working: unpack: the root helper");
    let lines = |said: &str| said.matches("it waits for a disk").count();
    // At three lines a second, this is longer than the stall timeout.
    poll::until("the message to be repeated", TIMEOUT, || {
        let said = restore.said();
        if lines(&said) > 6 { Ok(()) } else { Err(said) }
    });
    disk.thaw();
    restore.wait().ok();
    assert_same_tree(&tree, &disk.place.tree(TOOL));
}

#[test]
fn deadline_is_reported_at_once_while_the_disk_hangs() {
    let (mut disk, _) = plain_store_on_a_disk();
    disk.freeze();
    let more = ["--deadline", "2", "--stall-timeout", "1"];
    let restore = Background::start(&mut command(&disk.place, "restore", &more));
    let root = restore.root_helper_pid();
    let output = restore.wait();
    let report = assert_aborted(&output, "deadline", "unpack", &["the deadline of 2 s has passed"]);
    assert!(report["cut"]["last_sign"].as_str().unwrap().contains("disk"), "{report}");
    assert!(output.stderr.contains("undoes its changes as soon as it can"), "{output}");
    assert_eq!(report["undoing"], true, "{report}");
    assert!(!format!("{output}").contains("the store is as it was"), "{output}");
    disk.thaw();
    poll::until("the root helper to have ended", TIMEOUT, || {
        let there = Path::new(&format!("/proc/{}", root.as_raw_nonzero())).exists();
        if there { Err("it still runs") } else { Ok(()) }
    });
    assert_untouched(&disk.place);
}

#[test]
fn save_resumes_after_its_disk_hangs() {
    let (place, _) = plain_store_with_random_data();
    let mut disk = Disk::below(PlainEnv::new());
    let backend = format!("dir:{}", disk.place.root().display());
    let mut save = command(&place, "save", &["--stall-timeout", "1", "--network-timeout", "1"]);
    save.args(["--backend", &backend]);
    disk.freeze();
    let mut save = Background::start(&mut save);
    save.wait_for_stderr(&format!("{backend}: it waits for a disk"));
    disk.thaw();
    assert_eq!(report(&save.wait().ok())["saved"], true);
}
