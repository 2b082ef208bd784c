//! Tests of `key simulate` on git repositories: its results, and its handling of unusual repositories.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::support::git_history::{
    DAY, HOUR, History, Mark, Repository, WORKFLOW, history_of_ten_thousand_commits, workflow,
};
use crate::support::plain_env::{PlainEnv, binary, storecache_in};
use crate::support::world_runs::report;
use nix::pty::openpty;
use serde_json::{Value, json};

/// Returns the outcome of a policy.
#[track_caller]
fn policy<'r>(report: &'r Value, name: &str) -> &'r Value {
    let policies = report["policies"].as_array().unwrap();
    policies.iter().find(|it| it["policy"] == name).unwrap_or_else(|| panic!("no {name}: {report}"))
}

/// Returns the numbers of exact, stale and prefix hits and of misses of a policy.
#[track_caller]
fn hits(report: &Value, name: &str) -> [u64; 4] {
    ["exact", "stale", "prefix", "miss"].map(|field| policy(report, name)[field].as_u64().unwrap())
}

fn warnings(report: &Value) -> String {
    report["warnings"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect()
}

/// Returns a history with a run a day on `main`, with the given workflows.
fn daily(workflows: &[&str]) -> History {
    let mut history = History::default();
    for (day, text) in workflows.iter().enumerate() {
        history.commit("main", day as i64 * DAY, &[], &[(WORKFLOW, text)]);
    }
    history
}

#[test]
fn simulation_of_ten_thousand_commits_gives_exact_counts() {
    let repository = history_of_ten_thousand_commits().write();
    let started = Instant::now();
    let report = repository.simulate(&["--since", "2y", "--entry-size", "1MB"]);
    println!("10,000 commits with 200 edits: {:.2} s", started.elapsed().as_secs_f64());
    let expected = json!({
        "total": 10_000, "default_branch": 6200, "of_pull_requests": 3800, "on_other_branches": 0,
        "pull_requests": 200, "other_branches": 0, "moved": 0,
    });
    assert_eq!(report["runs"], expected);
    assert_eq!(report["states"], 200);
    // Pull requests find the key of main, and entries that are unused for a week expire.
    assert_eq!(hits(&report, "bytes"), [9800, 0, 199, 1]);
    assert_eq!(policy(&report, "bytes")["prefix_complete"], 99);
    assert_eq!(hits(&report, "semantic"), [9899, 0, 100, 1]);
    assert_eq!(hits(&report, "lock"), [9899, 100, 0, 1]);
    assert_eq!(hits(&report, "version"), [9899, 100, 0, 1]);
    for (name, entries, bytes) in [("bytes", 200, 200_000_000), ("semantic", 101, 101_000_000)] {
        let it = policy(&report, name);
        assert_eq!(
            (&it["entries_written"], &it["bytes_uploaded"]),
            (&json!(entries), &json!(bytes))
        );
        let last = it["series"].as_array().unwrap().last().unwrap();
        let kept = last["bytes_kept"].as_u64().unwrap() / 1_000_000;
        assert_eq!(it["expiries"].as_u64().unwrap(), entries - kept, "the rest has expired");
    }
    // 9 minutes for each full hit, half of that for each prefix hit.
    assert_eq!(policy(&report, "semantic")["minutes_saved"], 9899.0 * 9.0 + 100.0 * 4.5);
    assert_eq!(policy(&report, "bytes")["minutes_saved"], 9899.0 * 9.0 + 100.0 * 4.5);
    assert_eq!(report["best"]["policy"], "version");
}

#[test]
fn output_names_the_best_policy_and_all_assumptions() {
    let repository = history_of_ten_thousand_commits().write();
    let output = repository.attempt(&["--since", "90d", "--policy", "both=semantic+lock"]).ok();
    let mut lines = output.stdout.lines();
    let first = lines.next().unwrap();
    assert!(first.starts_with("2161 runs of .github/workflows/ci.yml from "), "{output}");
    assert!(first.contains(" on main, "), "{output}");
    let head = lines.nth(1).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    let columns =
        "policy exact stale prefix miss entries uploaded GB-hours evicted expired min saved";
    assert_eq!(head, columns);
    let names: Vec<_> =
        lines.by_ref().take(5).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["bytes", "semantic", "lock", "version", "both"]);
    assert!(lines.last().unwrap().starts_with("best: version: it "), "{output}");
    for words in [
        "every commit is a run",
        "an entry has 1.1 GB: a default, because no past snapshot shows it: see --entry-size",
        "the cache keeps 10.0 GiB, deletes entries unused for 7 days, and checks every hour",
        "10.0 minutes for its store after a miss",
    ] {
        assert!(output.stderr.contains(words), "{words}: {output}");
    }
    assert_eq!(repository.attempt(&["--quiet"]).ok().stderr, "");
}

#[test]
fn key_flags_add_a_policy_named_given() {
    let lock = |n: i64| format!("{{\"version\": {n}}}");
    let mut history = History::default();
    for day in 0..6 {
        let text = workflow("nix build", "same");
        history.commit(
            "main",
            day * DAY,
            &[],
            &[(WORKFLOW, &text), ("flake.lock", &lock(day / 2))],
        );
    }
    let repository = history.write();
    let report = repository.simulate(&["--hash-files", "flake.lock"]);
    assert_eq!(hits(&report, "given"), [3, 0, 2, 1]);
    assert_eq!(hits(&report, "lock"), [3, 0, 2, 1]);
    assert_eq!(hits(&report, "semantic"), [3, 2, 0, 1], "the lock file is not in its key");
    // The required content of the store can be given independently of the key.
    let report = repository.simulate(&["--truth", WORKFLOW]);
    assert_eq!(hits(&report, "semantic"), [5, 0, 0, 1]);
    assert_eq!(policy(&report, "lock")["prefix_complete"], 2);
}

#[test]
fn size_limit_evicts_and_idle_entries_expire() {
    let texts: Vec<String> = (0..6).map(|n| workflow(&format!("guix shell p{n}"), "")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let repository = daily(&texts).write();
    let report = repository.simulate(&["--entry-size", "4GB"]);
    let semantic = policy(&report, "semantic");
    // Two entries of 4 GB fit; the entry of the day before was used last.
    assert_eq!((&semantic["evictions"], &semantic["expiries"]), (&json!(3), &json!(0)));
    assert_eq!(semantic["peak_bytes"], 12_000_000_000u64);
    let report =
        repository.simulate(&["--entry-size", "4GB", "--idle-days", "1", "--limit", "1TB"]);
    assert_eq!(policy(&report, "semantic")["evictions"], 0);
    assert_eq!(policy(&report, "semantic")["expiries"], 3);
    // A delta takes a tenth, and keeps its base.
    let report = repository.simulate(&["--entry-size", "1GB", "--delta-share", "0.1"]);
    assert_eq!(policy(&report, "semantic")["bytes_uploaded"], 1_500_000_000u64);
}

#[test]
fn max_and_since_select_the_commits() {
    let text = workflow("make", "");
    let repository = daily(&[text.as_str(); 20]).write();
    let total = |more: &[&str]| repository.simulate(more)["runs"]["total"].as_u64().unwrap();
    assert_eq!(total(&[]), 20);
    assert_eq!(total(&["--max", "7"]), 7);
    assert_eq!(total(&["--since", "5d"]), 6);
    assert_eq!(total(&["--since", "2025-01-11"]), 10);
    let late = repository.attempt(&["--since", "2030-01-01", "--json"]).fails();
    assert_eq!(report(&late)["ok"], false);
    let lines = "error: there is no commit since 2030-01-01: the newest is of 2025-01-20\n\
                 hint: use an earlier --since\n";
    assert_eq!(late.stderr, lines);
}

#[test]
fn entry_size_defaults_to_the_mean_of_past_snapshots() {
    let place = PlainEnv::filled();
    place.save(&["/opt/tool"]);
    let size = fs::metadata(place.snapshot()).unwrap().len();
    let repository = daily(&[&workflow("make", "")]).write();
    let backend = format!("dir:{}", place.entries().display());
    let words = ["--backend", &backend, "--key-prefix", "test", "--json"];
    let none = report(&repository.attempt(&words).ok());
    assert_eq!(
        policy(&none, "semantic")["bytes_uploaded"],
        1u64 << 30,
        "test does not begin with test-"
    );
    place.attempt("save", &["/opt/tool"], &["--key", "mine-1"]).code();
    let copy = fs::read_dir(place.entries()).unwrap().next().unwrap().unwrap().path();
    let name = copy.file_name().unwrap().to_str().unwrap().replacen("test.", "test-1.", 1);
    fs::rename(&copy, place.entries().join(name)).unwrap();
    let some = report(&repository.attempt(&words).ok());
    assert_eq!(policy(&some, "semantic")["bytes_uploaded"], size);
    let assumptions = some["assumptions"].to_string();
    assert!(assumptions.contains("the mean of 1 snapshot in dir:"), "{assumptions}");
}

#[test]
fn missing_repository_or_commit_is_an_error_with_a_hint() {
    let empty = tempfile::tempdir().unwrap();
    let none = storecache_in(empty.path(), ["key", "simulate", "--json"]).fails();
    assert_eq!(report(&none)["ok"], false);
    let place = empty.path().display();
    let error = format!("error: {place} is not in a git repository");
    assert_eq!(none.messages(), [&*error, "hint: run this command in a git work tree"]);

    let unborn = History::default().write().attempt(&[]).fails();
    assert!(unborn.stderr.contains("there are no commits yet"), "{unborn}");
}

#[test]
fn invalid_flag_values_are_usage_errors() {
    let empty = tempfile::tempdir().unwrap();
    for words in [
        &["--since", "yesterday"][..],
        &["--policy", "mine"],
        &["--policy", "semantic=lock"],
        &["--policy", "a=lock", "--policy", "a=bytes"],
        &["--prefix-share", "2"],
        &["--entry-size", "large"],
        &["--max", "0"],
        &["--cold-minutes", "0.5"],
        &["--backend", "ftp:x"],
    ] {
        let output = storecache_in(empty.path(), ["key", "simulate"].iter().chain(words));
        assert_eq!(output.code(), 2, "{output}");
    }
}

#[test]
fn shallow_clone_is_simulated_with_a_warning() {
    let text = workflow("make", "");
    let origin = daily(&[text.as_str(); 9]).write();
    let report = origin.clone(&["--depth", "3"]).simulate(&[]);
    assert_eq!(report["runs"]["total"], 3);
    assert_eq!(hits(&report, "semantic"), [2, 0, 0, 1]);
    let warning = warnings(&report);
    assert!(
        warning.contains("the clone is shallow: only 3 commits of its history are here"),
        "{warning}"
    );
    assert!(warning.contains("git fetch --unshallow"), "{warning}");
    assert_eq!(origin.simulate(&[])["warnings"], json!([]));
}

#[test]
fn partial_clone_is_simulated_without_fetching() {
    let texts: Vec<String> =
        (0..5).map(|n| workflow(&format!("guix shell p{}", n / 2), "")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let origin = daily(&texts).write();
    let copy = origin.clone(&["--filter=blob:none"]);
    let objects = copy.git(&["count-objects", "-v"]);
    let report = copy.simulate(&[]);
    // The hashes of the blobs are known, so edits are detected nevertheless.
    assert_eq!(hits(&report, "bytes"), [2, 0, 2, 1]);
    assert_eq!(hits(&report, "semantic"), [2, 0, 2, 1]);
    let warning = warnings(&report);
    assert!(
        warning.contains("in 4 runs the content of .github/workflows/ci.yml is not in this"),
        "{warning}"
    );
    assert_eq!(copy.git(&["count-objects", "-v"]), objects);

    let treeless = origin.clone(&["--filter=tree:0"]).attempt(&[]).fails();
    assert!(treeless.stderr.contains("trees of some commits are missing"), "{treeless}");
    assert!(treeless.stderr.contains("git fetch --refetch"), "{treeless}");
}

#[test]
fn ambiguous_or_missing_workflow_must_be_named() {
    let keeps = workflow("make", "");
    let other = ".github/workflows/other.yml";
    let builds = keeps.replace("uses: example/storecache@v1", "run: echo");

    let mut history = History::default();
    history.commit("main", 0, &[], &[("README", "")]);
    let repository = history.write();
    let none = repository.attempt(&[]).fails();
    assert!(none.stderr.contains("there is no workflow in .github/workflows"), "{none}");
    let named = repository.attempt(&["--workflow", WORKFLOW]).fails();
    let words = "none of the commits has the workflow .github/workflows/ci.yml";
    assert!(named.stderr.contains(words), "{named}");
    // Other policies can be simulated without a workflow.
    let without = repository.simulate(&["--workflow-mode", "none"]);
    assert_eq!(without["policies"].as_array().unwrap().len(), 2);

    let mut history = History::default();
    history.commit("main", 0, &[], &[(WORKFLOW, &keeps), (other, &builds)]);
    assert_eq!(history.write().simulate(&[])["workflow"], WORKFLOW);

    let mut history = History::default();
    history.commit("main", 0, &[], &[(WORKFLOW, &keeps), (other, &keeps)]);
    let repository = history.write();
    let several = repository.attempt(&[]).fails();
    assert!(several.stderr.contains("note: they are .github/"), "{several}");
    assert_eq!(repository.simulate(&["--workflow", other])["workflow"], other);
}

#[test]
fn commits_without_the_workflow_are_not_runs() {
    let good = workflow("make", "");
    let mut history = History::default();
    history.commit("main", 0, &[], &[("README", "")]);
    history.commit("main", HOUR, &[], &[("README", "2")]);
    for (n, text) in [good.as_str(), "jobs: [", "jobs: [ ", &good].into_iter().enumerate() {
        history.commit("main", (n as i64 + 2) * HOUR, &[], &[(WORKFLOW, text)]);
    }
    let report = history.write().simulate(&[]);
    // A prefix hit whenever the key changes; the last state equals the first.
    assert_eq!(hits(&report, "semantic"), [1, 0, 2, 1]);
    let warning = warnings(&report);
    assert!(warning.contains("2 commits had no .github/workflows/ci.yml, so no run"), "{warning}");
    let words =
        "in 2 runs .github/workflows/ci.yml cannot be interpreted, so all of its bytes count";
    assert!(warning.contains(words), "{warning}");
}

#[test]
fn broken_current_workflow_is_an_error_unless_named() {
    let repository = daily(&[&workflow("make", ""), "on: push\njobs: [\n"]).write();
    let output = repository.attempt(&[]).fails();
    assert!(output.stderr.contains(".github/workflows/ci.yml:3:1: "), "{output}");
    let report = repository.simulate(&["--workflow", WORKFLOW]);
    assert_eq!(hits(&report, "semantic"), [0, 0, 1, 1]);
    assert!(warnings(&report).contains("in 1 run "), "{report}");
}

#[test]
fn large_workflow_is_simulated_with_exact_counts() {
    let steps = "      - run: make check\n".repeat(1 << 20 >> 5);
    let mut history = History::default();
    for n in 0..30 {
        let text = format!("{}{steps}", workflow(&format!("make {}", n / 10), ""));
        let other = n.to_string();
        let files = [(WORKFLOW, text.as_str()), (".github/workflows/other.yml", &other)];
        history.commit("main", n * HOUR, &[], &files);
    }
    let report = history.write().simulate(&["--workflow", WORKFLOW]);
    assert_eq!(hits(&report, "semantic"), [27, 0, 2, 1]);
    assert_eq!(report["warnings"], json!([]));
}

#[test]
fn changed_local_action_changes_the_semantic_key() {
    let calls = "on: push\njobs:\n  test:\n    runs-on: x\n    steps:\n      - uses: ./ci/setup\n\
                 \x20     - uses: example/storecache@v1\n";
    let action = |n: i64| {
        format!(
            "runs:\n  using: composite\n  steps:\n    - run: guix shell p{n}\n      shell: sh\n"
        )
    };
    let mut history = History::default();
    for n in 0..6 {
        let action = action(n / 3);
        let files = [(WORKFLOW, calls), ("ci/setup/action.yml", action.as_str())];
        history.commit("main", n * HOUR, &[], &files);
    }
    let report = history.write().simulate(&[]);
    assert_eq!(hits(&report, "semantic"), [4, 0, 1, 1]);
    assert_eq!(hits(&report, "bytes"), [4, 1, 0, 1], "its own bytes are the same");
}

/// Returns a history of `main` with two commits and this many branches on it with one commit each.
fn branches(count: i64) -> History {
    let mut history = History::default();
    let text = workflow("make", "");
    let first = history.commit("main", 0, &[], &[(WORKFLOW, &text)]);
    history.commit("main", HOUR, &[first], &[("a", "1")]);
    for n in 0..count {
        let text = workflow(&format!("make {n}"), "");
        history.commit(format!("topic/{n}"), 2 * HOUR + n, &[first], &[(WORKFLOW, &text)]);
    }
    history
}

#[test]
fn five_thousand_branches_count_as_separate_runs() {
    let mut history = branches(5000);
    // The overwritten commit still exists under the local name.
    let old = history.commit("moved", DAY, &[1], &[("b", "old")]);
    let new = history.commit("moved", 2 * DAY, &[1], &[("b", "new")]);
    history.reset("refs/remotes/origin/moved", new);
    history.reset("refs/heads/moved", old);
    let repository = history.write();
    let started = Instant::now();
    let report = repository.simulate(&["--entry-size", "1MB"]);
    println!("5,000 refs: {:.2} s", started.elapsed().as_secs_f64());
    assert_eq!(report["runs"]["total"], 5004);
    assert_eq!(report["runs"]["other_branches"], 5001);
    assert_eq!(report["runs"]["on_other_branches"], 5002);
    // Each branch finds main's entry by prefix, and never a sibling's; the moved branch has main's workflow.
    assert_eq!(hits(&report, "semantic"), [3, 0, 5000, 1]);
}

#[test]
fn detached_head_and_other_default_branch_are_supported() {
    let repository = branches(3).write();
    let detached = repository.git(&["rev-parse", "topic/2"]);
    repository.git(&["checkout", "--quiet", &detached]);
    repository.git(&["branch", "--quiet", "-D", "topic/2"]);
    let report = repository.simulate(&[]);
    assert_eq!((&report["default_branch"], &report["runs"]["total"]), (&json!("main"), &json!(5)));

    repository.git(&["branch", "--quiet", "-m", "main", "stable"]);
    let unknown = repository.attempt(&[]).fails();
    let words = "cannot determine the default branch among stable, topic/0, topic/1\n\
                 hint: name it with --default-branch";
    assert!(unknown.stderr.contains(words), "{unknown}");
    let report = repository.simulate(&["--default-branch", "stable"]);
    assert_eq!(report["runs"]["default_branch"], 2);
    let wrong = repository.attempt(&["--default-branch", "main"]).fails();
    assert!(wrong.stderr.contains("--default-branch main: no such branch"), "{wrong}");
    // A clone knows the remote's default branch.
    repository.git(&["checkout", "--quiet", "stable"]);
    assert_eq!(repository.clone(&[]).simulate(&[])["default_branch"], "stable");
}

#[test]
fn branch_without_a_commit_is_a_warning() {
    let repository = branches(1).write();
    let nowhere = format!("{}\n", "12".repeat(20));
    fs::write(repository.path().join(".git/refs/heads/bad"), nowhere).unwrap();
    let report = repository.simulate(&[]);
    assert_eq!(report["runs"]["total"], 3);
    assert_eq!(warnings(&report), "bad has no commit in this clone: see `git fsck`");
}

#[test]
fn commit_times_that_go_back_are_corrected() {
    let text = workflow("make", "");
    let mut history = History::default();
    for after in [0, DAY, -20 * 365 * DAY, 3 * DAY, 400 * 365 * DAY, 5 * DAY] {
        history.commit("main", after, &[], &[(WORKFLOW, &text)]);
    }
    let report = history.write().simulate(&[]);
    assert_eq!((&report["runs"]["total"], &report["runs"]["moved"]), (&json!(6), &json!(2)));
    assert_eq!(report["to"].as_i64().unwrap() - report["from"].as_i64().unwrap(), 5 * DAY);
    assert_eq!(hits(&report, "semantic"), [5, 0, 0, 1]);
}

#[test]
fn file_flags_are_relative_to_the_working_directory() {
    let text = workflow("make", "");
    let mut history = History::default();
    for n in 0..4 {
        let lock = (n / 2).to_string();
        let files = [(WORKFLOW, text.as_str()), ("below/deep/lock", &lock), ("lock", "1")];
        history.commit("main", n * HOUR, &[], &files);
    }
    let repository = history.write();
    repository.git(&["checkout", "--quiet", "--force", "main"]);
    let below = repository.path().join("below/deep");
    let attempt = |more: &[&str]| {
        report(
            &repository
                .attempt_in(&below, &[more, &["--json", "--hash-files", "lock"]].concat())
                .ok(),
        )
    };
    assert_eq!(hits(&attempt(&[]), "given"), [2, 0, 1, 1]);
    let named = attempt(&["--workflow", "../../.github/workflows/ci.yml"]);
    assert_eq!((&named["workflow"], hits(&named, "given")), (&json!(WORKFLOW), [2, 0, 1, 1]));
    let outside = repository.attempt_in(&below, &["--workflow", "/etc/ci.yml"]).fails();
    assert!(outside.stderr.contains("/etc/ci.yml is outside the work tree"), "{outside}");
}

#[test]
fn file_and_branch_names_may_be_any_bytes() {
    let mut history = History::default();
    let text = workflow("make", "");
    let odd = [
        &b"\"two\\nlines\""[..],
        b"\"caf\\351\"",
        b"\".github/\\377/action.yml\"",
        b"\"a b\\\"c\"",
    ];
    for n in 0..4 {
        let content = format!("{}", n / 2);
        let names = odd.iter().map(|name| (name.to_vec(), content.as_bytes()));
        let own = (WORKFLOW.as_bytes().to_vec(), text.as_bytes());
        history.commit_bytes(b"main", n * HOUR, &[], names.chain([own]));
        let branch: &[u8] = b"caf\xe9";
        history.commit_bytes(
            branch,
            n * HOUR + 1,
            &[],
            [(WORKFLOW.as_bytes().to_vec(), text.as_bytes())],
        );
    }
    let repository = history.write();
    let report = repository.simulate(&["--hash-files", "{two,caf}*", "--hash-files", "a b\"c"]);
    // The files changed once on main, and the branch does not have them.
    assert_eq!(hits(&report, "given"), [5, 0, 2, 1]);
    assert_eq!(report["runs"]["other_branches"], 1);
}

#[test]
fn sha256_repositories_and_links_are_supported() {
    let mut history = History::default();
    let text = workflow("make", "");
    let mut tip: Mark = 0;
    for n in 0..4 {
        let lock = (n / 2).to_string();
        let files = [(WORKFLOW, text.as_str()), ("real/pins", &lock)];
        tip = history.commit("main", n * HOUR, &[], &files);
    }
    assert_eq!(tip, 4);
    let repository = history.write_as("sha256");
    repository.git(&["checkout", "--quiet", "--force", "main"]);
    std::os::unix::fs::symlink("real/pins", repository.path().join("flake.lock")).unwrap();
    repository.git(&["add", "flake.lock"]);
    let author = ["-c", "user.name=A", "-c", "user.email=a@example.org"];
    repository.git(&[&author[..], &["commit", "--quiet", "-m", "x"]].concat());
    let report = repository.simulate(&["--since", "2025-01-01"]);
    assert_eq!(report["runs"]["total"], 5);
    // The link's target changed once, before the link was created.
    assert_eq!(hits(&report, "lock")[3] + hits(&report, "lock")[2], 3);
}

#[test]
fn as_triggered_leaves_out_runs_without_a_trigger() {
    let text = workflow("make", "").replace("[push, pull_request]", "pull_request");
    let mut history = History::default();
    let first = history.commit("main", 0, &[], &[(WORKFLOW, &text)]);
    let mut tip = first;
    for n in 1..4 {
        let side = history.commit("topic", n * DAY, &[tip], &[("a", &n.to_string())]);
        tip = history.commit("main", n * DAY + HOUR, &[tip, side], &[]);
    }
    history.reset("refs/heads/topic", tip);
    let repository = history.write();
    let report = repository.simulate(&[]);
    assert_eq!(hits(&report, "semantic"), [6, 0, 0, 1]);
    let words = "for 4 runs the current workflow has no trigger, including those of the default branch, \
                 whose entries all branches could read: see --as-triggered";
    assert_eq!(warnings(&report), words);
    // Nothing is pushed to main, so each pull request begins with a miss.
    let report = repository.simulate(&["--as-triggered"]);
    assert_eq!(hits(&report, "semantic"), [0, 0, 0, 3]);
    assert_eq!(report["warnings"], json!([]));
}

#[test]
fn progress_is_shown_on_a_terminal_unless_quiet() {
    let text = workflow("make", "");
    let repository = daily(&[text.as_str(); 9]).write();
    let shown = |more: &[&str]| {
        let terminal = openpty(None, None).unwrap();
        let mut command = Command::new(binary());
        command.args(["key", "simulate"]).args(more).current_dir(repository.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(terminal.slave);
        let mut child = command.spawn().unwrap();
        // Now only the child has the other end open.
        drop(command);
        let mut shown = Vec::new();
        // Reading from a terminal without writers ends with an error.
        let _ = File::from(terminal.master).read_to_end(&mut shown);
        assert!(child.wait().unwrap().success());
        String::from_utf8_lossy(&shown).into_owned()
    };
    let bars = shown(&[]);
    assert!(bars.contains("commits [") && bars.contains("/9 "), "{bars:?}");
    assert_eq!(shown(&["--quiet"]), "");
    let piped = repository.attempt(&[]).ok();
    assert!(!piped.stderr.contains("commits ["), "{piped}");
}

#[test]
fn simulate_does_not_write_to_the_repository() {
    let repository = branches(2).write();
    let shape = |repository: &Repository| {
        let mut names: Vec<_> = all_paths_below(&repository.path()).into_iter().collect();
        names.sort();
        names
    };
    let before = shape(&repository);
    repository.simulate(&[]);
    assert_eq!(shape(&repository), before);
}

/// Returns all paths below a directory.
fn all_paths_below(directory: &std::path::Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        found.push(path.as_os_str().as_bytes().to_vec());
        if path.is_dir() {
            found.extend(all_paths_below(&path));
        }
    }
    found
}
