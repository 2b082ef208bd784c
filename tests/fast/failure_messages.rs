//! The complete messages of typical failures and misses, as snapshots.
//!
//! Failures that need a real store are in `tests/worlds/failure_messages.rs`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use crate::support::job::Job;
use crate::support::message_log::MessageLog;
use crate::support::plain_env::{self, PlainEnv, output, storecache, storecache_in};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use rustix::fs::{FlockOperation, flock};

const TOOL: &str = "/opt/tool";

/// A store with one entry.
fn saved() -> PlainEnv {
    let place = PlainEnv::filled();
    place.save(&[TOOL]);
    place
}

fn log_of(place: &PlainEnv) -> MessageLog {
    let directory = place.root();
    MessageLog::new().directory(directory.parent().unwrap())
}

fn damage(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// Runs a command that only needs the path of a snapshot.
fn on_file(verb: &str, file: &Path, more: &[&str]) -> crate::support::Output {
    let words = std::iter::once(&verb).chain(more).map(OsString::from);
    storecache(words.chain([file.as_os_str().to_owned()]))
}

#[test]
fn wrong_usage() {
    let mut log = MessageLog::new();
    // The default branch is that of the repository around the current directory.
    let home = tempfile::tempdir().unwrap();
    for words in [
        &["save", "--level", "0"][..],
        &["save", "--store", "plain"],
        &["save", "--daemon-stop", "x"],
        &["restore", "--key", "a,b"],
        &["restore", "--profiles", "--store", "nix"],
        &["restore", "--store", "plain", "--path", "/x", "--require", "y"],
        &["save", "--backend", "foo:bar"],
        &["save", "--trust", "default-branch-only", "--repository", "me/it"],
        &["prune", "--only", "unused"],
    ] {
        let mut command = Command::new(plain_env::binary());
        command.args(words).env_clear().env("HOME", home.path()).current_dir(home.path());
        log.add(&words.join(" "), &output(&mut command));
    }
    for (name, value) in [("STORECACHE_SIGN_KEY", "not a key"), ("STORECACHE_CACHE_SERVICE", "v9")]
    {
        let mut command = Command::new(plain_env::binary());
        command.args(["save", "--key", "k"]).env_clear().env("HOME", home.path()).env(name, value);
        log.add(&format!("{name}={value}"), &output(&mut command));
    }
    insta::assert_snapshot!(log.text());
}

#[test]
fn key_that_cannot_be_made() {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("a.lock"), "a").unwrap();
    let mut log = MessageLog::new().directory(tree.path());
    for words in [
        &["--workflow", "missing.yml"][..],
        &["--hash-files", "*.nothing"],
        &["--hash-files", "["],
        &["--from-step"],
        &["--json", "--hash-files", "*.nothing"],
    ] {
        let plain = ["key", "--store", "plain", "--path", "/x", "--version", "1"];
        let said = storecache_in(tree.path(), [&plain[..], words].concat());
        match words.contains(&"--json") {
            true => log.add_json(&format!("key {}", words.join(" ")), &said),
            false => log.add(&format!("key {}", words.join(" ")), &said),
        }
    }
    for words in [&["key", "diff", "v1", "."][..], &["key", "simulate"], &["lint"]] {
        log.add(&words.join(" "), &storecache_in(tree.path(), words));
    }
    insta::assert_snapshot!(log.text());
}

#[test]
fn file_that_is_damaged_or_not_a_snapshot() {
    let place = saved();
    damage(&place.snapshot());
    place.write("/text", "a text that is long enough for a header and a footer\n");
    place.write("/empty", "");
    let mut log = log_of(&place);
    log.add("verify a damaged file", &on_file("verify", &place.snapshot(), &[]));
    log.add_json(
        "verify --json a damaged file",
        &on_file("verify", &place.snapshot(), &["--json"]),
    );
    for (name, inside) in
        [("a text", "/text"), ("an empty file", "/empty"), ("a directory", "/"), ("nothing", "/no")]
    {
        log.add(&format!("verify {name}"), &on_file("verify", &place.host(inside), &[]));
    }
    log.add("inspect a text", &on_file("inspect", &place.host("/text"), &[]));
    insta::assert_snapshot!(log.text());
}

#[test]
fn restore_of_a_damaged_snapshot() {
    let place = saved();
    place.remove(TOOL);
    damage(&place.snapshot());
    let mut log = log_of(&place);
    let home = ["--quarantine-keep-days", "7"];
    log.add("restore", &place.attempt("restore", &[TOOL], &home));
    log.add("restore again", &place.attempt("restore", &[TOOL], &home));
    insta::assert_snapshot!(log.text());
}

#[test]
fn miss_is_a_note_unless_it_is_an_error() {
    let place = PlainEnv::filled();
    let mut log = log_of(&place);
    log.add("restore", &place.attempt("restore", &[TOOL], &[]));
    log.add("restore --fail-on-miss", &place.attempt("restore", &[TOOL], &["--fail-on-miss"]));
    let json = place.attempt("restore", &[TOOL], &["--fail-on-miss", "--json"]);
    log.add_json("restore --fail-on-miss --json", &json);
    let more = ["--policy", "auto", "--job-status", "failure"];
    log.add("save after a failed job", &place.attempt("save", &[TOOL], &more));
    let json = [&more[..], &["--json"]].concat();
    log.add_json("save --json after a failed job", &place.attempt("save", &[TOOL], &json));
    insta::assert_snapshot!(log.text());
}

#[test]
fn entry_that_does_not_exist() {
    let place = saved();
    let backend = format!("dir:{}", place.entries().display());
    let missing = format!("dir:{}", place.host("/nowhere").display());
    let mut log = log_of(&place);
    let inspect = ["inspect", "--store", "plain", "--path", TOOL, "--key", "other", "--backend"];
    log.add("inspect --key other", &storecache([&inspect[..], &[&backend]].concat()));
    log.add("list a missing directory", &storecache(["list", "--backend", &missing]));
    log.add("prune a missing directory", &storecache(["prune", "--backend", &missing]));
    let verify = ["verify", "--store", "plain", "--path", TOOL, "--key", "other", "--backend"];
    log.add_json(
        "verify --json --key other",
        &storecache([&verify[..], &[&backend, "--json"]].concat()),
    );
    insta::assert_snapshot!(log.text());
}

#[test]
fn backend_that_cannot_be_written() {
    let place = PlainEnv::filled();
    place.write("/file", "");
    let mut log = log_of(&place);
    let backend = format!("dir:{}", place.host("/file").display());
    let more = ["--backend", &backend, "--policy", "always"];
    let run = |verb: &str, more: &[&str]| {
        let root = place.root().display().to_string();
        let words = [verb, "--store", "plain", "--root", &root, "--path", TOOL, "--key", "k"];
        storecache([&words[..], more].concat())
    };
    log.add("save into a file", &run("save", &more));
    log.add("save into a file, policy auto", &run("save", &more[..2]));
    log.add("restore from a file", &run("restore", &more[..2]));
    log.add_json("save --json", &run("save", &[&more[..], &["--json"]].concat()));
    insta::assert_snapshot!(log.text());
}

#[test]
fn store_that_cannot_be_used() {
    let place = saved();
    let mut log = log_of(&place);
    let root = place.root().display().to_string();
    for verb in ["save", "restore"] {
        let words = [verb, "--root", &root, "--key", "k", "--backend", "dir:/nowhere"];
        log.add(&format!("{verb} without a store"), &storecache(words));
        let words = [&words[..], &["--store", "nix"]].concat();
        log.add(&format!("{verb} without the store of --store nix"), &storecache(words));
    }
    for path in ["/opt/missing", "/opt/tool/file", "/"] {
        log.add(&format!("save --path {path}"), &place.attempt("save", &[path], &[]));
    }
    fs::create_dir_all(place.host("/gnu/store/item/opt")).unwrap();
    let inside = place.host("/gnu/store/item").display().to_string();
    let words = ["restore", "--store", "plain", "--path", "/opt", "--key", "k", "--root", &inside];
    let backend = format!("dir:{}", place.entries().display());
    let said = storecache([&words[..], &["--backend", &backend]].concat());
    log.add("restore below a store", &said);
    insta::assert_snapshot!(log.text());
}

#[test]
fn lock_that_another_process_holds() {
    let place = saved();
    place.remove(TOOL);
    let parent = File::open(place.host("/opt")).unwrap();
    flock(&parent, FlockOperation::LockExclusive).unwrap();
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    let mut log = log_of(&place).replace(format!("({command})"), "(COMMAND)");
    let more = ["--lock-timeout", "0"];
    log.add("at a terminal", &place.attempt("restore", &[TOOL], &more));
    let json = place.attempt("restore", &[TOOL], &[&more[..], &["--json"]].concat());
    log.add_json("as JSON", &json);
    let job = Job::on(&place, &[TOOL]).input("key", "test").input("lock-timeout", "0");
    log.add_step("in a job", &job.input("operation", "restore").main());
    insta::assert_snapshot!(log.text());
}

#[test]
fn snapshot_that_is_not_trusted() {
    let place = saved();
    place.remove(TOOL);
    let key = SigningKey::from_bytes(&[1; 32]).verifying_key();
    let key = format!("ci-1:{}", STANDARD.encode(key.as_bytes()));
    let mut log = log_of(&place);
    for more in [&["--trusted-keys", &key][..], &["--trusted-keys", "x"]] {
        log.add(&more.join(" "), &place.attempt("restore", &[TOOL], more));
    }
    let said = on_file("verify", &place.snapshot(), &["--trusted-keys", &key]);
    log.add("verify", &said);
    insta::assert_snapshot!(log.text());
}

#[test]
fn step_names_inputs() {
    let place = PlainEnv::filled();
    let mut log = log_of(&place);
    for (name, value) in [
        ("level", "0"),
        ("mode", "merge"),
        ("lookup-only", "maybe"),
        ("operation", "load"),
        ("backend", "foo:bar"),
        ("hash-files", "*.nothing"),
        ("path", ""),
    ] {
        let job = Job::on(&place, &[TOOL]).input(name, value);
        log = log.replace(job.workspace().display().to_string(), "WORKSPACE");
        log.add_step(&format!("{name}: {value}"), &job.run("main"));
    }
    let job = || Job::on(&place, &[TOOL]).input("key", "test").input("operation", "restore");
    log.add_step("a miss", &job().main());
    log.add_step("fail-on-cache-miss", &job().input("fail-on-cache-miss", "true").run("main"));
    let place = saved();
    place.remove(TOOL);
    damage(&place.snapshot());
    let mut log = log.directory(place.root().parent().unwrap());
    let job = Job::on(&place, &[TOOL]).input("key", "test").input("operation", "restore");
    log.add_step("a damaged snapshot", &job.main());
    insta::assert_snapshot!(log.text());
}
