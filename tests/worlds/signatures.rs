//! Tests of signatures and trust: restores that require a signature by a trusted key or a trusted origin, and
//! content that is hashed again.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::cache_service::{CacheService, Fault, RequestKind, TOKEN};
use crate::support::job::Job;
use crate::support::plain_env::{self, PlainEnv, assert_same_tree};
use crate::support::snapshot_builder::{
    self, SnapshotParts, check, open_bytes, raw_bytes, with_index, with_signatures,
};
use crate::support::world_runs::{
    assert_same, attempt, record_state, report, restore, run, save, staging,
};
use crate::support::{Fixture, Output, PackageManager, Role, World, poll};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use storecache_snapshot::{Index, PublicKey, SecretKey, Verdict};

const TOOL: &str = "/opt/tool";
const ROLES: [Role; 2] = [Role::Mid, Role::Guix];

/// Returns a secret key that depends on `seed`.
fn secret(name: &str, seed: u8) -> String {
    let pair = SigningKey::from_bytes(&[seed; 32]).to_keypair_bytes();
    format!("{name}:{}", BASE64_STANDARD.encode(pair))
}

/// Returns its public key.
fn public(name: &str, seed: u8) -> String {
    SecretKey::parse(&secret(name, seed)).unwrap().public().to_string()
}

/// Returns a plain-directory fixture with a small directory.
fn place() -> PlainEnv {
    let place = PlainEnv::new();
    place.write("/opt/tool/file", "content of the file\n");
    place
}

/// Runs a verb on the fixture with additional variables.
fn with(place: &PlainEnv, verb: &str, more: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut words: Vec<OsString> = vec![verb.into(), "--root".into(), place.root().into()];
    words.extend(["--store", "plain", "--path", TOOL, "--json", "--backend"].map(OsString::from));
    words.push(format!("dir:{}", place.entries().display()).into());
    if !more.contains(&"--key") {
        words.extend(["--key", "test"].map(OsString::from));
    }
    words.extend(more.iter().map(OsString::from));
    let mut command = Command::new(plain_env::binary());
    for name in ["GITHUB_REPOSITORY", "GITHUB_REF", "GITHUB_EVENT_NAME", "GITHUB_EVENT_PATH"] {
        command.env_remove(name);
    }
    plain_env::output(command.args(words).current_dir("/").envs(variables.iter().copied()))
}

/// Saves with these secret keys.
#[track_caller]
fn save_signed(place: &PlainEnv, keys: &[String]) -> Value {
    let keys = keys.join("\n");
    report(&with(place, "save", &[], &[("STORECACHE_SIGN_KEY", &keys)]).ok())
}

/// Deletes the directory and restores with these trusted keys. Returns the report.
#[track_caller]
fn trusting(place: &PlainEnv, keys: &str, more: &[&str]) -> Value {
    if place.host(TOOL).exists() {
        place.remove(TOOL);
    }
    let more = [&["--trusted-keys", keys], more].concat();
    report(&with(place, "restore", &more, &[]).ok())
}

#[track_caller]
fn assert_refused(report: &Value, because: &str) {
    assert_eq!(report["hit"], "miss", "{report}");
    assert_eq!(report["items"]["restored"], 0, "{report}");
    let reason = report["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(because), "{because}: {report}");
}

/// Writes a newer entry of the key with these bytes.
fn put(place: &PlainEnv, key: &str, bytes: &[u8]) -> PathBuf {
    let file = place.entries().join(format!("{key}.29991231T235959.000000Z.tar.zst"));
    fs::write(&file, bytes).unwrap();
    file
}

#[test]
fn signed_snapshot_restores_with_its_key_and_without_keys() {
    let place = place();
    let before = place.tree(TOOL);
    let saved = save_signed(&place, &[secret("ci-1", 1)]);
    assert_eq!(saved["signed_by"], json!(["ci-1"]));
    let json = trusting(&place, &public("ci-1", 1), &[]);
    assert_eq!(json["hit"], "exact");
    assert_eq!(json["signed_by"], json!(["ci-1"]));
    assert_same_tree(&before, &place.tree(TOOL));
    place.remove(TOOL);
    let json = place.restore(&[TOOL], &[]);
    assert_eq!(json["hit"], "exact");
    assert_eq!(json["signed_by"], Value::Null, "signatures were not checked");
    assert_same_tree(&before, &place.tree(TOOL));

    // A file of keys works too.
    let file = place.root().join("keys");
    fs::write(&file, format!("{}\n", secret("ci-2", 2))).unwrap();
    let saved = with(&place, "save", &["--sign-key", file.to_str().unwrap()], &[]);
    assert_eq!(report(&saved.ok())["signed_by"], json!(["ci-2"]));
    assert_refused(
        &trusting(&place, &public("ci-3", 3), &[]),
        "signed by ci-2, which is not a trusted key",
    );
}

#[test]
fn snapshot_without_a_trusted_signature_is_a_miss() {
    let place = place();
    save_signed(&place, &[secret("ci-1", 1)]);
    let good = fs::read(place.snapshot()).unwrap();
    fs::remove_file(place.snapshot()).unwrap();
    place.write("/opt/tool/file", "other content\n");
    save_signed(&place, &[secret("ci-1", 1)]);
    let other = fs::read(place.snapshot()).unwrap();
    fs::remove_file(place.snapshot()).unwrap();

    let another_head = || {
        let mut parts = SnapshotParts::new(&good);
        parts.head.origin.repository = "you/yours".into();
        parts
    };
    let ours = SecretKey::parse(&secret("ci-1", 1)).unwrap();
    let of = |name, seed| vec![SecretKey::parse(&secret(name, seed)).unwrap()];
    let block = snapshot_builder::signatures(&good);
    let empty = br#"{"signatures":[]}"#;
    let key = || "it is not signed";
    for (what, bytes, because) in [
        ("stripped", with_index(&good, |_| {}), key()),
        ("an empty block", with_signatures(&good, empty), key()),
        ("no block", with_signatures(&good, b"null"), "its signatures do not parse"),
        (
            "another's",
            SnapshotParts::new(&good).build_signed(&of("them", 9)),
            "signed by them, which is not a trusted key",
        ),
        (
            "another key's signature under our name",
            SnapshotParts::new(&good).build_signed(&of("ci-1", 9)),
            "the signature by ci-1 does not match this snapshot",
        ),
        (
            "our signature under another name",
            SnapshotParts::new(&good).build_signed(&of("ci-9", 1)),
            "signed by ci-9, which is not a trusted key",
        ),
        (
            "of another snapshot",
            with_signatures(&good, &snapshot_builder::signatures(&other)),
            "the signature by ci-1 does not match this snapshot",
        ),
        (
            "another head",
            with_signatures(&another_head().build(), &block),
            "the signature by ci-1 does not match this snapshot",
        ),
        (
            "another index",
            with_signatures(&with_index(&good, |index| index.items[0].disk += 1), &block),
            "the signature by ci-1 does not match this snapshot",
        ),
    ] {
        // The snapshot itself is valid.
        check(&bytes).unwrap();
        let file = put(&place, "test", &bytes);
        assert_refused(&trusting(&place, &public("ci-1", 1), &[]), because);
        assert!(!place.host(TOOL).exists(), "{what}");
        assert_eq!(place.restore(&[TOOL], &[])["hit"], "exact", "{what}");
        fs::remove_file(file).unwrap();
    }
    // With a new signature the changed snapshot is accepted: only the signature was wrong.
    put(&place, "test", &another_head().build_signed(&[ours]));
    assert_eq!(trusting(&place, &public("ci-1", 1), &[])["hit"], "exact");
}

#[test]
fn any_flipped_byte_breaks_the_snapshot_or_its_signature() {
    let place = place();
    save_signed(&place, &[secret("ci-1", 1)]);
    let mut bytes = fs::read(place.snapshot()).unwrap();
    let keys = [PublicKey::parse(&public("ci-1", 1)).unwrap()];
    let signed = |bytes: &[u8]| {
        let Ok(opened) = open_bytes(bytes) else { return false };
        let body = Index::identity(&opened.index_bytes).unwrap();
        let signatures = Index::signatures(&opened.index_bytes).unwrap_or_default();
        signatures.iter().any(|it| it.judge(&body, &keys) == Verdict::Valid)
    };
    assert!(signed(&bytes) && check(&bytes).is_ok());
    for at in 0..bytes.len() {
        for mask in [0x01, 0x20, 0x80] {
            bytes[at] ^= mask;
            assert!(!signed(&bytes) || check(&bytes).is_err(), "byte {at} with {mask:#x}");
            bytes[at] ^= mask;
        }
    }
}

#[test]
fn entry_moved_to_another_key_is_refused() {
    let place = place();
    save_signed(&place, &[secret("ci-1", 1)]);
    let bytes = fs::read(place.snapshot()).unwrap();
    put(&place, "other", &bytes);
    let json = trusting(&place, &public("ci-1", 1), &["--key", "other"]);
    assert_refused(&json, "it was signed for the key test, but is stored under other");
    assert_eq!(report(&with(&place, "restore", &["--key", "other"], &[]))["hit"], "exact");
}

#[test]
fn signature_counts_for_one_key_with_its_case() {
    let place = place();
    let save = ["--key", "Linux-K"];
    report(&with(&place, "save", &save, &[("STORECACHE_SIGN_KEY", &secret("ci-1", 1))]).ok());
    let saved = place.snapshot();
    let bytes = fs::read(&saved).unwrap();
    let trusted = public("ci-1", 1);
    let json = trusting(&place, &trusted, &["--key", "Linux-K"]);
    assert_eq!(json["hit"], "exact", "{json}");

    // With another case of the key, lookups find the entry, but the signature is not for that key.
    let other = "differs from the requested key in upper and lower case";
    for more in [&["--key", "linux-k"][..], &["--key", "linux-x", "--restore-key", "linux-"]] {
        assert_refused(&trusting(&place, &trusted, more), other);
        let json = report(&with(&place, "restore", more, &[]).ok());
        assert_ne!(json["hit"], "miss", "no signature was required: {json}");
    }
    let json = trusting(&place, &trusted, &["--key", "Linux-x", "--restore-key", "Linux-"]);
    assert_eq!(json["hit"], "prefix", "{json}");

    // The entry was moved to a key of another case.
    fs::remove_file(saved).unwrap();
    put(&place, "linux-k", &bytes);
    let json = trusting(&place, &trusted, &["--key", "linux-k"]);
    assert_refused(&json, "it was signed for the key Linux-K, but is stored under linux-k");
    let words = ["--trusted-keys", &trusted, "--key", "linux-k"];
    let verified = with(&place, "verify", &words, &[]);
    assert!(verified.to_string().contains("signed for the key Linux-K"), "{verified}");
}

#[test]
fn signature_holds_where_a_service_lowers_keys() {
    // The fake service stores keys in lower case in version 1, as act does.
    let service = CacheService::start();
    let (place, key) = (place(), secret("ci-1", 1));
    let run = |verb: &str, more: &[&str]| {
        let mut command = Command::new(plain_env::binary());
        command.args([verb, "--store", "plain", "--path", TOOL, "--json", "--backend", "github"]);
        command.args(["--key", "Linux-K", "--root"]).arg(place.root()).args(more);
        command.env_remove("ACTIONS_RESULTS_URL").env_remove("ACTIONS_CACHE_SERVICE_V2");
        command.env("ACTIONS_CACHE_URL", service.url()).env("ACTIONS_RUNTIME_TOKEN", TOKEN);
        command.env("STORECACHE_SIGN_KEY", if verb == "save" { &*key } else { "" });
        report(&plain_env::output(command.current_dir("/")).ok())
    };
    run("save", &[]);
    place.remove(TOOL);
    let json = run("restore", &["--trusted-keys", &public("ci-1", 1)]);
    assert_eq!((&json["hit"], &json["signed_by"]), (&json!("exact"), &json!(["ci-1"])), "{json}");
}

#[test]
fn snapshot_can_carry_signatures_by_two_keys() {
    let place = place();
    let saved = save_signed(&place, &[secret("old", 1), secret("new", 2)]);
    assert_eq!(saved["signed_by"], json!(["old", "new"]));
    let (old, new) = (public("old", 1), public("new", 2));
    assert_eq!(trusting(&place, &old, &[])["signed_by"], json!(["old"]));
    assert_eq!(trusting(&place, &new, &[])["signed_by"], json!(["new"]));
    let both = format!("  {old}\n{new} ");
    assert_eq!(trusting(&place, &both, &[])["signed_by"], json!(["new", "old"]));
    // Two keys of one name, of which one has signed.
    let twice = format!("{} {old}", public("old", 7));
    assert_eq!(trusting(&place, &twice, &[])["signed_by"], json!(["old"]));
    assert_refused(&trusting(&place, &public("old", 7), &[]), "does not match this snapshot");
}

#[test]
fn restore_uses_the_newest_trusted_entry() {
    let place = place();
    let before = place.tree(TOOL);
    let first = save_signed(&place, &[secret("ci-1", 1)]);
    place.write("/opt/tool/file", "changed\n");
    let second = report(&with(&place, "save", &["--policy", "always"], &[]).ok());
    assert_eq!(second["signed_by"], Value::Null);
    let json = trusting(&place, &public("ci-1", 1), &[]);
    assert_eq!(json["entry"], first["entry"]);
    let passed = json!([[second["entry"], "not trusted: it is not signed"]]);
    assert_eq!(json["passed_over"], passed);
    assert_same_tree(&before, &place.tree(TOOL));
}

#[test]
fn save_ignores_untrusted_entries_and_writes_none() {
    let place = place();
    let key = secret("ci-1", 1);
    let auto = |more: &[&str], variables: &[(&str, &str)]| {
        let more = [&["--policy", "auto", "--min-growth", "0"], more].concat();
        report(&with(&place, "save", &more, variables).ok())
    };
    assert_eq!(auto(&[], &[])["saved"], true);
    let again = auto(&[], &[]);
    assert!(again["reason"].as_str().unwrap().contains("unchanged"), "{again}");
    // From now on saves are signed, so the unsigned entry does not count.
    let signed = auto(&[], &[("STORECACHE_SIGN_KEY", &key)]);
    assert_eq!(signed["saved"], true, "{signed}");
    assert_eq!(signed["passed_over"][0][1], "not trusted: it is not signed");
    assert_eq!(signed["warnings"], Value::Null, "{signed}");
    let again = auto(&[], &[("STORECACHE_SIGN_KEY", &key)]);
    assert!(again["reason"].as_str().unwrap().contains("unchanged"), "{again}");
    // As in a pull request from a fork, which gets no secrets.
    let trusted = public("ci-1", 1);
    place.write("/opt/tool/file", "more\n");
    let without = auto(&["--trusted-keys", &trusted], &[]);
    assert_eq!(without["saved"], false);
    assert!(without["reason"].as_str().unwrap().contains("would not be signed"), "{without}");
    let with_key = auto(&["--trusted-keys", &trusted], &[("STORECACHE_SIGN_KEY", &key)]);
    assert_eq!(with_key["saved"], true, "{with_key}");
}

/// Returns the variables of a run on a branch.
fn run_variables<'a>(
    repository: &'a str,
    reference: &'a str,
    event: &'a str,
) -> [(&'a str, &'a str); 3] {
    [("GITHUB_REPOSITORY", repository), ("GITHUB_REF", reference), ("GITHUB_EVENT_NAME", event)]
}

#[test]
fn trust_flag_selects_the_accepted_origins() {
    const MAIN: &str = "refs/heads/main";
    const PULL: &str = "refs/pull/7/merge";
    let here = run_variables("me/mine", "refs/heads/topic", "push");
    let branch = ["--trust", "default-branch-only", "--default-branch", "main"];
    for (from, same, default) in [
        (Some(run_variables("me/mine", MAIN, "push")), None, None),
        (Some(run_variables("me/mine", MAIN, "schedule")), None, None),
        (
            Some(run_variables("me/mine", MAIN, "pull_request_target")),
            None,
            Some("users without write access can trigger"),
        ),
        (
            Some(run_variables("me/mine", PULL, "pull_request")),
            None,
            Some("not from the branch main"),
        ),
        (
            Some(run_variables("you/fork", MAIN, "push")),
            Some("not from me/mine"),
            Some("not from me/mine"),
        ),
        (None, Some("does not name the repository"), Some("does not name the repository")),
    ] {
        let place = place();
        let variables = from.unwrap_or(run_variables("", "", ""));
        with(&place, "save", &[], &variables).ok();
        for (flags, because) in [
            (&["--trust", "any"][..], None),
            (&["--trust", "same-repository"], same),
            (&branch, default),
        ] {
            let _ = fs::remove_dir_all(place.host(TOOL));
            let json = report(&with(&place, "restore", flags, &here).ok());
            match because {
                None => assert_eq!(json["hit"], "exact", "{flags:?} {from:?}: {json}"),
                Some(because) => assert_refused(&json, because),
            }
        }
        // A save that does not trust this origin does not count its entry, and does not save one.
        let more = ["--policy", "auto", "--trust", "same-repository", "--repository", "me/mine"];
        let _ = fs::remove_dir_all(place.host(TOOL));
        with(&place, "restore", &[], &[]).ok();
        let saved = report(&with(&place, "save", &more, &variables).ok());
        let reason = saved["reason"].as_str().unwrap();
        match same {
            None => assert!(reason.contains("unchanged"), "{saved}"),
            Some(_) => assert!(reason.contains("the snapshot would not be trusted"), "{saved}"),
        }
    }
}

#[test]
fn default_branch_comes_from_event_schedule_or_flag() {
    let place = place();
    with(&place, "save", &[], &run_variables("me/mine", "refs/heads/trunk", "push")).ok();
    let event = place.root().join("event.json");
    fs::write(&event, r#"{"repository": {"default_branch": "trunk"}}"#).unwrap();
    let event = event.to_str().unwrap();
    let own = run_variables("me/mine", "refs/heads/topic", "push");
    let scheduled = run_variables("me/mine", "refs/heads/trunk", "schedule");
    let only = ["--trust", "default-branch-only", "--lookup-only"];
    let attempt = |more: &[&str], variables: &[(&str, &str)]| {
        with(&place, "restore", &[&only, more].concat(), variables)
    };
    let hit = |output: Output| report(&output.ok())["hit"].clone();
    assert_eq!(hit(attempt(&[], &[&own[..], &[("GITHUB_EVENT_PATH", event)]].concat())), "exact");
    assert_eq!(hit(attempt(&[], &scheduled)), "exact");
    assert_eq!(hit(attempt(&["--default-branch", "trunk"], &own)), "exact");
    assert_eq!(hit(attempt(&["--default-branch", "main"], &own)), "miss");
    for (output, because) in [
        (attempt(&[], &own), "the default branch is unknown\nhint: name it with --default-branch"),
        (attempt(&["--default-branch", "trunk"], &[]), "--repository OWNER/NAME is not set"),
        (attempt(&["--repository", "no-name"], &[]), "not a valid repository name"),
    ] {
        assert_eq!(output.code(), 2, "{output}");
        assert!(output.stderr.contains(because), "{output}");
    }
}

#[test]
fn invalid_key_is_a_usage_error_and_is_not_printed() {
    let place = place();
    let (good, ours) = (secret("ci-1", 1), public("ci-1", 1));
    let encoded = good.split_once(':').unwrap().1;
    let cut = &good[..good.len() - 8];
    let variable = |text| [("STORECACHE_SIGN_KEY", text)];
    let theirs = public("ci-1", 9);
    for (verb, more, variables, because) in [
        ("save", vec![], variable(encoded), "STORECACHE_SIGN_KEY: key 1: not of the form"),
        ("save", vec![], variable(cut), "key 1: not of the form"),
        ("save", vec![], variable(ours.as_str()), "this is a public key"),
        // The key is given where the path of its file is expected.
        ("save", vec!["--sign-key", good.as_str()], variable(""), "STORECACHE_SIGN_KEY"),
        ("save", vec!["--sign-key", "/dev/null"], variable(""), "no key found"),
        ("restore", vec!["--trusted-keys", good.as_str()], variable(""), "this is a secret key"),
        ("restore", vec!["--trusted-keys", cut], variable(""), "key 1: not of the form"),
        ("restore", vec!["--trusted-keys", " "], variable(""), "it is empty; omit it"),
        (
            "save",
            vec!["--trusted-keys", theirs.as_str()],
            variable(good.as_str()),
            "the key ci-1 is not in --trusted-keys",
        ),
    ] {
        let output = with(&place, verb, &more, &variables);
        assert_eq!(output.code(), 2, "{because}: {output}");
        assert!(output.stderr.contains(because), "{because}: {output}");
        for part in [&encoded[..20], &encoded[44..64]] {
            assert!(!output.stderr.contains(part) && !output.stdout.contains(part), "{output}");
        }
    }
    assert!(!place.entries().read_dir().unwrap().any(|_| true), "nothing was saved");
}

#[test]
fn inspect_and_verify_report_signatures() {
    let place = place();
    save_signed(&place, &[secret("ci-1", 1), secret("ci-2", 2)]);
    let file = place.snapshot();
    let file = file.to_str().unwrap();
    let look = |verb: &str, more: &[&str]| plain_env::storecache([&[verb, file], more].concat());
    let verdicts = |output: &Output| {
        let report = report(output);
        let verdicts = report["signatures"].as_array().unwrap().iter();
        verdicts.map(|it| it["verdict"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for verb in ["inspect", "verify"] {
        let output = look(verb, &["--json"]).ok();
        assert_eq!(verdicts(&output), ["not-checked"; 2]);
        let keys = format!("{} {}", public("ci-1", 1), public("ci-3", 3));
        let output = look(verb, &["--json", "--trusted-keys", &keys]).ok();
        assert_eq!(verdicts(&output), ["valid", "unknown-key"]);
        let output = look(verb, &["--trusted-keys", &public("ci-2", 2)]).ok();
        assert!(output.stdout.contains("ci-1 (unknown key), ci-2 (valid)"), "{output}");
    }
    let wrong = public("ci-1", 9);
    let output = look("inspect", &["--json", "--trusted-keys", &wrong]).ok();
    assert_eq!(verdicts(&output), ["invalid", "unknown-key"]);
    let output = look("verify", &["--json", "--trusted-keys", &wrong]);
    assert_eq!(output.code(), 1, "{output}");
    assert!(
        output.stderr.contains("the signature by ci-1 does not match this snapshot"),
        "{output}"
    );
    let bytes = fs::read(file).unwrap();
    fs::write(file, with_index(&bytes, |_| {})).unwrap();
    assert!(look("inspect", &[]).ok().stdout.lines().all(|line| !line.starts_with("signed")));
    let output = look("verify", &["--trusted-keys", &wrong]);
    assert_eq!(output.code(), 1, "{output}");
    assert!(output.stderr.contains("it is not signed"), "{output}");
    fs::write(file, with_signatures(&bytes, b"{")).unwrap();
    for verb in ["inspect", "verify"] {
        let output = look(verb, &[]);
        assert_eq!(output.code(), 1, "{output}");
        assert!(output.stderr.contains("its signatures do not parse"), "{output}");
    }
}

#[test]
fn openssl_verifies_the_signature_and_old_readers_skip_it() {
    let place = place();
    save_signed(&place, &[secret("ci-1", 1)]);
    let bytes = fs::read(place.snapshot()).unwrap();
    let opened = open_bytes(&bytes).unwrap();
    assert_eq!((opened.head.format, opened.index.format), (1, 1));
    let content = &opened.index_bytes;
    let length = u32::from_le_bytes(content[..4].try_into().unwrap()) as usize;
    let body = &content[4..4 + length];
    // As documented in `docs/signatures.md`.
    let message = format!("storecache-snapshot;1;{}", snapshot_builder::sha256(body));
    let block: Value = serde_json::from_slice(&content[4 + length + 32 + 4..]).unwrap();
    let signature = block["signatures"][0]["ed25519"].as_str().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    // SubjectPublicKeyInfo of ed25519 (RFC 8410).
    let key =
        public("ci-1", 1).split_once(':').map(|(_, key)| BASE64_STANDARD.decode(key)).unwrap();
    let prefix = [0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00];
    fs::write(at("key.der"), [&prefix[..], &key.unwrap()].concat()).unwrap();
    fs::write(at("signature"), BASE64_STANDARD.decode(signature).unwrap()).unwrap();
    let verify = |message: &str| {
        fs::write(at("message"), message).unwrap();
        let words = "openssl pkeyutl -verify -pubin -keyform DER -inkey key.der -rawin -in message \
                     -sigfile signature";
        let words: Vec<_> = words.split(' ').filter(|word| !word.is_empty()).collect();
        plain_env::output(Command::new(words[0]).args(&words[1..]).current_dir(directory.path()))
    };
    verify(&message).ok();
    verify(&message.replace(";1;", ";2;")).fails();

    // Programs that skip the index by the length of its frame skip the signatures too: the length includes
    // them.
    let unsigned = with_index(&bytes, |_| {});
    let signatures = snapshot_builder::signatures(&bytes).len();
    assert_eq!(unsigned.len() + signatures, bytes.len());
    let listed = plain_env::output(
        Command::new("sh")
            .arg("-c")
            .arg(format!("zstd -dc {} | tar -t", place.snapshot().display())),
    );
    assert!(listed.ok().stdout.contains("opt/tool/file"));
}

/// Returns a step that caches the directory in the cache service.
fn step(place: &PlainEnv, service: &CacheService) -> Job {
    let mut job = Job::on(place, &[TOOL]).input("backend", "github").input("key", "test");
    for (name, value) in [
        ("ACTIONS_RESULTS_URL", service.url()),
        ("ACTIONS_RUNTIME_TOKEN", TOKEN.into()),
        ("ACTIONS_CACHE_SERVICE_V2", "True".into()),
        ("GITHUB_SERVER_URL", "https://github.com".into()),
    ] {
        job = job.env(name, value);
    }
    job
}

#[test]
fn step_signs_without_exposing_the_key() {
    let (place, service) = (place(), CacheService::start());
    let before = place.tree(TOOL);
    let (key, ours) = (secret("ci-1", 1), public("ci-1", 1));
    let job = |trusted: &str| step(&place, &service).input("trusted-keys", trusted);
    let signing = job(&ours).input("sign-key", format!("{key}\n"));
    signing.main();
    service.inject_faults(RequestKind::Finalize, [Fault::Hold]);
    let saving = signing.start("post");
    poll::until("the save to be nearly done", std::time::Duration::from_secs(60), || {
        let seen = service.seen(RequestKind::Finalize).len();
        if seen > 0 { Ok(()) } else { Err(saving.said()) }
    });
    let encoded = key.split_once(':').unwrap().1;
    let program = saving.program();
    let read =
        |path: PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    assert!(all.into_iter().all(|process| !read(process.join("cmdline")).contains(&encoded[..40])));
    assert!(read(program.join("environ")).contains(encoded), "it was given to the step");
    let pid = program.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let root_helper_pid = crate::support::procfs::first_child(pid).expect("the root helper runs");
    let environment = read(PathBuf::from(format!("/proc/{root_helper_pid}/environ")));
    assert!(environment.starts_with("PATH=") && !environment.contains(&encoded[..40]));
    service.release_held_requests();
    let saved = saving.wait().ok();
    saved.assert_no_annotations();
    assert!(saved.said.contains("signed by ci-1"), "{}", saved.said);
    let masked = format!("::add-mask::{key}");
    assert!(saved.said.lines().any(|line| line == masked), "{}", saved.said);
    let log = saved.said.replace(&masked, "");
    assert!(!log.contains(&encoded[..20]), "{log}");
    let stored = service.content(&service.keys().remove(0));
    assert!(!String::from_utf8_lossy(&stored).contains(&encoded[..40]));

    place.remove("/opt");
    let hit = job(&ours).main();
    assert_eq!(hit.output("hit-kind"), "exact");
    hit.assert_no_annotations();
    assert_same_tree(&before, &place.tree(TOOL));
    place.remove("/opt");
    let miss = job(&public("ci-1", 9)).main();
    assert_eq!(miss.output("hit-kind"), "miss");
    assert!(miss.output("reason").contains("does not match this snapshot"), "{miss:?}");

    for (name, value) in [("sign-key", &key[..40]), ("trusted-keys", key.as_str())] {
        let wrong = job(&ours).input(name, value).run("main");
        assert_eq!(wrong.code, 2, "{}", wrong.said);
        let log: Vec<_> = wrong.said.lines().filter(|it| !it.starts_with("::add-mask::")).collect();
        assert!(!log.concat().contains(&encoded[..20]), "{log:?}");
        assert!(log.concat().contains(name), "{log:?}");
    }
}

#[test]
fn signed_save_is_kept_beside_a_concurrent_unsigned_one() {
    let (place, service) = (place(), CacheService::start());
    let ours = step(&place, &service).input("sign-key", secret("ci-1", 1));
    let theirs = step(&place, &service);
    ours.main();
    theirs.main();
    service.inject_faults(RequestKind::Reserve, [Fault::Hold]);
    let held_up = ours.start("post");
    poll::until("the save to be held up", std::time::Duration::from_secs(60), || {
        let seen = service.seen(RequestKind::Reserve).len();
        if seen > 0 { Ok(()) } else { Err(held_up.said()) }
    });
    theirs.post();
    service.release_held_requests();
    let saved = held_up.wait().ok();
    assert!(saved.said.contains("signed by ci-1"), "{}", saved.said);
    assert_eq!(service.keys().len(), 2);
}

/// Returns a world with a filled store and a running daemon.
fn filled(role: Role) -> World {
    let world = World::with_fixture(role, Fixture::Small);
    world.start_daemon();
    world
}

/// Returns a pair of keys, generated by Nix if the world has Nix.
fn keys(world: &World) -> (String, String) {
    if world.package_manager() == PackageManager::Guix {
        return (secret("test-1", 1), public("test-1", 1));
    }
    world.ok(["nix-store", "--generate-binary-cache-key", "test-1", "/tmp/secret", "/tmp/public"]);
    let read = |name: &str| fs::read_to_string(world.host(name)).unwrap();
    (read("/tmp/secret"), read("/tmp/public"))
}

/// Returns the path of the file of a report's entry.
fn file(world: &World, report: &Value) -> PathBuf {
    let name = report["entry"].as_str().unwrap_or_else(|| panic!("no entry: {report}"));
    world.backend().host_path().join(format!("{name}.tar.zst"))
}

#[test]
fn delta_requires_a_trusted_base() {
    for role in ROLES {
        let world = filled(role);
        let (secret, public) = keys(&world);
        fs::write(world.host("/tmp/keys"), &secret).unwrap();
        let signing = ["--sign-key", "/tmp/keys"];
        let trusting = ["--trusted-keys", public.trim()];
        let unsigned = save(&world);
        // A delta on an unsigned base would be useless.
        let base = run(&world, "root", "save", &signing);
        assert_eq!(base["items"]["inherited"], 0, "{base}");
        assert_eq!(base["passed_over"][0][0], unsigned["entry"], "{base}");
        assert_eq!(base["signed_by"], json!(["test-1"]));
        let added = world.add_text("added");
        let delta = run(&world, "root", "save", &signing);
        assert_eq!(delta["base"]["entry"], base["entry"], "{role:?}: {delta}");
        let before = record_state(&world);

        world.wipe_store();
        let empty = record_state(&world);
        let whole = fs::read(file(&world, &base)).unwrap();
        let stripped = with_index(&whole, |_| {});
        check(&stripped).unwrap();
        fs::write(file(&world, &base), &stripped).unwrap();
        let report = run(&world, "runner", "restore", &trusting);
        assert_refused(&report, "its base");
        assert!(report["reason"].as_str().unwrap().contains("it is not signed"), "{report}");
        assert_same(&empty, &record_state(&world));
        assert_eq!(staging(&world), [""; 0]);

        fs::write(file(&world, &base), &whole).unwrap();
        // Hashing leaves no trace in the times of access.
        let more = [&trusting[..], &["--verify", "content", "--state", "/tmp/job.json"]].concat();
        let report = run(&world, "runner", "restore", &more);
        assert_eq!(report["hit"], "exact", "{report}");
        assert_eq!(report["entry"], delta["entry"], "{report}");
        assert_eq!(report["signed_by"], json!(["test-1"]));
        assert!(report["seconds"]["content"].as_f64().unwrap() > 0.0, "{report}");
        assert_same(&before, &record_state(&world));
        assert!(before.references.contains_key(&added));
        world.verify_store();
    }
}

#[test]
fn verify_content_does_not_mark_items_as_used() {
    for role in ROLES {
        let world = filled(role);
        save(&world);
        world.wipe_store();
        let more = ["--verify", "content", "--state", "/tmp/job.json"];
        let report = run(&world, "runner", "restore", &more);
        let saved = run(&world, "runner", "save", &["--state", "/tmp/job.json"]);
        assert_eq!(saved["items"]["used"], 0, "{role:?}: {saved}");
        assert_eq!(saved["items"]["unused"], report["items"]["restored"], "{role:?}: {saved}");
    }
}

/// Changes a file of an item and keeps every digest right. Returns the item's name and the snapshot. `change`
/// gets the header and the content.
fn tamper_with_a_file(good: &[u8], change: fn(&mut [u8], &mut [u8])) -> (String, Vec<u8>) {
    let mut parts = SnapshotParts::new(good);
    for item in parts.items.iter().filter(|item| item.shared.is_empty()) {
        for number in item.frames.0..=item.frames.1 {
            let frame = &parts.frames[number as usize];
            if frame.continues.is_some() {
                continue;
            }
            let mut raw = raw_bytes(frame);
            let Some(at) = small_file(&raw, &format!("{}/{}", parts.items_under, item.name)) else {
                continue;
            };
            let (headers, content) = raw.split_at_mut(at + 512);
            change(&mut headers[at..], content);
            let mut header = tar::Header::from_byte_slice(&headers[at..]).clone();
            header.set_cksum();
            headers[at..].copy_from_slice(header.as_bytes());
            let name = item.name.clone();
            parts.frames[number as usize] = snapshot_builder::frame(&raw);
            return (name, parts.build());
        }
    }
    panic!("no item has a small file");
}

/// Returns the offset of the header of a file of an item that has content, in the bytes of a frame.
fn small_file(raw: &[u8], item: &str) -> Option<usize> {
    let mut at = 0;
    while at + 512 <= raw.len() {
        let header = tar::Header::from_byte_slice(&raw[at..at + 512]);
        let size = header.entry_size().ok()? as usize;
        let path = header.path_bytes();
        let ours =
            path.starts_with(item.as_bytes()) && path.get(item.len()).is_none_or(|&b| b == b'/');
        if ours && header.entry_type().is_file() && size > 0 && at + 512 + size <= raw.len() {
            return Some(at);
        }
        at += 512 + size.next_multiple_of(512);
    }
    None
}

/// A change to the header and the content of a member.
type Change = fn(&mut [u8], &mut [u8]);

#[test]
fn verify_content_refuses_content_with_another_hash() {
    let content = |_: &mut [u8], content: &mut [u8]| content[0] ^= 1;
    // The mode begins at byte 100 of a header, in octal digits.
    let mode = |header: &mut [u8], _: &mut [u8]| header[104..107].iter_mut().for_each(|d| *d ^= 1);
    let changes: [Change; 2] = [content, mode];
    for role in ROLES {
        let world = filled(role);
        let saved = save(&world);
        let place = file(&world, &saved);
        let good = fs::read(&place).unwrap();
        world.wipe_store();
        let (before, pid) = (record_state(&world), world.daemon_pid());
        for change in changes {
            let (name, bytes) = tamper_with_a_file(&good, change);
            check(&bytes).unwrap();
            fs::write(&place, &bytes).unwrap();
            let failed = attempt(&world, "runner", "restore", &["--verify", "content"]);
            assert_eq!(failed.code(), 1, "{failed}");
            let report = report(&failed);
            assert_refused(
                &report,
                &format!("unpack: damaged: the content of {name} has the hash"),
            );
            assert_same(&before, &record_state(&world));
            assert_eq!(staging(&world), [""; 0]);
            assert_eq!(world.daemon_pid(), pid, "the daemon was restarted");
        }
        // Without the flag the change is not detected. The other snapshots were quarantined.
        fs::write(&place, tamper_with_a_file(&good, mode).1).unwrap();
        assert_eq!(restore(&world)["hit"], "exact");
    }
}
