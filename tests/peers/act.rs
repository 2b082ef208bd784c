//! Runs whole workflows with act, an independent reader of action.yml, of the step's files and of the log.

use std::fs;
use std::process::Command;

use crate::support::plain_env::{self, PlainEnv, assert_same_tree, output};
use crate::support::{Output, act};

/// A repository that contains the action and one workflow.
struct Repository<'p> {
    place: &'p PlainEnv,
    directory: tempfile::TempDir,
}

impl<'p> Repository<'p> {
    /// `with` has more lines for the inputs, and `then` the steps after the step under test.
    fn new(place: &'p PlainEnv, with: &str, then: &str) -> Repository<'p> {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join(".github/workflows")).unwrap();
        act::write_action(&tree, &plain_env::binary());
        let workflow = format!(
            "on: push
jobs:
  job:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - id: store
        uses: ./
        with:
          store: plain
          path: |
            /opt/tool
            /var/lib/data
          root: {root}
          backend: dir:{entries}
{with}
{then}
",
            root = place.root().display(),
            entries = place.entries().display(),
        );
        fs::write(tree.join(".github/workflows/job.yml"), workflow).unwrap();
        act::commit(&tree);
        Repository { place, directory }
    }

    /// Runs the workflow as for a push.
    fn push(&self) -> Output {
        let home = self.directory.path();
        let mut command = Command::new(act::act());
        command.args(act::PUSH).arg("--no-cache-server");
        command.arg("--action-cache-path").arg(home.join("actions"));
        command.env("HOME", home).env("XDG_CACHE_HOME", home);
        output(command.current_dir(home.join("tree")))
    }

    fn entries(&self) -> usize {
        fs::read_dir(self.place.entries()).unwrap().count()
    }
}

#[test]
fn act_job_restores_what_the_previous_job_saved() {
    let place = PlainEnv::filled();
    let before = place.tree("/opt/tool");
    let tell = "
      - if: steps.store.outputs.cache-hit != 'true'
        run: echo builds after a ${{ steps.store.outputs.hit-kind }}
      - run: 'echo outputs: ${{ steps.store.outputs.hit-kind }} ${{ steps.store.outputs.cache-primary-key }} ${{ steps.store.outputs.restored-items }}'";
    let repository = Repository::new(&place, "          key: \"a key: é\"", tell);
    let first = repository.push().ok();
    assert!(first.stdout.contains("| builds after a miss"), "{first}");
    assert!(first.stdout.contains("saved 2 items as a key: é."), "{first}");
    assert_eq!(repository.entries(), 1);

    place.remove("/opt");
    place.remove("/var");
    let second = repository.push().ok();
    assert!(!second.stdout.contains("| builds"), "{second}");
    assert!(second.stdout.contains("| outputs: exact a key: é 2"), "{second}");
    assert_same_tree(&before, &place.tree("/opt/tool"));
    assert!(second.stdout.contains("nothing was saved: unchanged"), "{second}");
    assert_eq!(repository.entries(), 1);

    let other = Repository::new(&place, "          key: b\n          restore-keys: a key", tell);
    let prefix = other.push().ok();
    assert!(prefix.stdout.contains("| builds after a prefix"), "{prefix}");
    assert!(prefix.stdout.contains("saved 2 items as b."), "{prefix}");
}

#[test]
fn post_step_reports_why_a_failed_job_saves_nothing() {
    let place = PlainEnv::filled();
    let fails = "      - run: exit 1";
    let failed = Repository::new(&place, "          key: k", fails).push().fails();
    assert!(failed.stdout.contains("nothing was saved: the job failed"), "{failed}");
    assert!(failed.stdout.contains("Success - Post ./"), "{failed}");
}

#[test]
fn step_fails_the_job_on_a_strict_miss_or_invalid_inputs() {
    let place = PlainEnv::filled();
    let never = "      - run: echo went on";
    for (with, why) in [
        ("          key: k\n          fail-on-cache-miss: true", "no entry for the key"),
        ("          key: k\n          level: 20", "wrong inputs"),
    ] {
        let repository = Repository::new(&place, with, never);
        let failed = repository.push().fails();
        assert!(failed.stdout.contains(why), "{failed}");
        assert!(!failed.stdout.contains("| went on"), "{failed}");
    }
}
