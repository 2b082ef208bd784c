//! The command line: exit codes, output streams, keys, and inspecting snapshots.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::message_log::cause;
use crate::support::plain_env::{self, PlainEnv, output, storecache, storecache_in};
use crate::support::world_runs::report;
use crate::support::{Output, poll, procfs};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const TOOL: &str = "/opt/tool";

/// A work tree with files to make keys from.
fn work_tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("a.lock", "a"),
        ("b.lock", "b"),
        ("below/c.lock", "c"),
        ("ci.yml", CI),
        (".git/d.lock", "d"),
    ] {
        let path = tree.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    tree
}

const CI: &str = "on: push\njobs: {test: {runs-on: ubuntu-latest, steps: [{run: make}]}}\n";

const PLAIN_KEY: [&str; 7] = ["key", "--store", "plain", "--path", "/x", "--version", "1"];

fn key_output(tree: &tempfile::TempDir, more: &[&str]) -> Output {
    storecache_in(tree.path(), PLAIN_KEY.iter().chain(more))
}

/// The key and its prefixes.
fn ladder(tree: &tempfile::TempDir, more: &[&str]) -> Vec<String> {
    key_output(tree, more).ok().lines()
}

fn key(tree: &tempfile::TempDir, more: &[&str]) -> String {
    ladder(tree, more).swap_remove(0)
}

fn damage(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn help_and_version_go_to_stdout() {
    let help = storecache(["--help"]).ok();
    for verb in ["save", "restore", "key", "inspect", "verify"] {
        assert!(help.stdout.contains(&format!("  {verb} ")), "{help}");
        let more = storecache([verb, "--help"]).ok();
        assert!(more.stdout.contains("--json"), "{more}");
        assert_eq!(more.stderr, "");
    }
    assert!(!help.stdout.contains("privileged"), "{help}");
    let version = storecache(["--version"]).ok();
    let expected = concat!("storecache ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(version.stdout, expected);
}

#[test]
fn usage_error_exits_with_2_and_a_hint() {
    let long = "k".repeat(513);
    for (words, hint) in [
        (vec![""], "unrecognized"),
        (vec!["frobnicate"], "unrecognized"),
        (vec!["save", "--frobnicate"], "--frobnicate"),
        (vec!["save", "--store", "snap"], "nix"),
        (vec!["save", "--store", "plain"], "--path"),
        (vec!["restore", "--store", "plain"], "--path"),
        (vec!["save", "--store", "nix", "--path", "/a"], "--store plain"),
        (vec!["save", "--path", "/a"], "--store plain"),
        (vec!["save", "--daemon", "command"], "--daemon-stop"),
        (vec!["save", "--daemon", "command", "--daemon-stop", "x"], "--daemon-start"),
        (vec!["save", "--daemon-stop", "x"], "--daemon command"),
        (vec!["save", "--daemon", "initd"], "systemd"),
        (vec!["save", "--key", "a,b"], "comma"),
        (vec!["save", "--key", ""], "empty"),
        (vec!["save", "--key", &long], "512"),
        (vec!["restore", "--restore-key", "a,b"], "comma"),
        (vec!["key", "--key-prefix", "a,b"], "comma"),
        (vec!["save", "--backend", "foo:bar"], "dir:PATH"),
        (vec!["save", "--backend", "dir:"], "dir:PATH"),
        (vec!["save", "--level", "0"], "1..=19"),
        (vec!["save", "--level", "20"], "1..=19"),
        (vec!["save", "--threads", "many"], "--threads"),
        (vec!["restore", "--mode", "replace"], "--store plain"),
        (vec!["restore", "--store", "nix", "--mode", "replace"], "--store plain"),
        (vec!["restore", "--mode", "merge"], "replace"),
        (vec!["key", "--workflow-mode", "odd"], "bytes"),
    ] {
        let output = storecache(&words).fails();
        assert_eq!(output.code(), 2, "{output}");
        assert!(output.stderr.contains(hint), "{output}");
        assert!(output.stderr.contains("--help"), "{output}");
        assert_eq!(output.stdout, "", "{output}");
    }
    let nothing = storecache([""; 0]).fails();
    assert_eq!(nothing.code(), 2);
    assert!(nothing.stderr.contains("Usage"), "{nothing}");
}

#[test]
fn key_of_512_characters_is_allowed() {
    let tree = work_tree();
    let long = "é".repeat(512);
    assert_eq!(key(&tree, &["--key", &long]), long);
}

#[test]
fn missing_store_exits_with_1_and_a_hint() {
    let place = PlainEnv::new();
    let root = place.root().display().to_string();
    let backend = format!("dir:{}", place.entries().display());
    for verb in ["save", "restore"] {
        for store in ["auto", "nix"] {
            let words = [verb, "--store", store, "--root", &root, "--backend", &backend];
            let failed = storecache(words.iter().chain(&["--json"])).fails();
            assert_eq!(failed.code(), 1, "{failed}");
            let reason = report(&failed)["reason"].as_str().unwrap().to_owned();
            assert!(reason.contains("store found"), "{failed}");
            let hint = report(&failed)["hint"].as_str().unwrap().to_owned();
            assert!(hint.contains("install Nix"), "{failed}");
            assert!(failed.stderr.ends_with(&format!("hint: {hint}\n")), "{failed}");
        }
    }
    assert_eq!(fs::read_dir(place.root()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(place.entries()).unwrap().count(), 0);
}

#[test]
fn miss_exits_with_0_unless_fail_on_miss_is_set() {
    let place = PlainEnv::filled();
    let missed = place.attempt("restore", &[TOOL], &["--json"]).ok();
    assert_eq!(report(&missed)["hit"], "miss");
    assert!(report(&missed)["reason"].as_str().unwrap().contains("no entry"));
    let output = place.attempt("restore", &[TOOL], &["--json", "--fail-on-miss"]);
    assert_eq!(output.code(), 3, "{output}");
    assert_eq!(report(&output)["hit"], "miss");
    place.save(&[TOOL]);
    place.attempt("restore", &[TOOL], &["--fail-on-miss"]).ok();
}

#[test]
fn failure_exits_with_1_and_a_reason_in_json() {
    let place = PlainEnv::filled();
    place.save(&[TOOL]);
    place.remove(TOOL);
    damage(&place.snapshot());
    let failed = place.attempt("restore", &[TOOL], &["--json"]).fails();
    assert_eq!(failed.code(), 1);
    let report = report(&failed);
    assert_has_all_fields(&report);
    assert_eq!(report["hit"], "miss");
    let reason = report["reason"].as_str().unwrap();
    assert!(failed.stderr.contains(cause(reason)), "{failed}");
    assert_eq!(report["hint"].as_str().map(|hint| failed.stderr.contains(hint)), Some(true));
}

/// Asserts that a report has the fields that other programs rely on, with their types.
fn assert_has_all_fields(report: &Value) {
    for name in ["command", "store", "hit", "key", "backend", "phase"] {
        assert!(report[name].is_string(), "{name}: {report}");
    }
    for name in ["matched_key", "entry"] {
        let value = report.get(name).unwrap_or_else(|| panic!("{name}: {report}"));
        assert!(value.is_string() || value.is_null(), "{name}: {report}");
    }
    assert!(report["dry_run"].is_boolean(), "{report}");
    for (group, names) in [
        ("items", &["restored", "present", "skipped"][..]),
        ("bytes", &["downloaded", "uploaded", "packed", "unpacked"]),
    ] {
        for name in names {
            assert!(report[group][name].is_u64(), "{group}.{name}: {report}");
        }
    }
    let seconds =
        ["lookup", "download", "unpack", "commit", "downtime", "verify", "pack", "upload", "total"];
    for name in seconds {
        let value = report["seconds"][name].as_f64();
        assert!(value.is_some_and(|value| value >= 0.0), "{name}: {report}");
    }
    assert!(report.get("reason").is_none_or(Value::is_string), "{report}");
}

#[test]
fn json_report_has_every_documented_field() {
    let place = PlainEnv::filled();
    let saved = place.attempt("save", &[TOOL], &["--json"]).ok();
    assert_has_all_fields(&report(&saved));
    assert_eq!(saved.stderr, "");
    let json = report(&saved);
    assert_eq!(json["command"], "save");
    assert_eq!(json["store"], "plain");
    assert_eq!(json["key"], "test");
    let size = fs::metadata(place.snapshot()).unwrap().len();
    assert_eq!(json["bytes"]["uploaded"], size);
    assert!(json["bytes"]["packed"].as_u64().unwrap() > 10_000_000);
    let file = place.snapshot().file_name().unwrap().to_owned();
    let entry = json["entry"].as_str().unwrap();
    assert_eq!(file.to_str(), Some(format!("{entry}.tar.zst").as_str()));

    place.remove(TOOL);
    let restored = report(&place.attempt("restore", &[TOOL], &["--json"]).ok());
    assert_has_all_fields(&restored);
    assert_eq!(restored["command"], "restore");
    assert_eq!(restored["matched_key"], "test");
    assert_eq!(restored["entry"], json["entry"]);
    assert_eq!(restored["items"]["restored"], 1);
    assert!(restored["bytes"]["unpacked"].as_u64().unwrap() > 10_000_000);
    assert!(restored["bytes"]["downloaded"].as_u64().unwrap() <= size);
}

#[test]
fn human_readable_text_goes_only_to_stderr() {
    let place = PlainEnv::filled();
    let saved = place.attempt("save", &[TOOL], &[]).ok();
    assert_eq!(saved.stdout, "");
    assert!(saved.stderr.contains("saved 1 item"), "{saved}");
    place.remove(TOOL);
    let restored = place.attempt("restore", &[TOOL], &[]).ok();
    assert_eq!(restored.stdout, "");
    assert!(restored.stderr.contains("restored 1 item"), "{restored}");
    let again = place.attempt("restore", &[TOOL], &[]).ok();
    assert!(again.stderr.contains("nothing to do"), "{again}");
}

#[test]
fn quiet_prints_only_errors() {
    let place = PlainEnv::filled();
    for (verb, flag) in [("save", "--quiet"), ("restore", "-q")] {
        let done = place.attempt(verb, &[TOOL], &[flag]).ok();
        assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""));
        place.remove(TOOL);
    }
    let restored = place.attempt("restore", &[TOOL], &["-q"]).ok();
    assert_eq!(restored.stderr, "");
    damage(&place.snapshot());
    place.remove(TOOL);
    let failed = place.attempt("restore", &[TOOL], &["-q"]).fails();
    let is_advice = |line: &&str| line.starts_with("note: ") || line.starts_with("hint: ");
    let lines: Vec<_> = failed.messages().into_iter().filter(|line| !is_advice(line)).collect();
    assert!(lines.len() == 1 && lines[0].starts_with("error: "), "{failed}");
}

#[test]
fn progress_bar_is_shown_only_on_a_terminal() {
    let place = PlainEnv::filled();
    place.save(&[TOOL]);
    let snapshot = place.snapshot().display().to_string();
    let program = plain_env::binary().display().to_string();
    let on_terminal = |more: &str| {
        let line = format!("{program} verify {more} {snapshot}");
        output(Command::new("script").args(["-qec", &line, "/dev/null"])).ok()
    };
    let shown = on_terminal("");
    assert!(shown.stdout.contains("verify ["), "{shown:?}");
    assert!(shown.stdout.contains("intact"), "{shown:?}");
    let quiet = on_terminal("--quiet");
    assert!(!quiet.stdout.contains('['), "{quiet:?}");
    let elsewhere = storecache(["verify", &snapshot]).ok();
    assert_eq!(elsewhere.stderr, "");
    assert!(!elsewhere.stdout.contains(['\r', '\x1b']), "{elsewhere:?}");
}

#[test]
fn progress_without_a_terminal_is_printed_as_plain_lines() {
    let place = PlainEnv::filled();
    let said = File::create(place.host("/said")).unwrap();
    let mut command = Command::new(plain_env::binary());
    // Slow enough that the save is not finished before it is stopped.
    command.args(["save", "--level", "19", "--threads", "1", "--store", "plain"]);
    command.args(["--key", "test", "--path", TOOL, "--root"]);
    command.arg(place.root()).arg("--backend");
    command.arg(format!("dir:{}", place.entries().display()));
    let mut child = command.stderr(said).spawn().unwrap();
    let limit = Duration::from_secs(60);
    poll::until("the save to have begun", limit, || {
        procfs::has_unnamed_file(child.id()).then_some(()).ok_or("no file")
    });
    let signal = |signal| kill_process(Pid::from_child(&child), signal).unwrap();
    signal(Signal::STOP);
    // Progress lines come at most every five seconds, so the process is stopped for longer.
    std::thread::sleep(Duration::from_millis(5_200));
    signal(Signal::CONT);
    assert!(child.wait().unwrap().success());
    let said = fs::read_to_string(place.host("/said")).unwrap();
    let lines: Vec<_> = said.lines().filter(|line| line.contains("/s")).collect();
    assert!(!lines.is_empty(), "{said}");
    for line in lines {
        assert!(line.starts_with("storecache: pack, "), "{said}");
        assert!(!line.contains(['\r', '\x1b']), "{said:?}");
    }
}

#[test]
fn ladder_is_key_then_key_without_hash_then_user_prefixes() {
    let tree = work_tree();
    let restore_keys = ["--restore-key", "one-", "--restore-key", "two-"];
    let more = [&["--hash-files", "*.lock"][..], &restore_keys].concat();
    let ladder = ladder(&tree, &more);
    let stem = format!("storecache-plain-{}-linux-1-", std::env::consts::ARCH);
    assert_eq!(ladder[1..], [&stem, "one-", "two-"]);
    let hash = ladder[0].strip_prefix(&stem).unwrap();
    assert_eq!(hash.len(), 32);
    assert!(hash.bytes().all(|b| b"0123456789abcdef".contains(&b)));

    let bare = key_output(&tree, &[]).ok().lines();
    assert_eq!(bare, [stem.trim_end_matches('-'), &stem]);
    let named = key_output(&tree, &["--key-prefix", "mine"]).ok().lines();
    assert!(named[0].starts_with("mine-plain-"), "{named:?}");
    let given = [&["--key", "mine"][..], &restore_keys].concat();
    assert_eq!(key_output(&tree, &given).ok().lines(), ["mine", "one-", "two-"]);
}

#[test]
fn key_hash_depends_only_on_file_names_and_contents() {
    let tree = work_tree();
    let both = ["--hash-files", "a.lock", "--hash-files", "b.lock"];
    let before = key(&tree, &both);
    let other_order = ["--hash-files", "b.lock", "--hash-files", "a.lock"];
    assert_eq!(key(&tree, &other_order), before);
    fs::write(tree.path().join("unrelated"), "new").unwrap();
    plain_env::set_mtime(&tree.path().join("a.lock"), 5, 5);
    assert_eq!(key(&tree, &both), before);
    assert_ne!(key(&tree, &["--hash-files", "a.lock"]), before);

    let all = key(&tree, &["--hash-files", "*.lock"]);
    fs::rename(tree.path().join("b.lock"), tree.path().join("e.lock")).unwrap();
    let renamed = key(&tree, &["--hash-files", "*.lock"]);
    assert_ne!(renamed, all);
    fs::write(tree.path().join("e.lock"), "B").unwrap();
    assert_ne!(key(&tree, &["--hash-files", "*.lock"]), renamed);
}

#[test]
fn equal_work_trees_have_the_same_key() {
    let (one, other) = (work_tree(), work_tree());
    let more = ["--hash-files", "**/*.lock", "--workflow", "ci.yml"];
    assert_eq!(key(&one, &more), key(&other, &more));
}

#[test]
fn unmatched_hash_files_pattern_is_an_error_that_names_it() {
    let tree = work_tree();
    for pattern in ["*.none", "nowhere/*", "nowhere", ".git/../x"] {
        let more = ["--hash-files", "*.lock", "--hash-files", pattern, "--json"];
        let failed = key_output(&tree, &more).fails();
        assert_eq!(failed.code(), 1, "{failed}");
        assert!(failed.stderr.contains(pattern), "{failed}");
        let report = report(&failed);
        assert_eq!(report["ok"], false);
        assert!(report["reason"].as_str().unwrap().contains(pattern), "{failed}");
    }
    let broken = key_output(&tree, &["--hash-files", "[a"]).fails();
    assert!(broken.stderr.contains("[a"), "{broken}");
}

#[test]
fn workflow_mode_sets_how_the_workflow_enters_the_key() {
    let tree = work_tree();
    let bare = key(&tree, &[]);
    let with = key(&tree, &["--workflow", "ci.yml"]);
    assert_ne!(with, bare);
    let none = ["--workflow", "ci.yml", "--workflow-mode", "none"];
    assert_eq!(key(&tree, &none), bare);
    let bytes = ["--workflow", "ci.yml", "--workflow-mode", "bytes"];
    let whole = key(&tree, &bytes);
    assert!(whole != with && whole != bare);
    fs::write(tree.path().join("ci.yml"), format!("{CI}# more\n")).unwrap();
    assert_eq!(key(&tree, &["--workflow", "ci.yml"]), with);
    assert_ne!(key(&tree, &bytes), whole);
    fs::write(tree.path().join("ci.yml"), CI.replace("make", "make test")).unwrap();
    assert_ne!(key(&tree, &["--workflow", "ci.yml"]), with);
    let missing = key_output(&tree, &["--workflow", "gone.yml"]).fails();
    assert_eq!(missing.code(), 1);
    assert!(missing.stderr.contains("gone.yml"), "{missing}");
}

#[test]
fn key_explains_every_ingredient_and_prints_json() {
    let tree = work_tree();
    let more = ["--hash-files", "**/*.lock", "--workflow", "ci.yml"];
    let explained = key_output(&tree, &[&more[..], &["--explain"]].concat()).ok();
    for name in ["a.lock", "b.lock", "below/c.lock", "ci.yml"] {
        assert!(explained.stderr.contains(name), "{explained}");
    }
    assert!(!explained.stderr.contains("d.lock"), "{explained}");
    assert_eq!(explained.lines().len(), 2);

    let report = report(&key_output(&tree, &[&more[..], &["--json"]].concat()).ok());
    assert_eq!(report["key"], explained.lines()[0].as_str());
    assert_eq!(report["restore_keys"][0], explained.lines()[1].as_str());
    assert_eq!(report["store"], "plain");
    assert!(report["system"].as_str().unwrap().ends_with("-linux"));
    let ingredients = report["ingredients"].as_array().unwrap();
    assert_eq!(ingredients.len(), 2);
    for ingredient in ingredients {
        assert_eq!(ingredient["digest"].as_str().unwrap().len(), 64);
    }
}

#[test]
fn intact_file_is_verified_and_inspected() {
    let place = PlainEnv::filled();
    place.save(&[TOOL]);
    let file = place.snapshot().display().to_string();
    let verified = storecache(["verify", &file]).ok();
    assert!(verified.stdout.contains("intact; 1 item,"), "{verified}");
    let json = report(&storecache(["verify", "--json", &file]).ok());
    assert_eq!(json["ok"], true);
    assert_eq!(json["items"], 1);
    assert_eq!(json["files"], place.tree(TOOL).len());
    let length = fs::metadata(&file).unwrap().len();
    assert_eq!(json["bytes"]["snapshot"], length);

    let shown = storecache(["inspect", &file]).ok();
    for part in ["format", "plain", "test", "1 with", "content"] {
        assert!(shown.stdout.contains(part), "{part}: {shown}");
    }
    let json = report(&storecache(["inspect", "--json", "--items", &file]).ok());
    assert_eq!(json["format"], 1);
    assert_eq!(json["head"]["store"]["kind"], "plain");
    assert_eq!(json["head"]["key"], "test");
    assert_eq!(json["item_list"][0]["name"], "opt/tool");
    assert_eq!(json["bytes"]["snapshot"], length);
}

#[test]
fn verify_and_inspect_find_a_snapshot_by_key() {
    let place = PlainEnv::filled();
    place.save(&[TOOL]);
    let backend = format!("dir:{}", place.entries().display());
    let flags = ["--store", "plain", "--backend", &backend, "--key"];
    for verb in ["verify", "inspect"] {
        let words = [&[verb][..], &flags, &["test", "--json"]].concat();
        let report = report(&storecache(words).ok());
        assert!(report["snapshot"].as_str().unwrap().starts_with("test."));
        let unknown = storecache([&[verb][..], &flags, &["none"]].concat()).fails();
        assert_eq!(unknown.code(), 1);
        assert!(unknown.stderr.contains("none"), "{unknown}");
    }
}

#[test]
fn verify_reports_where_a_file_is_damaged() {
    let place = PlainEnv::filled();
    place.save(&[TOOL]);
    let file = place.snapshot();
    damage(&file);
    let name = file.display().to_string();
    let failed = storecache(["verify", &name]).fails();
    assert_eq!(failed.code(), 1);
    assert!(failed.stderr.contains("damaged"), "{failed}");
    assert!(failed.stderr.contains("frame"), "{failed}");
    assert!(failed.stderr.contains(&name), "{failed}");
    assert_eq!(failed.stdout, "");
    // The damage is in the frames, which `inspect` does not read.
    storecache(["inspect", &name]).ok();
    plain_env::truncate(&file, 1000);
    for verb in ["verify", "inspect"] {
        let failed = storecache([verb, &name]).fails();
        assert_eq!(failed.code(), 1);
        assert!(failed.stderr.contains("truncated"), "{failed}");
    }
}

#[test]
fn verify_reports_damage_as_json() {
    let place = PlainEnv::filled();
    place.save(&[TOOL]);
    damage(&place.snapshot());
    let failed = storecache(["verify".as_ref(), "--json".as_ref(), place.snapshot().as_os_str()]);
    let failed = failed.fails();
    assert_eq!(failed.code(), 1);
    let report = report(&failed);
    assert_eq!(report["ok"], false);
    assert!(report["reason"].as_str().unwrap().contains("damaged"));
}

#[test]
fn verify_and_inspect_refuse_files_that_are_not_snapshots() {
    let place = PlainEnv::new();
    place.write("/text", "a text that is long enough for a header and a footer\n");
    place.write("/empty", "");
    fs::create_dir(place.host("/directory")).unwrap();
    for name in ["/text", "/empty", "/directory", "/missing"] {
        for verb in ["verify", "inspect"] {
            let file = place.host(name).display().to_string();
            let failed = storecache([verb, &file]).fails();
            assert_eq!(failed.code(), 1, "{failed}");
            assert!(failed.stderr.contains(&file), "{failed}");
            assert_eq!(failed.messages().len(), 1, "{failed}");
        }
    }
}

#[test]
fn closed_or_full_stdout_does_not_panic() {
    let mut child = Command::new(plain_env::binary())
        .args(["save", "--help"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    assert!(!said.contains("panicked"), "{said}");

    let place = PlainEnv::filled();
    place.save(&[TOOL]);
    let file = place.snapshot().display().to_string();
    let program = plain_env::binary().display().to_string();
    let script = format!("{program} inspect --items {file} >/dev/full");
    let failed = output(Command::new("sh").args(["-c", &script])).fails();
    assert_eq!(failed.code(), 1, "{failed}");
    assert!(!failed.stderr.contains("panicked"), "{failed}");
}

#[test]
fn errors_at_the_start_name_their_phase() {
    let empty = tempfile::tempdir().unwrap();
    for verb in ["save", "restore"] {
        for more in [&[][..], &["--profiles"]] {
            let words = [verb, "--backend", "dir:/nowhere", "--root"].map(OsString::from);
            let words = words.into_iter().chain([empty.path().into()]);
            let failed = storecache(words.chain(more.iter().map(OsString::from))).fails();
            assert!(failed.stderr.starts_with("error: no store found below"), "{failed}");
            let phase = format!("note: the {verb} failed in its phase start");
            assert!(failed.stderr.contains(&phase), "{failed}");
        }
    }
}
