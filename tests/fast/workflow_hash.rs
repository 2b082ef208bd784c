//! Tests of the semantic hash of workflows: which edits keep the key, and which change it.
//!
//! The table has edits of the kinds that public projects make, each with the pull request that made one, or
//! with two commits between which it was made, if we know any. The workflows in `tests/workflows` are our own
//! and small.

use std::fs;
use std::path::Path;

use crate::support::Output;
use crate::support::plain_env::storecache_in;
use crate::support::world_runs::report;
use serde_json::Value;
use tempfile::TempDir;

/// The expected effect of an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Same,
    Other,
}
use Key::{Other, Same};

const GUIX: &str = ".github/workflows/guix.yml";
const NIX: &str = ".github/workflows/nix.yml";
const CALLS: &str = ".github/workflows/calls.yml";
const CALLED: &str = ".github/workflows/called.yml";
const TOOLCHAIN: &str = ".github/actions/toolchain/action.yml";
const DIRENV: &str = ".github/actions/direnv/action.yml";

/// An edit: an example of it and what it changes, the file, and the replacements in the file.
struct Pair {
    fact: &'static str,
    file: &'static str,
    edits: &'static [(&'static str, &'static str)],
    key: Key,
}

const fn pair(
    key: Key,
    file: &'static str,
    edits: &'static [(&'static str, &'static str)],
    fact: &'static str,
) -> Pair {
    Pair { fact, file, edits, key }
}

const PAIRS: &[Pair] = &[
    // Comments, names and white space.
    pair(
        Same,
        GUIX,
        &[
            ("# A client in Guile", "# Scaffolding: a client in Guile"),
            ("          # The mirror is slow at night.\n", ""),
        ],
        "NixOS/nixpkgs#483727, MSF-OCB/NixOS#75: comments, in the file and in a script",
    ),
    pair(
        Same,
        GUIX,
        &[("target: [x86_64", "# host: [riscv64-linux-gnu]\n        target: [x86_64")],
        "dashpay/dash, 6afc75f to 00a01fe: a line of a matrix that is a comment",
    ),
    pair(
        Same,
        GUIX,
        &[("    name: Interop with Guile\n", ""), ("name: Guile interop", "name: Guix/Guile 3.0")],
        "artyom-poptsov/guile-ssh, 12d0400 to c6af55a: names of jobs",
    ),
    pair(
        Same,
        GUIX,
        &[
            ("- name: Fetch Guix\n        if", "- if"),
            ("      - name: Build\n", "      - name: Build it\n"),
        ],
        "graelo/pumas#81, nilearn/nilearn#4006: names of steps",
    ),
    pair(
        Same,
        GUIX,
        &[("  sources:", "  fetch-sources:"), ("needs: [sources]", "needs: fetch-sources")],
        "Amsterdam/design-system#2731: another job gets another id",
    ),
    pair(
        Same,
        GUIX,
        &[
            ("${{matrix.target}}", "${{ matrix.target }}"),
            ("[x86_64-linux-gnu, aarch64", "[ x86_64-linux-gnu,  aarch64"),
        ],
        "NixOS/nixpkgs#416115, OSGeo/grass#5543: a formatter",
    ),
    pair(
        Same,
        GUIX,
        &[
            ("GUIX_VERSION: 1.5.0", "GUIX_VERSION: \"1.5.0\""),
            ("GUILE_AUTO_COMPILE: 0", "GUILE_AUTO_COMPILE: '0'"),
        ],
        "(our own) quotes",
    ),
    pair(
        Same,
        NIX,
        &[(
            "run: |\n          nix flake check --keep-going\n",
            "run: nix flake check --keep-going\n",
        )],
        "(our own) a literal block of one line",
    ),
    pair(
        Same,
        NIX,
        &[(
            "run: >-\n          nix build --print-build-logs\n          .#default",
            "run: nix build --print-build-logs .#default",
        )],
        "(our own) a folded block",
    ),
    // When and how it runs.
    pair(
        Same,
        GUIX,
        &[
            ("timeout-minutes: 45", "timeout-minutes: 90"),
            (
                "uses: docker/setup-buildx-action@v1",
                "uses: docker/setup-buildx-action@v1\n        timeout-minutes: 5",
            ),
        ],
        "josh/lazy-nvim-nix#2957, iorate/ublacklist#869: minutes of a job and a step",
    ),
    pair(
        Same,
        GUIX,
        &[(
            "concurrency:\n  group: ${{ github.workflow }}-${{ github.ref }}\n  cancel-in-progress: true\n",
            "concurrency: \"${{ github.head_ref ||  github.ref }}\"\n",
        )],
        "numtide/nixpkgs-unfree#19, nix-ocaml/nix-overlays#562: concurrency",
    ),
    pair(
        Same,
        GUIX,
        &[(
            "cancel-in-progress: true",
            "cancel-in-progress: ${{ github.event_name == 'pull_request' }}",
        )],
        "purpleclay/go-overlay#483: what is cancelled",
    ),
    pair(
        Same,
        NIX,
        &[
            ("    branches: [main]\n", "    # branches: [main]\n"),
            ("  pull_request:\n", "  schedule:\n    - cron: '0 12 * * 1'\n"),
        ],
        "artyom-poptsov/guile-ssh, 12d0400 to c6af55a; cprussin/dotfiles#13: branches and a schedule",
    ),
    pair(
        Same,
        GUIX,
        &[(
            "      - \"packages/net/**\"\n",
            "      - \"packages/net/**\"\n      - '**/Cargo.lock'\n",
        )],
        "fiffeek/hyprdynamicmonitors#120: paths of a trigger",
    ),
    pair(
        Same,
        GUIX,
        &[
            ("        default: false", "        default: true"),
            ("description: What the shell has", "description: Packages"),
        ],
        "dashpay/dash#7628: inputs of a run by hand that this job does not use",
    ),
    pair(
        Same,
        GUIX,
        &[
            ("permissions:\n  contents: read\n\n", "permissions: {}\n\n"),
            (
                "    timeout-minutes: 45\n",
                "    timeout-minutes: 45\n    permissions:\n      contents: read\n",
            ),
        ],
        "endojs/endo#3252, dependabot/proxy#10: permissions",
    ),
    pair(
        Same,
        GUIX,
        &[
            ("    if: github.event_name != 'schedule'\n", ""),
            ("fail-fast: false", "fail-fast: true\n      max-parallel: 2"),
        ],
        "cprussin/dotfiles#15: a condition of the whole job",
    ),
    // Pinned versions of actions that do not reach the store.
    pair(
        Same,
        GUIX,
        &[
            (
                "Checkout\n        uses: actions/checkout@v4",
                "Checkout\n        uses: actions/checkout@34e114876b0b11c390a56381ad16ebd13914f8d5 # v4",
            ),
            ("actions/cache@v3", "actions/cache@caa296126883cff596d87d8935842f9db880ef25 # v5.1.0"),
            ("actions/upload-artifact@v3", "actions/upload-artifact@v4"),
        ],
        "dashpay/dash#7475, endojs/endo#3252: tags become commits",
    ),
    pair(
        Same,
        GUIX,
        &[("          fetch-depth: 0\n", "          persist-credentials: false\n")],
        "getsops/sops#1704, elastic/rally#2062: tokens that are not kept",
    ),
    pair(
        Same,
        GUIX,
        &[(
            "          name: out\n          path: out\n",
            "          name: logs\n          path: '**/logs/**'\n          retention-days: 5\n",
        )],
        "dashpay/dash#6197: artifacts",
    ),
    pair(
        Same,
        GUIX,
        &[("me/storecache@v1", "me/storecache@v2"), ("save: always", "save: never")],
        "(our own) how storecache saves",
    ),
    pair(
        Same,
        GUIX,
        &[("sha256sum out/*", "sha512sum out/*"), ("make download", "make -C contrib download")],
        "cprussin/dotfiles#15: other jobs of the workflow",
    ),
    // Values that reach the store.
    pair(
        Other,
        GUIX,
        &[("default: guile guile-goblins", "default: guile-next guile-goblins")],
        "dashpay/dash#7628: an input of a run by hand that the job uses",
    ),
    pair(
        Other,
        GUIX,
        &[("GUIX_VERSION: 1.5.0", "GUIX_VERSION: 1.4.0")],
        "endojs/endo#3242: the version of Guix, in the workflow's env",
    ),
    pair(
        Other,
        GUIX,
        &[("GUILE_AUTO_COMPILE: 0", "GUILE_AUTO_COMPILE: 1")],
        "(our own) a job's env",
    ),
    pair(
        Other,
        GUIX,
        &[(
            "SUBSTITUTE_URLS: https://bordeaux.guix.gnu.org",
            "SUBSTITUTE_URLS: https://guix.fish.foo",
        )],
        "endojs/endo, 6fbe091 to 00f5ee3; fanquake/core-review#41: a step's env",
    ),
    pair(
        Other,
        GUIX,
        &[(
            "https://bordeaux.guix.gnu.org https://ci.guix.gnu.org'",
            "https://ci.guix.gnu.org https://bordeaux.guix.gnu.org'",
        )],
        "endojs/endo, ocapn-guile-interop.yml hardened again: the order of substitute servers",
    ),
    pair(
        Other,
        GUIX,
        &[("--max-time 120", "--max-time 240")],
        "endojs/endo, ocapn-guile-interop.yml hardened again: a limit in a script",
    ),
    pair(
        Other,
        GUIX,
        &[("--build-users-group=guixbuild", "--build-users-group=guixbuild --max-jobs=32")],
        "endojs/endo#3242; dashpay/dash, 6afc75f to 00a01fe: flags of the daemon",
    ),
    pair(
        Other,
        GUIX,
        &[(
            "  interop:\n    name: Interop with Guile\n    needs: [sources]\n    if: github.event_name != 'schedule'\n    runs-on: ubuntu-24.04",
            "  interop:\n    runs-on: self-hosted",
        )],
        "dashpay/dash, 6afc75f to 00a01fe: the runner",
    ),
    pair(
        Other,
        GUIX,
        &[(", i686-linux-gnu]", "]")],
        "monero-project/monero, e4c0e63 to 0516b48: a value of the matrix",
    ),
    pair(
        Other,
        GUIX,
        &[("docker/setup-buildx-action@v1", "docker/setup-buildx-action@v3")],
        "dashpay/dash#5602: the version of an action that may reach the store",
    ),
    pair(
        Other,
        GUIX,
        &[("if: steps.tarball.outputs.cache-hit != 'true'", "if: always()")],
        "endojs/endo#3264: the guard of a step",
    ),
    pair(
        Other,
        GUIX,
        &[("          # not a comment\n", "")],
        "(our own) a line of a string in Python",
    ),
    pair(Other, GUIX, &[("shell: python", "shell: bash")], "(our own) the language of a script"),
    pair(
        Other,
        GUIX,
        &[("fetch-depth: 0", "submodules: recursive")],
        "(our own) what is checked out",
    ),
    pair(
        Other,
        GUIX,
        &[(
            "      - name: Start the daemon",
            "      - run: sudo apt -y purge apparmor\n      - name: Start the daemon",
        )],
        "DeterminateSystems/magic-nix-cache-action#20: a new step",
    ),
    pair(
        Other,
        GUIX,
        &[
            (
                "        id: tarball\n        uses: actions/cache@v3",
                "        uses: actions/cache@v3",
            ),
            ("Set up buildx\n", "Set up buildx\n        id: tarball\n"),
        ],
        "(our own) an id that is referred to stands at another step",
    ),
    pair(
        Other,
        NIX,
        &[("cachix/install-nix-action@v27", "cachix/install-nix-action@v30")],
        "nix-community/nixd#631, crytic/echidna#703: the pin of an installer",
    ),
    pair(
        Other,
        NIX,
        &[("cachix/install-nix-action@v27", "DeterminateSystems/nix-installer-action@v16")],
        "chatmail/core#7276, DataDog/dd-trace-rb#6088: another installer",
    ),
    pair(
        Other,
        NIX,
        &[("nix/nix-2.24.9/install", "nix/nix-2.31.2/install")],
        "nix-community/nix-direnv#330: the version of Nix",
    ),
    pair(
        Other,
        NIX,
        &[("substituters = https://one", "substituters = https://two.cachix.org https://one")],
        "pwncollege/challenges#117: substitute servers",
    ),
    pair(
        Other,
        NIX,
        &[
            ("os: [ubuntu-22.04,", "os: [ubuntu-24.04,"),
            ("- os: ubuntu-22.04", "- os: ubuntu-24.04"),
        ],
        "NobbZ/nixos-config#1192, nix-community/tree-sitter-nix#173: the image of the runner",
    ),
    pair(
        Other,
        NIX,
        &[(
            "            system: aarch64-darwin\n",
            "            system: aarch64-darwin\n          - os: ubuntu-24.04-arm\n            system: aarch64-linux\n",
        )],
        "fossar/nix-phps#323, lovesegfault/nix-config#5022: one more system",
    ),
    pair(
        Other,
        NIX,
        &[("nixos/nix:2.24.9\n", "nixos/nix:latest\n")],
        "kontainapp/km#1431, Nebulaworks/nix-garage#51: the image of the container",
    ),
    pair(Other, NIX, &[("postgres:15", "postgres:16")], "(our own) a service"),
    pair(
        Other,
        NIX,
        &[("shell: bash", "shell: nix develop -c bash -e {0}")],
        "kachick/dotfiles#1148, avdv/scalals#806: the shell of all scripts",
    ),
    pair(
        Other,
        NIX,
        &[("working-directory: app", "working-directory: server")],
        "(our own) where scripts run",
    ),
    pair(Other, NIX, &[("packages: jq", "packages: jq ripgrep")], "aksiksi/ncdmv#8: a package"),
    pair(
        Other,
        NIX,
        &[
            (
                "      - uses: actions/checkout@v4\n      - uses: cachix/install-nix-action@v27\n",
                "      - uses: cachix/install-nix-action@v27\n        # first\n",
            ),
            (
                "      - uses: ./.github",
                "      - uses: actions/checkout@v4\n      - uses: ./.github",
            ),
        ],
        "(our own) the order of steps",
    ),
    // Actions and workflows that are called by path.
    pair(
        Same,
        CALLED,
        &[
            ("name: Build with Nix", "name: Nix"),
            ("        description: Where it runs\n", ""),
            ("  publish:\n    needs: nix\n", "  publish:\n    name: Publish\n    needs: [nix]\n"),
        ],
        "qltysh/qlty#1149: names in a workflow that is called",
    ),
    pair(
        Other,
        CALLED,
        &[("install-nix-action@v21", "install-nix-action@v31")],
        "tenzir/tenzir#3109: the installer of a workflow that is called",
    ),
    pair(
        Other,
        CALLED,
        &[("default: ubuntu-24.04", "default: ubuntu-22.04")],
        "indexable-inc/index#3439: what stands for an input of a called workflow",
    ),
    pair(
        Other,
        CALLED,
        &[("max-jobs = 2", "max-jobs = 4")],
        "(our own) the env of a workflow that is called",
    ),
    pair(
        Other,
        CALLS,
        &[("system: x86_64-linux", "system: aarch64-linux")],
        "MSF-OCB/NixOS#186: an input of a called workflow",
    ),
    pair(
        Same,
        CALLS,
        &[
            ("OUTSIDE: does not", "OUTSIDE: will never"),
            ("    needs: style\n", ""),
            ("make style", "make pretty"),
        ],
        "supabase/postgres#1659: what is around the call",
    ),
    pair(
        Same,
        TOOLCHAIN,
        &[
            ("description: What all jobs need", "description: Tools"),
            ("name: Toolchain", "name: Set up Nix"),
            ("    - name: Packages\n      shell", "    - shell"),
            ("        # All at once.\n", ""),
        ],
        "purpleclay/go-overlay#286: words of a composite action",
    ),
    pair(
        Other,
        TOOLCHAIN,
        &[("default: nixos-25.05", "default: nixos-25.11")],
        "(our own) what stands for an input of a composite action",
    ),
    pair(
        Other,
        TOOLCHAIN,
        &[("    - uses: ./.github/actions/report\n", "")],
        "(our own) a step of a composite action",
    ),
    pair(
        Other,
        DIRENV,
        &[("2.37.1", "2.38.0")],
        "ngrok/ngrok-operator#795: an action that a composite action calls",
    ),
    pair(
        Same,
        ".github/actions/report/action.yml",
        &[("What was installed", "Says what was installed")],
        "purpleclay/go-overlay#286: words of an action in JavaScript",
    ),
    pair(
        Other,
        ".github/actions/report/dist/main.js",
        &[("installed", "there")],
        "(our own) the program of an action in JavaScript",
    ),
];

/// A work tree with all workflows of this directory.
struct Tree(TempDir);

impl Tree {
    fn new() -> Tree {
        let tree = Tree(tempfile::tempdir().unwrap());
        copy(&source(), &tree.path().join(".github/workflows"));
        fs::rename(
            tree.path().join(".github/workflows/actions"),
            tree.path().join(".github/actions"),
        )
        .unwrap();
        tree
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    #[track_caller]
    fn edit(&self, file: &str, edits: &[(&str, &str)]) {
        let path = self.path().join(file);
        let mut text = fs::read_to_string(&path).unwrap();
        for (from, to) in edits {
            assert_eq!(text.matches(from).count(), 1, "{file}: {from:?}");
            text = text.replace(from, to);
        }
        fs::write(path, text).unwrap();
    }

    fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn ask(&self, file: &str, more: &[&str]) -> Output {
        let words = ["key", "--store", "guix", "--version", "1.5.0", "--json", "--workflow", file];
        storecache_in(self.path(), [&words, more].concat())
    }

    #[track_caller]
    fn key_with(&self, file: &str, more: &[&str]) -> Value {
        report(&self.ask(file, more).ok())
    }

    /// Returns the key of the job that caches a store.
    #[track_caller]
    fn key(&self, file: &str) -> String {
        let job = match file {
            GUIX => "interop",
            CALLS => "nix",
            _ => "build",
        };
        text(&self.key_with(file, &["--workflow-job", job]))
    }

    /// Returns the message of a refusal.
    #[track_caller]
    fn refused(&self, file: &str, more: &[&str]) -> String {
        let output = self.ask(file, more);
        assert_eq!(output.status.code(), Some(1), "{}{}", output.stdout, output.stderr);
        format!("{}{}", output.stdout, output.stderr)
    }
}

fn source() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workflows")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(path, to).unwrap();
        }
    }
}

#[track_caller]
fn text(report: &Value) -> String {
    let key = report["key"].as_str().unwrap();
    assert!(key.starts_with("storecache-guix-"), "{key}");
    key.to_owned()
}

#[test]
fn edits_of_public_projects_keep_the_key_or_change_it() {
    let untouched = Tree::new();
    let mut wrong = Vec::new();
    let mut counts = [0, 0];
    for Pair { fact, file, edits, key } in PAIRS {
        let tree = Tree::new();
        tree.edit(file, edits);
        // A called file is part of the workflows that call it.
        let workflows: &[&str] = match *file {
            GUIX => &[GUIX],
            NIX => &[NIX],
            CALLS | CALLED => &[CALLS],
            _ => &[NIX, CALLS],
        };
        for workflow in workflows {
            let got = if tree.key(workflow) == untouched.key(workflow) { Same } else { Other };
            if got != *key {
                wrong.push(format!("{workflow}: {got:?} instead of {key:?}: {fact}"));
            }
        }
        counts[usize::from(*key == Other)] += 1;
    }
    assert_eq!(wrong, [""; 0]);
    assert!(counts.iter().all(|count| *count >= 20), "{counts:?}");
}

#[test]
fn cosmetic_edits_change_the_key_in_bytes_mode() {
    let bytes = ["--workflow-mode", "bytes"];
    let untouched = text(&Tree::new().key_with(GUIX, &bytes));
    let cosmetic = PAIRS.iter().filter(|pair| pair.key == Same && pair.file == GUIX);
    for Pair { fact, edits, .. } in cosmetic {
        let tree = Tree::new();
        tree.edit(GUIX, edits);
        assert_ne!(text(&tree.key_with(GUIX, &bytes)), untouched, "{fact}");
    }
    let none = text(&Tree::new().key_with(GUIX, &["--workflow-mode", "none"]));
    assert!(
        untouched.strip_prefix(&none).is_some_and(|hash| hash.len() == 33),
        "{none} {untouched}"
    );
}

#[test]
fn reformatted_workflow_has_the_same_key() {
    let tree = Tree::new();
    let key = tree.key(NIX);
    // nix-community/infra#1767 and blocksense-network/blocksense#46: formatters; winebarrel/pistachio#226 and
    // home-assistant/docker-base#316: anchors.
    for file in ["nix-formatted.yml", "nix-anchors.yml"] {
        let file = format!(".github/workflows/{file}");
        let differing = tree.key_with(&file, &["--workflow-job", "build", "--explain"]);
        assert_eq!(text(&differing), key, "{file}: {differing:#}");
    }
    let plain = fs::read_to_string(source().join("nix.yml")).unwrap();
    for text in
        [plain.replace('\n', "\r\n"), format!("\u{feff}{plain}"), format!("---\n{plain}...\n")]
    {
        tree.write(NIX, text);
        assert_eq!(tree.key(NIX), key);
    }
    // By other names for the file.
    let absolute = tree.path().join(NIX);
    for name in ["./.github/workflows/nix.yml", ".github/../.github/workflows/nix.yml"] {
        assert_eq!(tree.key(name), key, "{name}");
    }
    assert_eq!(tree.key(absolute.to_str().unwrap()), key);
    std::os::unix::fs::symlink("nix.yml", tree.path().join(".github/workflows/link.yml")).unwrap();
    assert_eq!(tree.key(".github/workflows/link.yml"), key);
}

#[test]
fn workflow_steps_and_ignore_pins_select_what_counts() {
    let edited = |file: &str, edits: &[(&str, &str)]| {
        let tree = Tree::new();
        tree.edit(file, edits);
        tree
    };
    let pushed = edited(GUIX, &[("-C contrib", "-C contrib check")]);
    let daemon = edited(GUIX, &[("guixbuild", "builders")]);
    let buildx = edited(GUIX, &[("setup-buildx-action@v1", "setup-buildx-action@v3")]);
    let of = |tree: &Tree, more: &[&str]| {
        text(&tree.key_with(GUIX, &[&["--workflow-job", "interop"], more].concat()))
    };
    let first = Tree::new();
    for (steps, same, others) in [
        (&["--workflow-steps", "Start*"][..], [&pushed, &buildx], vec![&daemon]),
        (
            &["--workflow-steps", "tarball", "--workflow-steps", "build"],
            [&daemon, &buildx],
            vec![&pushed],
        ),
        (&["--workflow-steps", "docker/*"], [&daemon, &pushed], vec![&buildx]),
        (&["--ignore-pins", "docker/*"], [&first, &buildx], vec![&daemon, &pushed]),
    ] {
        let key = of(&first, steps);
        same.iter().for_each(|tree| assert_eq!(of(tree, steps), key, "{steps:?}"));
        others.iter().for_each(|tree| assert_ne!(of(tree, steps), key, "{steps:?}"));
    }
    // The version of this action is ignored unless a flag says otherwise.
    let pinned = edited(GUIX, &[("actions/cache@v3", "actions/cache@v4")]);
    assert_eq!(of(&pinned, &[]), of(&first, &[]));
    let flags = ["--ignore-pins", "!actions/cache"];
    assert_ne!(of(&pinned, &flags), of(&first, &flags));
    let said = first.refused(GUIX, &["--workflow-steps", "nothing"]);
    assert!(said.contains("--workflow-steps \"nothing\" matches no step of"), "{said}");
    // If an action matters, everything below it does.
    let toolchain = ["--workflow-job", "build", "--workflow-steps", "./.github/actions/toolchain"];
    let changed = edited(DIRENV, &[("2.37.1", "2.38.0")]);
    assert_ne!(text(&changed.key_with(NIX, &toolchain)), text(&first.key_with(NIX, &toolchain)));
}

/// endojs/endo changed its `ocapn-guile-interop.yml` nine times in a quarter of a year; six of these commits
/// were pins and tokens. This history has the same shape.
const HISTORY: [(Key, &[(&str, &str)]); 9] = [
    (Other, &[("default: guile guile-goblins", "default: guile guile-websocket guile-goblins")]),
    (
        Same,
        &[(
            "Checkout\n        uses: actions/checkout@v4",
            "Checkout\n        uses: actions/checkout@34e1148 # v4",
        )],
    ),
    (Same, &[("actions/cache@v3", "actions/cache@0057852 # v4")]),
    (Same, &[("fetch-depth: 0", "persist-credentials: false")]),
    (
        Other,
        &[(
            "guix.gnu.org https://ci.guix.gnu.org'",
            "guix.gnu.org https://ci.guix.gnu.org' --no-substitutes",
        )],
    ),
    (Same, &[("actions/checkout@34e1148 # v4", "actions/checkout@8e8c483 # v6")]),
    (
        Other,
        &[("--max-time 120", "--max-time 240"), ("timeout-minutes: 45", "timeout-minutes: 60")],
    ),
    (Same, &[("actions/upload-artifact@v3", "actions/upload-artifact@ea165f8 # v4")]),
    (Same, &[("permissions:\n  contents: read\n", "permissions: {}\n")]),
];

#[test]
fn only_commits_that_affect_the_store_change_the_key() {
    let tree = Tree::new();
    let mut last = tree.key(GUIX);
    let bytes = ["--workflow-mode", "bytes"];
    let mut states = vec![text(&tree.key_with(GUIX, &bytes))];
    for (expected, edits) in HISTORY {
        tree.edit(GUIX, edits);
        let key = tree.key(GUIX);
        assert_eq!(key == last, expected == Same, "{edits:?}");
        last = key;
        states.push(text(&tree.key_with(GUIX, &bytes)));
    }
    states.sort();
    states.dedup();
    assert_eq!(states.len(), HISTORY.len() + 1, "by its bytes each costs one");
}
