//! Tests of each rule of `lint`: the findings, and similar workflows that are correct.

use crate::support::workflows::{GOOD, findings, findings_of_steps, json_findings, tree};

/// Returns the rules that fire for a job with a cache of a store and these further steps, each with its line
/// number, counted from the first of the steps.
fn rules_of(steps: &str) -> Vec<String> {
    let top = "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v4\n\
               \x20     - uses: me/storecache@v1\n        with:\n          store: guix\n          key: guix-1.5.0-x64\n";
    let found = json_findings(&tree(&[("ci.yml", &format!("{top}{steps}"))]));
    let rules = found.iter().map(|it| {
        format!("{} {}", it["line"].as_u64().unwrap() - 10, it["rule"].as_str().unwrap())
    });
    rules.collect()
}

fn script(lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("          {line}\n")).collect();
    format!("      - run: |\n{lines}")
}

#[test]
fn daemon_left_stopped_by_a_failed_command_is_reported() {
    let after = "      - run: guix build hello\n";
    let with = |lines: &[&str]| rules_of(&(script(lines) + after));
    let (stop, start) = ("sudo systemctl stop guix-daemon", "sudo systemctl start guix-daemon");
    assert_eq!(with(&[stop, "x", start]), ["2 daemon-stopped"]);
    assert_eq!(with(&["sudo herd stop guix-daemon", "x"]), ["2 daemon-stopped"]);
    assert_eq!(with(&[stop]), ["2 daemon-stopped"]);
    for good in [
        &[stop, start][..],
        &["trap 'sudo systemctl start guix-daemon' EXIT", stop, "x", start],
        &["set +e", stop, "x", start],
        &["sudo systemctl stop apt-daily.timer", "x"],
        &["echo guix-daemon"],
    ] {
        assert_eq!(with(good), [""; 0], "{good:?}");
    }
    // The daemon is not needed any more.
    assert_eq!(rules_of(&script(&[stop, "x"])), [""; 0]);
    let later = |condition: &str| {
        rules_of(&format!("{}      - run: {start}\n{condition}{after}", script(&[stop, "x"])))
    };
    assert_eq!(later(""), ["2 daemon-stopped"]);
    assert_eq!(later("        if: always()\n"), [""; 0]);
}

#[test]
fn tar_and_copy_findings_depend_on_earlier_commands() {
    let with = |lines: &[&str]| rules_of(&script(lines));
    let stop = "sudo systemctl stop guix-daemon";
    let create = "sudo tar -cf /tmp/s.tar -C / gnu/store var/guix/db";
    assert_eq!(with(&[create]), ["2 tar"]);
    assert_eq!(with(&[stop, create]), ["3 no-roots"]);
    assert_eq!(with(&[stop, &format!("{create} var/guix/profiles var/guix/gcroots")]), [""; 0]);
    assert_eq!(with(&["sudo tar -cf /tmp/s.tar /gnu/store"]), ["2 tar"], "no database");
    let extract = "sudo tar -xf /tmp/s.tar -C / gnu/store var/guix/db";
    assert_eq!(with(&[extract]), ["2 tar"]);
    let careful = [
        stop,
        "sudo mount -o remount,rw /gnu/store",
        "sudo rm -f /var/guix/db/db.sqlite-wal",
        extract,
    ];
    assert_eq!(with(&careful), ["5 tar"]);
    assert_eq!(with(&["sudo cp /tmp/db.sqlite /var/guix/db/db.sqlite"]), ["2 database"]);
    assert_eq!(with(&["sudo cp /var/guix/db/db.sqlite /tmp"]), ["2 database"]);
    assert_eq!(with(&[stop, "sudo cp /var/guix/db/db.sqlite /tmp"]), [""; 0]);
    assert_eq!(with(&["sudo sqlite3 /var/guix/db/db.sqlite '.backup /tmp/db'"]), [""; 0]);
}

#[test]
fn changed_owners_and_store_copies_are_reported() {
    let with = |line: &str| rules_of(&script(&[line]));
    for bad in [
        "sudo chown -R $USER /gnu/store",
        "sudo chmod -R 777 /gnu",
        "sudo chown --recursive me /var/guix",
    ] {
        assert_eq!(with(bad), ["2 owners"], "{bad}");
    }
    for copy in ["sudo cp -a /gnu/store /tmp/stage", "sudo rsync -a /gnu/store/ /tmp/stage/"] {
        assert_eq!(with(copy), ["2 staging"], "{copy}");
    }
    for good in [
        "sudo chown -R root:root /gnu/store",
        "sudo chown $USER /gnu/store",
        "sudo chown -R $USER ./result",
        "cp -r /gnu/store/abc-hello/share .",
        "sudo chmod -R a+rX /gnu",
    ] {
        assert_eq!(with(good), [""; 0], "{good}");
    }
}

#[test]
fn container_without_the_store_is_reported() {
    let with = |line: &str| rules_of(&script(&[line]));
    assert_eq!(with("docker run --rm guix-image make"), ["2 container"]);
    assert_eq!(
        with("docker run -v /gnu/store:/gnu/store -v /var/guix:/var/guix guix-image"),
        [""; 0]
    );
    assert_eq!(with("docker run --rm postgres"), [""; 0]);
    assert_eq!(rules_of("      - uses: docker://example/guix:1.5.0\n"), ["1 container"]);
    for host in ["guix build hello", "sudo -E guix pull -C x", "sudo apt-get install -y guix"] {
        let both = script(&[host, "docker run --rm guix-image make"]);
        assert_eq!(rules_of(&both), [""; 0], "{host}");
    }
}

#[test]
fn unpinned_versions_are_reported_for_custom_keys() {
    let with = |line: &str| rules_of(&script(&[line]));
    for moving in [
        "curl -L https://nixos.org/nix/install | sh",
        "curl -sSf -L https://install.determinate.systems/nix | sh -s -- install",
        "wget https://guix.example/guix-install.sh && bash guix-install.sh",
        "nix-shell -I nixpkgs=channel:nixos-unstable",
        "guix pull",
        "guix time-machine -- build hello",
    ] {
        assert_eq!(with(moving), ["2 unpinned"], "{moving}");
    }
    for pinned in [
        "curl -L https://releases.nixos.org/nix/nix-2.30.1/install | sh",
        "curl -sSf -L https://install.determinate.systems/nix/tag/v3.8.4 | sh -s -- install",
        "guix pull --commit=abc",
        "guix time-machine -C channels.scm -- build hello",
        "nix-shell -I nixpkgs=channel:nixos-25.05",
        "curl -L https://example.com/releases/latest/tool | sh",
    ] {
        assert_eq!(with(pinned), [""; 0], "{pinned}");
    }
    assert_eq!(rules_of("      - uses: cachix/install-nix-action@master\n"), ["1 unpinned"]);
    // storecache's key contains the installed version.
    let ours = GOOD.replace("guix shell hello -- hello", "guix pull");
    assert_eq!(findings(&[("ci.yml", &ours)]), [""; 0]);
}

#[test]
fn fixed_and_volatile_keys_are_reported() {
    let with = |action: &str, key: &str, more: &str| {
        findings_of_steps(&format!(
            "      - uses: {action}@v4\n        with:\n          path: nix-store.nar\n          key: {key}\n{more}"
        ))
    };
    let cache = "actions/cache";
    let sha = "nix-store-2.30.1-x64-${{ github.sha }}";
    let prefix = "          restore-keys: nix-store-2.30.1-x64-\n";
    assert_eq!(with(cache, "nix-store-x64", ""), ["ci.yml 9 warning fixed-key"]);
    assert_eq!(with(cache, "nix-store-2.30.1-x64", ""), [""; 0]);
    assert_eq!(with(cache, sha, ""), ["ci.yml 9 error volatile-key"]);
    assert_eq!(with(cache, sha, prefix), ["ci.yml 9 warning volatile-key"]);
    assert_eq!(with("actions/cache/restore", sha, prefix), [""; 0]);
    assert_eq!(with("actions/cache/restore", sha, ""), ["ci.yml 9 error volatile-key"]);
    let time = |format: &str| {
        findings_of_steps(&format!(
            "      - id: now\n        run: echo at=$(date +{format}) >> $GITHUB_OUTPUT\n      - uses: actions/cache@v4\n\
             \x20       with:\n          path: nix-store.nar\n          key: nix-store-2.30.1-x64-${{{{ steps.now.outputs.at }}}}\n"
        ))
    };
    assert_eq!(time("%s"), ["ci.yml 11 error volatile-key"]);
    assert_eq!(time("%Y-%W"), [""; 0]);
    // A job passes its store on to the next job of the run.
    let handed = format!(
        "on: push\njobs:\n  a:\n    steps:\n      - uses: actions/cache/save@v4\n        if: always()\n        with: &it\n\
         \x20         path: nix-store.nar\n          key: {sha}\n  b:\n    steps:\n\
         \x20     - uses: actions/cache/restore@v4\n        with: *it\n"
    );
    assert_eq!(findings(&[("ci.yml", &handed)]), [""; 0]);
}

#[test]
fn different_paths_under_one_key_are_reported() {
    let step = |part: &str, paths: &str| {
        format!(
            "      - uses: actions/cache/{part}@v4\n        if: always()\n        with:\n          path: |\n{}          key: nix-store-2.30.1-x64-${{{{ hashFiles('flake.lock') }}}}\n",
            paths.split(' ').map(|path| format!("            {path}\n")).collect::<String>()
        )
    };
    let both =
        |one: &str, other: &str| findings_of_steps(&(step("restore", one) + &step("save", other)));
    assert_eq!(both("a b", "a b"), [""; 0]);
    assert_eq!(both("a b", "b a"), ["ci.yml 16 error path-version"]);
    assert_eq!(both("a", "a b"), ["ci.yml 15 error path-version"]);
    let whole = |step: String| {
        format!("on: push\njobs:\n  a:\n    steps:\n      - uses: actions/checkout@v4\n{step}")
    };
    let two = [("a.yml", whole(step("restore", "a"))), ("b.yml", whole(step("save", "b")))];
    let two: Vec<_> = two.iter().map(|(name, text)| (*name, text.as_str())).collect();
    assert_eq!(findings(&two), ["b.yml 9 error path-version"]);
}

#[test]
fn matrix_jobs_that_share_a_key_are_reported() {
    let ours = |matrix: &str, inputs: &str| {
        findings(&[(
            "ci.yml",
            &format!(
                "on: push\njobs:\n  a:\n    strategy:\n      matrix: {matrix}\n    runs-on: ${{{{ matrix.os || 'ubuntu-latest' }}}}\n\
                 \x20   steps:\n      - uses: actions/checkout@v4\n      - uses: me/storecache@v1\n        with:\n\
                 \x20         store: nix\n{inputs}"
            )
            .replace("${{ matrix.os || 'ubuntu-latest' }}", if matrix.contains("os:") { "${{ matrix.os }}" } else { "ubuntu-latest" }),
        )])
    };
    assert_eq!(ours("{package: [a, b]}", ""), ["ci.yml 9 warning matrix-key"]);
    for good in [
        "          key-prefix: x-${{ matrix.package }}\n",
        "          save: never\n",
        "        if: matrix.package == 'a'\n",
        "          hash-files: ${{ matrix.package }}.nix\n",
    ] {
        assert_eq!(ours("{package: [a, b]}", good), [""; 0], "{good}");
    }
    assert_eq!(ours("{os: [ubuntu-latest, macos-14]}", ""), [""; 0], "the key has the system");
    assert_eq!(ours("${{ fromJSON(vars.PACKAGES) }}", ""), [""; 0], "the matrix is unknown");
    let own = "{os: [own-x64, own-arm]}";
    assert_eq!(ours(own, ""), [""; 0]);
    assert_eq!(ours(own, "          key: nix-2.30.1-${{ runner.arch }}\n"), [""; 0]);
    let two = "{os: [ubuntu-latest, ubuntu-24.04-arm]}";
    let key = |key: &str| ours(two, &format!("          key: {key}\n"));
    assert_eq!(key("nix-2.30.1"), ["ci.yml 12 error key-system"]);
    assert_eq!(key("nix-2.30.1-x86_64"), ["ci.yml 12 error key-system"]);
    assert_eq!(key("nix-2.30.1-${{ matrix.os }}"), [""; 0]);
    assert_eq!(key("nix-2.30.1-${{ runner.arch }}"), [""; 0]);
    assert_eq!(key("nix-2.30.1-${{ runner.os }}"), ["ci.yml 12 error key-system"]);
}

#[test]
fn keys_beyond_the_service_limits_are_reported() {
    let with = |key: &str, prefixes: usize| {
        let more: String = (0..prefixes).map(|n| format!("            nix-store-{n}\n")).collect();
        findings_of_steps(&format!(
            "      - uses: actions/cache@v4\n        with:\n          path: nix-store.nar\n          key: nix-store-2.30.1-x64-{key}\n\
             \x20         restore-keys: |\n{more}"
        ))
    };
    assert_eq!(with("a", 9), [""; 0]);
    assert_eq!(with("a", 10), ["ci.yml 20 error key-limits"]);
    assert_eq!(with("a,b", 1), ["ci.yml 9 error key-limits"]);
    assert_eq!(with("${{ format('{0}', 'x') }}", 1), [""; 0]);
    assert_eq!(with(&"x".repeat(600), 1), ["ci.yml 9 error key-limits"]);
}

#[test]
fn steps_that_never_save_or_only_on_success_are_reported() {
    let with = |on: &str, steps: &str| {
        let text =
            format!("{on}\njobs:\n  a:\n    steps:\n      - uses: actions/checkout@v4\n{steps}");
        let seed = format!(
            "on: push\njobs:\n  a:\n    steps:\n      - uses: actions/checkout@v4\n{}",
            save("always()", "")
        );
        let found = findings(&[("ci.yml", &text), ("seed.yml", &seed)]);
        found.iter().map(|it| it.replace("ci.yml ", "")).collect::<Vec<_>>()
    };
    fn step(action: &str) -> String {
        format!(
            "      - uses: {action}@v4\n        with:\n          path: nix-store.nar\n          key: nix-store-2.30.1-x64-a\n"
        )
    }
    fn save(condition: &str, after: &str) -> String {
        format!("{}        if: {condition}\n{after}", step("actions/cache/save"))
    }
    let run = "      - run: make check\n";
    assert_eq!(with("on: issue_comment", &step("actions/cache")), ["6 warning read-only-token"]);
    assert_eq!(with("on: issue_comment", &step("actions/cache/restore")), [""; 0]);
    assert_eq!(with("on: [push, issue_comment]", &step("actions/cache")), [""; 0]);
    assert_eq!(
        with("on: push\ncache-mode: read", &step("actions/cache")),
        ["7 warning read-only-token"]
    );
    assert_eq!(with("on: issue_comment\ncache-mode: write", &step("actions/cache")), [""; 0]);
    assert_eq!(with("on: push", &(step("actions/cache") + run)), ["6 warning success-only"]);
    assert_eq!(
        with("on: push", &save("github.ref_name == 'main'", "")),
        ["6 warning success-only"]
    );
    for good in [
        save("always()", ""),
        save("${{ !cancelled() }}", ""),
        save("github.ref_name == 'main'", run),
    ] {
        assert_eq!(with("on: push", &good), [""; 0], "{good}");
    }
}

#[test]
fn mistakes_in_the_storecache_step_are_reported() {
    let with = |inputs: &str| {
        findings_of_steps(&format!("      - uses: me/storecache@v1\n        with:\n{inputs}"))
    };
    assert_eq!(with("          hash-flies: flake.lock\n"), ["ci.yml 8 error unknown-input"]);
    assert_eq!(with("          Hash-Files: flake.lock\n          store: nix\n"), [""; 0]);
    let keep = |permissions: &str| {
        findings(&[(
            "ci.yml",
            &format!(
                "on: push\n{permissions}jobs:\n  a:\n    steps:\n      - uses: actions/checkout@v4\n      - uses: me/storecache@v1\n        with:\n          keep: 2\n"
            ),
        )])
    };
    assert_eq!(keep(""), [""; 0], "the settings of the repository decide");
    assert_eq!(keep("permissions: write-all\n"), [""; 0]);
    assert_eq!(keep("permissions: {actions: write}\n"), [""; 0]);
    for little in ["permissions: read-all\n", "permissions: {}\n", "permissions: {actions: read}\n"]
    {
        assert_eq!(keep(little), ["ci.yml 9 warning permissions"], "{little}");
    }
    let early = |inputs: &str| {
        findings(&[(
            "ci.yml",
            &format!(
                "on: push\njobs:\n  a:\n    steps:\n      - uses: me/storecache@v1\n        with:\n          store: nix\n{inputs}      - uses: actions/checkout@v4\n"
            ),
        )])
    };
    assert_eq!(early(""), ["ci.yml 5 warning before-checkout"]);
    assert_eq!(early("          hash-files: flake.lock\n"), ["ci.yml 5 error before-checkout"]);
    assert_eq!(early("          workflow-mode: none\n"), [""; 0]);
    assert_eq!(early("          key: nix-2.30.1-x64\n"), [""; 0]);
}
