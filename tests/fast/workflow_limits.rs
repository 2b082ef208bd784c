//! Tests of odd, broken and malicious workflows: they are refused by name, or hashed without a collision, and
//! always quickly and with little memory.

use std::fs;
use std::path::Path;

use crate::support::Output;
use crate::support::plain_env::storecache_in;
use crate::support::world_runs::report;
use tempfile::TempDir;

const CI: &str = ".github/workflows/ci.yml";

/// A work tree with some files; the tests hash the workflow `CI`.
struct Tree(TempDir);

impl Tree {
    fn with(files: &[(&str, &str)]) -> Tree {
        let tree = Tree(tempfile::tempdir().unwrap());
        files.iter().for_each(|(file, text)| tree.write(file, text));
        tree
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn ask(&self, more: &[&str]) -> Output {
        let words = ["key", "--store", "guix", "--version", "1.5.0", "--json", "--workflow", CI];
        storecache_in(self.path(), [&words, more].concat())
    }

    #[track_caller]
    fn key_with(&self, more: &[&str]) -> String {
        report(&self.ask(more).ok())["key"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn key(&self) -> String {
        self.key_with(&[])
    }

    #[track_caller]
    fn notes(&self) -> String {
        self.ask(&[]).ok().stderr
    }

    #[track_caller]
    fn refused(&self) -> String {
        let output = self.ask(&[]);
        assert_eq!(output.status.code(), Some(1), "{}{}", output.stdout, output.stderr);
        output.stderr
    }
}

/// Returns the key of a workflow in a work tree of its own.
#[track_caller]
fn key(text: &str) -> String {
    Tree::with(&[(CI, text)]).key()
}

/// Returns a workflow of one job with these lines.
fn job(lines: &str) -> String {
    format!("on: push\njobs:\n  a:\n    runs-on: x\n{}", indented(lines, 4))
}

fn steps(lines: &str) -> String {
    job(&format!("steps:\n{}", indented(lines, 2)))
}

fn indented(lines: &str, by: usize) -> String {
    lines.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

/// Asserts that all of these have different keys.
#[track_caller]
fn assert_keys_differ(texts: &[String]) {
    let keys: Vec<String> = texts.iter().map(|text| key(text)).collect();
    for (at, one) in keys.iter().enumerate() {
        for (other, text) in keys.iter().zip(texts).skip(at + 1) {
            assert_ne!(one, other, "{}\n{text}", texts[at]);
        }
    }
}

/// Asserts that all of these have the same key.
#[track_caller]
fn assert_keys_equal(texts: &[String]) {
    texts.iter().for_each(|text| assert_eq!(key(text), key(&texts[0]), "{}\n{text}", texts[0]));
}

#[test]
fn different_workflows_have_different_keys() {
    // Keys that look like paths.
    assert_keys_differ(&[
        job("env: {a.b: x}"),
        job("env: {a: {b: x}}"),
        job("env: {a: [x]}"),
        job("env: {'a[0]': x}"),
        job("env: {a: {'': {b: x}}}"),
        job("env: {'': {a: {b: x}}}"),
        job("env: {'\"a\".b': x}"),
    ]);
    // Empty values.
    assert_keys_differ(&[
        job("env: {a: }"),
        job("env: {a: []}"),
        job("env: {a: {}}"),
        job("env: {'a{}': }"),
        job("env: {}"),
    ]);
    assert_keys_equal(&[job("env: {a: }"), job("env: {a: ''}"), job("env: {a: ~}")]);
    assert_keys_equal(&[job("env: {}"), job("env:"), job("container: {}"), job("")]);
    // Numbers and texts.
    assert_keys_differ(&[job("env: {a: 1.10}"), job("env: {a: '1.10'}"), job("env: {a: 1.10.0}")]);
    assert_keys_differ(&[
        job("env: {a: 12345678901234567890}"),
        job("env: {a: 12345678901234567891}"),
    ]);
    assert_keys_differ(&[job("env: {a: 11e1234}"), job("env: {a: 12e1234}")]);
    assert_keys_equal(&[job("env: {a: 0x10}"), job("env: {a: '16'}"), job("env: {a: 16.0}")]);
    assert_keys_equal(&[job("env: {a: true}"), job("env: {a: True}"), job("env: {a: 'true'}")]);
    // Expressions.
    assert_keys_equal(&[job("env: {a: '${{b}}'}"), job("env: {a: '${{  b  }}'}")]);
    assert_keys_differ(&[
        job(r#"env: {a: "${{ format('}}') }}"}"#),
        job(r#"env: {a: "${{ format('  }}') }}"}"#),
        job(r#"env: {a: "${{ format('}} ') }}"}"#),
    ]);
    assert_keys_equal(&[steps("- {run: x, if: '${{ b }}'}"), steps("- {run: x, if: b}")]);
    assert_keys_differ(&[
        steps("- {run: x, if: '${{ a }} ${{ b }}'}"),
        steps("- {run: x, if: 'a }} ${{ b'}"),
    ]);
    // A matrix.
    assert_keys_equal(&[
        job("strategy: {matrix: {a: [x, y]}}"),
        job("strategy: {matrix: {a: [y, x]}}"),
    ]);
    assert_keys_differ(&[
        job("strategy: {matrix: {a: [x, y]}}"),
        job("strategy: {matrix: {a: [x, y], include: [{b: z}]}}"),
        job("strategy: {matrix: {a: [x, y], exclude: [{b: z}]}}"),
        job("strategy: {matrix: {a: [x, y], include: [{}, {b: z}]}}"),
        job("strategy: {matrix: '${{ fromJSON(a) }}'}"),
        job("strategy: '${{ fromJSON(a) }}'"),
        job("strategy: {matrix: {a: '${{ b }}'}}"),
        job("strategy: {matrix: {a: ['${{ b }}']}}"),
    ]);
    // Labels.
    let on =
        |labels: &str| format!("on: push\njobs:\n  a:\n    runs-on: {labels}\n    steps: []\n");
    assert_keys_equal(&[on("x"), on("[x]")]);
    assert_keys_equal(&[on("[x, y]"), on("[y, x]")]);
    assert_keys_differ(&[on("'${{ x }}'"), on("['${{ x }}']"), on("{group: x}"), on("x")]);
}

#[test]
fn step_id_counts_only_where_it_is_referenced() {
    let refers = "- run: ${{ steps.one.outputs.x }}";
    let two = |first: &str, second: &str| {
        steps(&format!("- {{run: a{first}}}\n- {{run: b{second}}}\n{refers}"))
    };
    assert_keys_differ(&[
        two(", id: one", ", id: two"),
        two(", id: two", ", id: one"),
        two(", id: One", ", id: two"),
    ]);
    assert_keys_equal(&[two(", id: one", ", id: two"), two(", id: one", "")]);
    let output = |id: &str| {
        job(&format!(
            "outputs: {{o: \"${{{{ steps['{id}'].outputs.x }}}}\"}}\nsteps:\n  - {{id: one, run: a}}\n  - {{run: b}}"
        ))
    };
    assert_keys_differ(&[output("one"), output("two")]);
    // The outputs of an action refer to its steps.
    let action = |first: &str, second: &str| {
        let text = format!(
            "outputs: {{o: {{value: '${{{{ steps.one.outputs.x }}}}'}}}}\nruns:\n  using: composite\n  steps:\n\
             \x20   - {{id: {first}, run: a, shell: sh}}\n    - {{id: {second}, run: b, shell: sh}}\n"
        );
        Tree::with(&[(CI, &format!("{CALLER}./own\n")), ("own/action.yml", &text)]).key()
    };
    assert_ne!(action("one", "two"), action("two", "one"));
    assert_eq!(action("one", "two"), action("one", "three"));
}

#[test]
fn script_comments_are_ignored_only_in_known_shells() {
    let script = |shell: &str| steps(&format!("- run: |\n    # one\n    make\n{shell}"));
    let other = |shell: &str| steps(&format!("- run: |\n    # two\n    make\n{shell}"));
    for shell in ["", "  shell: bash", "  shell: sh -e {0}"] {
        assert_eq!(key(&script(shell)), key(&other(shell)), "{shell}");
    }
    for shell in [
        "  shell: python",
        "  shell: pwsh",
        "  shell: '${{ matrix.shell }}'",
        "  shell: nix develop -c bash {0}",
    ] {
        assert_ne!(key(&script(shell)), key(&other(shell)), "{shell}");
    }
    // A shell that the job or the workflow sets.
    let python = "defaults:\n  run:\n    shell: python\n";
    for place in [
        |script: String, python: &str| format!("{python}{script}"),
        |script: String, python: &str| {
            script.replace("    runs-on: x\n", &format!("    runs-on: x\n{}", indented(python, 4)))
        },
    ] {
        assert_ne!(key(&place(script(""), python)), key(&place(other(""), python)));
        let (a, b) =
            (place(script("  shell: bash"), python), place(other("  shell: bash"), python));
        assert_eq!(key(&a), key(&b), "the step's own counts");
        let bash = python.replace("python", "bash");
        assert_eq!(key(&place(script(""), &bash)), key(&place(other(""), &bash)));
    }
    let both = |script: String| {
        let script = script.replace(
            "    runs-on: x\n",
            &format!("    runs-on: x\n{}", indented(&python.replace("python", "bash"), 4)),
        );
        format!("{python}{script}")
    };
    assert_eq!(key(&both(script(""))), key(&both(other(""))), "the job's before the workflow's");
    // If no shell is set, Windows uses one whose comments storecache does not know.
    let windows = |script: String| script.replace("runs-on: x", "runs-on: windows-2025");
    assert_ne!(key(&windows(script(""))), key(&windows(other(""))));
    // Lines that only look like comments.
    for (before, after) in [
        ("cat <<X\n# one\nX", "cat <<X\n# two\nX"),
        ("echo '\n# one\n'", "echo '\n# two\n'"),
        ("echo $'it\\'s'\necho '\n# one\n'", "echo $'it\\'s'\necho '\n# two\n'"),
        ("x=\"$(sed \"\n# one\n\")\"", "x=\"$(sed \"\n# two\n\")\""),
        ("echo a \\\n# one", "echo a \\\n# two"),
        ("# ${{ inputs.one }}", "# ${{ inputs.two }}"),
        ("echo a\\ \nb", "echo a\\\nb"),
        ("#!/bin/one", "#!/bin/two"),
    ] {
        let run = |script: &str| steps(&format!("- run: |\n{}", indented(script, 4)));
        assert_ne!(key(&run(before)), key(&run(after)), "{before}");
    }
}

const CALLER: &str = "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - uses: ";

#[test]
fn no_file_outside_of_the_work_tree_is_read() {
    let outer = tempfile::tempdir().unwrap();
    let action = "runs: {using: composite, steps: [{run: secret, shell: bash}]}";
    let absolute = outer.path().join("x");
    fs::create_dir(&absolute).unwrap();
    let tree = outer.path().join("tree");
    let at = |uses: &str| {
        fs::create_dir_all(tree.join(".github/workflows")).unwrap();
        fs::write(tree.join(CI), format!("{CALLER}{uses}\n")).unwrap();
        let words = ["key", "--store", "guix", "--version", "1", "--json", "--workflow", CI];
        let output = storecache_in(&tree, words).ok();
        (report(&output)["key"].clone(), output.stderr)
    };
    let ways = [
        "./../x".to_owned(),
        "./.github/../../x".to_owned(),
        format!("./{}", absolute.display()),
        format!("./{}/.", absolute.display()),
    ];
    let before: Vec<_> = ways.iter().map(|way| at(way)).collect();
    for (way, (_, said)) in ways.iter().zip(&before) {
        assert!(said.contains("leads out of the work tree"), "{way}: {said}");
    }
    fs::write(absolute.join("action.yml"), action).unwrap();
    let after: Vec<_> = ways.iter().map(|way| at(way)).collect();
    assert_eq!(before, after);
    // A file that an action names outside of the work tree is not read either.
    for main in ["../x/action.yml".to_owned(), absolute.join("action.yml").display().to_string()] {
        let here = tree.join("own");
        fs::create_dir_all(&here).unwrap();
        let main = main.replace("../x", "../../x");
        fs::write(here.join("action.yml"), format!("runs: {{using: node24, main: '{main}'}}"))
            .unwrap();
        let (first, _) = at("./own");
        fs::write(absolute.join("action.yml"), format!("{action} # {main}")).unwrap();
        assert_eq!(at("./own").0, first, "{main}");
    }
}

#[test]
fn local_actions_are_found_in_every_path_form() {
    let action =
        |word: &str| format!("runs: {{using: composite, steps: [{{run: {word}, shell: bash}}]}}");
    for (uses, file) in [
        ("./", "action.yml"),
        ("./", "action.yaml"),
        ("./own", "own/action.yml"),
        ("./own/", "own/action.yml"),
        ("././own/./", "own/action.yml"),
        ("./x/../own", "own/action.yml"),
        ("' ./own '", "own/action.yml"),
    ] {
        let tree =
            |word: &str| Tree::with(&[(CI, &format!("{CALLER}{uses}\n")), (file, &action(word))]);
        let (one, two) = (tree("one"), tree("two"));
        assert_ne!(one.key(), two.key(), "{uses}");
        assert_eq!(one.notes(), tree("one").notes(), "{uses}");
    }
    // A repository that is checked out below the workspace.
    let checkout =
        "actions/checkout@v4\n        with: {path: project}\n      - uses: ./project/own\n";
    let tree = |word: &str| {
        Tree::with(&[(CI, &format!("{CALLER}{checkout}")), ("own/action.yml", &action(word))])
    };
    assert_ne!(tree("one").key(), tree("two").key());
    assert!(!tree("one").notes().contains("is not in"), "{}", tree("one").notes());
    // A missing action is reported.
    let missing = Tree::with(&[(CI, &format!("{CALLER}./own\n"))]).notes();
    assert!(missing.contains(&format!("{CI}:6: ./own is not in")), "{missing}");
}

#[test]
fn job_is_found_through_nested_workflow_calls() {
    let caller = |file: &str, with: &str| {
        format!(
            "on: workflow_call\njobs:\n  call:\n    uses: ./.github/workflows/{file}\n    with: {{v: {with}}}\n"
        )
    };
    let build = |word: &str| {
        format!(
            "on: {{workflow_call: {{inputs: {{v: {{}}}}}}}}\njobs:\n  build:\n    steps: [{{run: {word}}}]\n  test:\n    steps: [{{run: t}}]\n"
        )
    };
    let tree = |outer: &str, inner: &str, word: &str| {
        let middle = caller("build.yml", inner);
        Tree::with(&[
            (CI, &caller("middle.yml", outer)),
            (".github/workflows/middle.yml", &middle),
            (".github/workflows/build.yml", &build(word)),
        ])
    };
    let of = |tree: Tree| tree.key_with(&["--workflow-job", "build"]);
    let first = of(tree("1", "2", "a"));
    assert_ne!(of(tree("1", "2", "b")), first);
    assert_ne!(of(tree("1", "3", "a")), first);
    assert_ne!(of(tree("3", "2", "a")), first);
    assert_ne!(of(tree("2", "1", "a")), first);
    let other = tree("1", "2", "a");
    assert_ne!(other.key_with(&["--workflow-job", "test"]), first);
    assert_eq!(other.ask(&["--workflow-job", "none"]).status.code(), Some(1));
    // A workflow may have the name of an action's file.
    let named = Tree::with(&[
        (CI, &caller("action.yml", "1")),
        (".github/workflows/action.yml", &build("a")),
    ]);
    let steps = ["--workflow-job", "test", "--workflow-steps", "absent"];
    assert_eq!(named.ask(&steps).status.code(), Some(1));
}

#[test]
fn cyclic_deep_and_numerous_calls_are_refused() {
    let calls = |uses: &[String]| {
        let steps: String = uses.iter().map(|uses| format!("    - uses: ./{uses}\n")).collect();
        format!("runs:\n  using: composite\n  steps:\n{steps}")
    };
    let circle = Tree::with(&[(CI, &format!("{CALLER}./a\n"))]);
    circle.write("a/action.yml", calls(&["b".into()]));
    circle.write("b/action.yml", calls(&["a".into()]));
    let said = circle.refused();
    assert!(
        said.contains("b/action.yml:1:1: calls by path form a cycle via a/action.yml"),
        "{said}"
    );
    let itself = Tree::with(&[(CI, "on: push\njobs: {a: {uses: ./.github/workflows/ci.yml}}\n")]);
    assert!(itself.refused().contains("form a cycle via"), "{}", itself.refused());

    let deep = Tree::with(&[(CI, &format!("{CALLER}./d0\n"))]);
    for level in 0..12 {
        deep.write(&format!("d{level}/action.yml"), calls(&[format!("d{}", level + 1)]));
    }
    assert!(deep.refused().contains("nested more than 10 deep"), "{}", deep.refused());
    // Ten levels are allowed, as on GitHub.
    deep.write("d9/action.yml", calls(&[]));
    deep.key();

    let wide = Tree::with(&[(CI, &format!("{CALLER}./w0\n"))]);
    for level in 0..9 {
        let next = format!("w{}", level + 1);
        wide.write(&format!("w{level}/action.yml"), calls(&[next.clone(), next.clone(), next]));
    }
    wide.write("w9/action.yml", calls(&[]));
    assert!(wide.refused().contains("more than 1000 calls by path"), "{}", wide.refused());
}

#[test]
fn oversized_workflows_are_refused() {
    let bomb = |value: &str, times: usize| {
        let aliases = "      - *a\n".repeat(times);
        format!("on: push\nenv: {{A: &a {value}}}\njobs:\n  a:\n    steps:\n{aliases}")
    };
    // A text of half a megabyte, a hundred thousand times.
    let long = Tree::with(&[(CI, &bomb(&"x".repeat(500_000), 100_000))]);
    assert!(long.refused().contains("alias bomb: with the alias *a"), "{}", long.refused());
    // A key of the same size above many values.
    let key = format!(
        "on: push\nenv:\n  ? {}\n  : [{}]\njobs: {{a: {{}}}}\n",
        "k".repeat(500_000),
        "1, ".repeat(100_000)
    );
    let wide = Tree::with(&[(CI, &key)]);
    assert!(
        wide.refused().contains("its values and their paths take more than 64 MiB"),
        "{}",
        wide.refused()
    );
    // A large action that is called often.
    let uses = "      - uses: ./own\n".repeat(900);
    let often = Tree::with(&[(CI, &format!("on: push\njobs:\n  a:\n    steps:\n{uses}"))]);
    let many: String =
        (0..20_000).map(|n| format!("    - {{run: make {n}, shell: bash}}\n")).collect();
    often.write("own/action.yml", format!("runs:\n  using: composite\n  steps:\n{many}"));
    assert!(
        often.refused().contains("all called files together take more than"),
        "{}",
        often.refused()
    );
    // A file larger than any workflow.
    let large = Tree::with(&[(CI, &format!("on: push\n#{}\n", "x".repeat(5 << 20)))]);
    assert!(large.refused().contains("it is larger than 4 MiB"), "{}", large.refused());
    // Twenty thousand jobs that each cache a store.
    let jobs: String =
        (0..20_000).map(|n| format!("  j{n}: {{steps: [{{uses: a/storecache@v1}}]}}\n")).collect();
    let crowd = Tree::with(&[(CI, &format!("on: push\njobs:\n{jobs}"))]);
    let said = crowd.notes();
    assert!(said.contains("j9, 19990 more of") && said.len() < 2_000, "{}", said.len());
    // A workflow of a megabyte is accepted.
    let megabyte = steps(&"- name: x\n  run: make  # all\n  env: {A: b}\n".repeat(25_000));
    assert!(megabyte.len() > 1_000_000);
    Tree::with(&[(CI, &megabyte)]).key();
}

#[test]
fn invalid_workflow_is_refused_with_its_position() {
    for (text, said) in [
        ("", "ci.yml:1:1: not a workflow: it has no `jobs`"),
        ("# nothing\n", "ci.yml:1:1: not a workflow: it has no `jobs`"),
        ("on: push\n", "ci.yml:1:1: not a workflow: it has no `jobs`"),
        ("on: push\njobs:\n", "ci.yml:2:1: not a workflow: it has no `jobs`"),
        ("on: push\njobs: []\n", "ci.yml:2:1: not a workflow: it has no `jobs`"),
        ("on: push\njobs:\n\ta: b\n", "ci.yml:3"),
        ("on: push\njobs:\n  a: {\n", "ci.yml:4"),
        ("jobs: {a: 1, a: 2}\n", "ci.yml:1:14: duplicate key \"a\", first used in line 1"),
    ] {
        let tree = Tree::with(&[(CI, text)]);
        let refused = tree.refused();
        assert!(refused.contains(said), "{text:?}: {refused}");
        assert!(refused.contains("--workflow-mode bytes"), "{refused}");
    }
    let latin = Tree::with(&[]);
    latin.write(CI, b"on: push\njobs: {a: {env: {b: caf\xe9}}}\n");
    assert!(latin.refused().contains("ci.yml:1:1: it is not UTF-8"), "{}", latin.refused());
    let absent = Tree::with(&[]);
    assert!(absent.refused().contains("has no such file"), "{}", absent.refused());
    fs::create_dir_all(absent.path().join(CI)).unwrap();
    assert!(absent.refused().contains("has no such file"), "{}", absent.refused());
}
