//! Tests of slow and silent runs: storecache waits while there is activity, and reports it; an abort is
//! reported by phase, time and last activity, and not by its consequences.

mod support;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use support::background::Background;
use support::cache_service::{CacheService, Fault, Place as At, TOKEN};
use support::place::{self, Place, PlainTree, assert_same_tree};
use support::runs::report;
use support::{Output, poll};

const TOOL: &str = "/opt/tool";
const SOON: std::time::Duration = std::time::Duration::from_secs(60);

/// Texts that name a mere consequence of an abort and must never be reported as a cause.
const CONSEQUENCES: [&str; 8] = [
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
fn command(place: &Place, verb: &str, more: &[&str]) -> Command {
    let mut command = Command::new(place::binary());
    command.args([verb, "--store", "plain", "--key", "test", "--path", TOOL, "--root"]);
    command.arg(place.root()).arg("--json").args(more).env_remove("GITHUB_EVENT_PATH");
    if !more.contains(&"--network-timeout") {
        command.arg("--backend").arg(format!("dir:{}", place.entries().display()));
    }
    command
}

/// As [`command`], through a cache service.
fn through(place: &Place, service: &CacheService, verb: &str, more: &[&str]) -> Command {
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
fn assert_cut(output: &Output, clock: &str, phase: &str, words: &[&str]) -> Value {
    assert_eq!(output.code(), 1, "{output}");
    let told = report(output);
    let reason = told["reason"].as_str().unwrap();
    for word in words {
        assert!(reason.contains(word), "{word:?} is not in {reason}");
    }
    assert!(reason.contains(&format!(": {phase}: ")), "{reason}");
    assert!(reason.contains("last activity"), "{reason}");
    let cut = &told["cut"];
    assert_eq!(
        (cut["clock"].as_str(), cut["phase"].as_str()),
        (Some(clock), Some(phase)),
        "{told}"
    );
    assert!(cut["silent_seconds"].as_f64().is_some() && cut["last_sign"].is_string(), "{told}");
    assert!(output.stderr.contains(reason), "{output}");
    assert_no_consequences(output);
    told
}

#[track_caller]
fn assert_no_consequences(output: &Output) {
    for text in CONSEQUENCES {
        assert!(!format!("{output}").contains(text), "{text:?} only follows from it:\n{output}");
    }
}

/// Returns a directory of some megabytes that do not compress, and its tree.
fn filled() -> (Place, PlainTree) {
    let place = Place::new();
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
fn assert_untouched(place: &Place) {
    assert!(!place.host(TOOL).exists(), "something was restored");
    assert_eq!(place.leftovers(), [""; 0]);
}

/// Takes the lock that excludes other restores.
fn hold_run_lock(place: &Place) -> File {
    let lock = File::open(place.host("/opt")).unwrap();
    lock.lock().unwrap();
    lock
}

#[test]
fn a_server_that_thinks_longer_than_a_body_may_stall_is_waited_for() {
    for at in [At::Lookup, At::Range] {
        let (place, tree) = filled();
        let service = CacheService::start();
        run(through(&place, &service, "save", &[])).ok();
        place.remove(TOOL);
        service.goes_wrong(at, [Fault::Hold]);
        let more = ["--answer-timeout", "60", "--stall-timeout", "3"];
        let mut restore = Background::start(&mut through(&place, &service, "restore", &more));
        // Longer than the second for which a body may stall.
        restore.until_says("the cache service did not answer for 2");
        service.let_go();
        let told = report(&restore.wait().ok());
        assert_eq!(told["hit"], "exact", "{told}");
        assert_same_tree(&tree, &place.tree(TOOL));
    }
}

#[test]
fn a_server_that_thinks_about_an_upload_is_waited_for() {
    for at in [At::Reserve, At::Block, At::Finalize] {
        let (place, _) = filled();
        let service = CacheService::start();
        service.goes_wrong(at, [Fault::Hold]);
        let more = ["--answer-timeout", "60", "--stall-timeout", "3"];
        let mut save = Background::start(&mut through(&place, &service, "save", &more));
        save.until_says("still working: ");
        save.until_says("the cache service did not answer for 2");
        service.let_go();
        let told = report(&save.wait().ok());
        assert_eq!(told["saved"], true, "{told}");
        assert_eq!(service.seen(At::Reserve).len(), 1, "{told}");
    }
}

#[test]
fn the_deadline_of_a_run_that_waits_for_the_network_names_the_phase_and_the_last_sign() {
    for (at, phase) in [(At::Lookup, "lookup"), (At::Range, "lookup")] {
        let (place, _) = filled();
        let service = CacheService::start();
        run(through(&place, &service, "save", &[])).ok();
        place.remove(TOOL);
        service.goes_wrong(at, [Fault::Stall]);
        let more = ["--answer-timeout", "60", "--deadline", "1"];
        let output = run(through(&place, &service, "restore", &more));
        let told = assert_cut(&output, "deadline", phase, &["the deadline of 1 s has passed"]);
        assert_eq!(told["hit"], "miss");
        assert_eq!(told["cancelled"], Value::Null, "nobody has cancelled it");
        assert_untouched(&place);
    }
    for at in [At::Reserve, At::Block, At::Finalize] {
        let (place, _) = filled();
        let service = CacheService::start();
        service.goes_wrong(at, [Fault::Stall]);
        let more = ["--answer-timeout", "60", "--deadline", "1"];
        let output = run(through(&place, &service, "save", &more));
        assert_cut(&output, "deadline", "pack", &["the deadline of 1 s has passed"]);
        assert_eq!(service.keys(), [""; 0]);
    }
}

#[test]
fn a_deadline_that_does_not_pass_changes_nothing() {
    let (place, tree) = filled();
    run(command(&place, "save", &["--deadline", "600"])).ok();
    place.remove(TOOL);
    run(command(&place, "restore", &["--deadline", "600", "--stall-timeout", "5"])).ok();
    assert_same_tree(&tree, &place.tree(TOOL));
}

/// A file system whose server receives requests and answers none, mounted over a directory as long as the value
/// lives.
struct SilentMount {
    at: PathBuf,
    /// The server's end.
    _device: File,
}

impl SilentMount {
    /// Source of the protocol: `include/uapi/linux/fuse.h`, version 7.31.
    fn at(directory: &Path) -> SilentMount {
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
        SilentMount { at: directory.to_owned(), _device: device }
    }
}

impl Drop for SilentMount {
    fn drop(&mut self) {
        let _ = unmount(&self.at, UnmountFlags::DETACH);
    }
}

#[test]
fn a_disk_that_gives_no_sign_is_cut_by_its_clock_or_by_the_deadline() {
    let (place, _) = filled();
    run(command(&place, "save", &[])).ok();
    place.remove(TOOL);
    let silent = SilentMount::at(&place.entries());
    let words = ["dir:", "showed no activity for 1"];
    let output = run(command(&place, "restore", &["--stall-timeout", "1"]));
    assert_cut(&output, "stall-timeout", "lookup", &words);
    let output = run(command(&place, "restore", &["--deadline", "1"]));
    assert_cut(&output, "deadline", "lookup", &["the deadline of 1 s has passed"]);
    drop(silent);
    assert_untouched(&place);
}

#[test]
fn a_lock_that_somebody_holds_longer_than_the_stall_clock_is_waited_for() {
    let (place, tree) = filled();
    run(command(&place, "save", &[])).ok();
    place.remove(TOOL);
    let lock = hold_run_lock(&place);
    let mut restore = Background::start(&mut command(&place, "restore", &["--stall-timeout", "3"]));
    restore.until_says("still working: plan: ");
    restore.until_says("waiting for 5");
    drop(lock);
    let output = restore.wait().ok();
    let holder = format!("is held by process {}", std::process::id());
    assert!(output.stderr.contains(&holder), "{output}");
    assert_same_tree(&tree, &place.tree(TOOL));
}

#[test]
fn lock_wait_is_reported_beside_a_disk_that_hangs() {
    let (place, _) = filled();
    run(command(&place, "save", &[])).ok();
    place.remove(TOOL);
    let directory = place.host("/silent");
    fs::create_dir(&directory).unwrap();
    let _silent = SilentMount::at(&directory);
    // The helper searches all open files of processes for the holder of the lock.
    let open = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let _open = rustix::fs::open(&directory, open, rustix::fs::Mode::empty()).unwrap();
    let lock = hold_run_lock(&place);
    let mut restore = Background::start(&mut command(&place, "restore", &["--stall-timeout", "3"]));
    restore.until_says("waiting for 5");
    drop(lock);
    restore.wait().ok();
}

#[test]
fn a_lock_that_stays_is_cut_with_its_holder_and_so_it_is_by_the_deadline() {
    let (place, _) = filled();
    run(command(&place, "save", &[])).ok();
    place.remove(TOOL);
    let lock = hold_run_lock(&place);
    let output = run(command(&place, "restore", &["--lock-timeout", "1"])).fails();
    let told = report(&output);
    let reason = told["reason"].as_str().unwrap();
    let held = format!("is still held after 1 s by process {}", std::process::id());
    assert!(reason.contains(&held) && reason.starts_with("restore: plan: "), "{reason}");
    assert_no_consequences(&output);
    let output = run(command(&place, "restore", &["--deadline", "5"]));
    let held =
        format!("since then: the lock on {} is held by process", place.host("/opt").display());
    assert_cut(&output, "deadline", "plan", &["the deadline of 5 s has passed", &held]);
    drop(lock);
    assert_untouched(&place);
}

#[test]
fn a_root_half_that_was_stopped_is_noticed_and_undoes_what_it_began() {
    // The second request is for the index, and the third for frames.
    for (before, phase) in [(1, "plan"), (2, "unpack")] {
        let (place, _) = filled();
        let service = CacheService::start();
        run(through(&place, &service, "save", &[])).ok();
        place.remove(TOOL);
        let faults = std::iter::repeat_n(Fault::Slow, before).chain([Fault::Hold]);
        service.goes_wrong(At::Range, faults);
        let more = ["--answer-timeout", "60", "--stall-timeout", "1"];
        let mut restore = Background::start(&mut through(&place, &service, "restore", &more));
        restore.until_says("did not answer");
        let root = restore.root_half();
        kill_process(root, Signal::STOP).unwrap();
        service.let_go();
        let output = restore.wait();
        let root = root.as_raw_nonzero();
        let name = format!("the root helper (process {root})");
        let words = [name.as_str(), "showed no activity for 1", "and is stopped"];
        assert_cut(&output, "stall-timeout", phase, &words);
        assert_untouched(&place);
        poll::until("the root half to have ended", SOON, || {
            let there = Path::new(&format!("/proc/{root}")).exists();
            if there { Err("it is there") } else { Ok(()) }
        });
    }
}

/// A file system in a file, which can be frozen: processes that write to it then wait as for a disk that hangs.
struct Disk {
    place: Place,
    image: tempfile::NamedTempFile,
    frozen: bool,
}

impl Disk {
    /// Mounts the file system at the root of a fixture.
    fn below(place: Place) -> Disk {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(64 << 20).unwrap();
        let disk = Disk { place, image, frozen: false };
        disk.sh("mkfs.ext4 -q -F \"$1\" && mount -o loop \"$1\" \"$2\"");
        disk
    }

    fn sh(&self, script: &str) {
        let mut command = Command::new("sh");
        command.args(["-ec", script, "-"]).arg(self.image.path()).arg(self.place.root());
        place::output(&mut command).ok();
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
fn on_a_disk() -> (Disk, PlainTree) {
    let (place, tree) = filled();
    run(command(&place, "save", &[])).ok();
    fs::remove_dir_all(place.root()).unwrap();
    fs::create_dir(place.root()).unwrap();
    let disk = Disk::below(place);
    fs::create_dir(disk.place.host("/opt")).unwrap();
    (disk, tree)
}

#[test]
fn a_root_half_that_waits_for_a_disk_is_alive() {
    let (mut disk, tree) = on_a_disk();
    disk.freeze();
    let more = ["--stall-timeout", "1"];
    let mut restore = Background::start(&mut command(&disk.place, "restore", &more));
    restore.until_says("still working: unpack: the root helper");
    let lines = |said: &str| said.matches("it waits for a disk").count();
    // At three lines a second, this is longer than the stall timeout.
    poll::until("it to be said again and again", SOON, || {
        let said = restore.said();
        if lines(&said) > 6 { Ok(()) } else { Err(said) }
    });
    disk.thaw();
    restore.wait().ok();
    assert_same_tree(&tree, &disk.place.tree(TOOL));
}

#[test]
fn the_deadline_of_a_run_whose_disk_hangs_is_told_at_once() {
    let (mut disk, _) = on_a_disk();
    disk.freeze();
    let more = ["--deadline", "2", "--stall-timeout", "1"];
    let restore = Background::start(&mut command(&disk.place, "restore", &more));
    let root = restore.root_half();
    let output = restore.wait();
    let told = assert_cut(&output, "deadline", "unpack", &["the deadline of 2 s has passed"]);
    assert!(told["cut"]["last_sign"].as_str().unwrap().contains("disk"), "{told}");
    assert!(output.stderr.contains("undoes its changes as soon as it can"), "{output}");
    assert_eq!(told["undoing"], true, "{told}");
    assert!(!format!("{output}").contains("the store is as it was"), "{output}");
    disk.thaw();
    poll::until("the root half to have ended", SOON, || {
        let there = Path::new(&format!("/proc/{}", root.as_raw_nonzero())).exists();
        if there { Err("it is there") } else { Ok(()) }
    });
    assert_untouched(&disk.place);
}

#[test]
fn a_save_to_a_disk_that_hangs_is_alive_and_goes_on_with_it() {
    let (place, _) = filled();
    let mut disk = Disk::below(Place::new());
    let backend = format!("dir:{}", disk.place.root().display());
    let mut save = command(&place, "save", &["--stall-timeout", "1", "--network-timeout", "1"]);
    save.args(["--backend", &backend]);
    disk.freeze();
    let mut save = Background::start(&mut save);
    save.until_says(&format!("{backend}: it waits for a disk"));
    disk.thaw();
    assert_eq!(report(&save.wait().ok())["saved"], true);
}
