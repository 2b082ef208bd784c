//! Runs whole workflows with act as an ordinary user on machines with a daemon: the same workflow for Nix and
//! for Guix, through act's own cache service, which has version 1.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::cache_service::{CacheService, RequestKind, TOKEN, read_only_token};
use crate::support::plain_env::output;
use crate::support::world_runs::{assert_same, record_state, staging};
use crate::support::{Invocation, Output, Plan, Role, Running, World, act, poll};
use rustix::process::Signal;

const TIMEOUT: Duration = Duration::from_secs(60);
/// The documented limit for the time from a canceled job to a running daemon.
const RECOVERY_LIMIT: Duration = Duration::from_secs(7);
const WORKFLOW: &str = ".github/workflows/job.yml";

/// A machine with an empty store, as a job finds it, and a checkout of `tests/repository`.
struct Project {
    world: World,
}

impl Project {
    fn start(plan: Plan) -> Project {
        let world = act::with_act_and_node(plan.container()).start();
        world.start_daemon();
        let project = Project { world };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/repository");
        output(Command::new("cp").arg("-a").args([source, project.tree()])).ok();
        act::write_action(&project.tree(), Path::new("/usr/local/bin/storecache"));
        act::commit(&project.tree());
        project
    }

    fn tree(&self) -> PathBuf {
        self.world.backend().host_path().join("tree")
    }

    /// Changes a file of the repository, and commits the change.
    fn change(&self, name: &str, from: &str, to: &str) {
        let file = self.tree().join(name);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(file, text.replace(from, to)).unwrap();
        act::commit(&self.tree());
    }

    /// A job for a push of the newest commit.
    fn job(&self, more: &[&str]) -> Invocation<'_> {
        let words = ["act"].into_iter().chain(act::PUSH).chain(more.iter().copied());
        self.world.command(words).user("runner").cd("/cache/tree")
    }

    /// As [`Project::job`], with act's own cache service.
    fn push(&self) -> Invocation<'_> {
        self.job(&[
            "--cache-server-addr=127.0.0.1",
            // Without this server, there is no token, and so no cache.
            "--artifact-server-path=/tmp/artifacts",
            "--artifact-server-addr=127.0.0.1",
        ])
    }

    /// The number of entries in act's cache.
    fn entries(&self) -> usize {
        self.world.sh("find /home/runner/.cache/actcache/cache -type f").lines().len()
    }

    /// Asserts that the daemon runs, that the store is sound, and that no files are left that the runner
    /// cannot remove.
    #[track_caller]
    fn assert_healthy(&self, job: &Output) {
        assert!(job.stdout.contains("| look: status 0, foreign files <>"), "{job}");
        assert!(!job.stdout.contains("::warning") && !job.stdout.contains("::error"), "{job}");
        assert!(self.world.daemon_answers());
        assert_eq!(staging(&self.world), [""; 0]);
        self.world.verify_store();
    }

    /// Asserts that no process or file of storecache is left, and that the store has no item.
    #[track_caller]
    fn assert_untouched(&self) {
        let world = &self.world;
        poll::until("our processes to end", TIMEOUT, || {
            let left = world.run(["pgrep", "--list-full", "--full", "storecache"]).stdout;
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
        assert!(world.valid_paths().is_empty());
        assert_eq!(staging(world), [""; 0]);
        let items = world.store_listing().into_iter().filter(|name| !name.starts_with('.'));
        assert_eq!(items.collect::<Vec<_>>(), [""; 0]);
        assert_eq!(world.sh("find /home/runner ! -user runner").stdout, "");
    }

    /// Starts a job on a wiped store, and returns when its restore has stopped the daemon and is blocked.
    fn start_job_blocked_in_commit(&self) -> (Running<'_>, Running<'_>) {
        self.world.wipe_store();
        assert!(self.world.daemon_answers(), "the lock file is made by the daemon");
        self.world.wait_until_idle();
        let lock = self.world.hold_database();
        let job = self.push().spawn();
        poll::until("the daemon to be stopped", TIMEOUT, || match self.world.daemon_pid() {
            None => Ok(()),
            Some(pid) => Err(format!("process {pid} listens; {}", job.stdout())),
        });
        (job, lock)
    }
}

/// The names of the derivations that a job has built.
fn built(job: &Output) -> Vec<&str> {
    let starts = ["building '", "build-started "];
    let lines = job.stdout.lines().filter(|line| starts.iter().any(|start| line.contains(start)));
    let mut names: Vec<_> = lines
        .map(|line| {
            let path = line.split(['\'', ' ']).find(|word| word.ends_with(".drv")).expect(line);
            path.rsplit_once('/').unwrap().1[33..].trim_end_matches(".drv")
        })
        .collect();
    names.sort();
    names
}

/// The key of the job, from the output of the step.
#[track_caller]
fn key(job: &Output) -> &str {
    let found = job.stdout.lines().find_map(|line| line.split_once("cache-primary-key="));
    found.unwrap_or_else(|| panic!("{job}")).1
}

/// Several jobs of a project, with one checkout, one workflow and one cache.
fn run_project_jobs(role: Role) {
    let project = Project::start(World::build(role));
    let world = &project.world;
    let kind = world.package_manager().name();

    let first = project.push().ok();
    assert!(first.stdout.contains(&format!("store {kind}, entries in github")), "{first}");
    assert!(first.stdout.contains("| hit: miss"), "{first}");
    assert_eq!(built(&first), ["farewell", "greeting"]);
    let saved = format!("saved 5 items as {}.", key(&first));
    assert!(first.stdout.contains(&saved), "{first}");
    assert!(first.stdout.contains("stored in github, v1 at 127.0.0.1"), "{first}");
    project.assert_healthy(&first);
    assert_eq!(project.entries(), 1);
    let before = record_state(world);

    world.wipe_store();
    let second = project.push().ok();
    assert!(second.stdout.contains("| hit: exact"), "{second}");
    assert_eq!(key(&second), key(&first));
    assert_eq!(built(&second), [""; 0]);
    assert!(second.stdout.contains("nothing was saved: unchanged"), "{second}");
    assert_same(&before, &record_state(world));
    project.assert_healthy(&second);
    assert_eq!(project.entries(), 1);

    project.change(WORKFLOW, "greeting farewell", "greeting farewell welcome");
    world.wipe_store();
    let changed = project.push().ok();
    assert!(changed.stdout.contains("| hit: prefix"), "{changed}");
    assert_ne!(key(&changed), key(&first));
    assert_eq!(built(&changed), ["welcome"]);
    // The items of the first entry are not saved again.
    let saved = format!("saved 2 items as {}.", key(&changed));
    assert!(changed.stdout.contains(&saved), "{changed}");
    project.assert_healthy(&changed);
    assert_eq!(project.entries(), 2);
    let before = record_state(world);

    // From here on, the items exist only in the saved entries.
    world.wipe_store();
    project.change("check", "true", "./build any more; exit 1");
    let failed = project.push().run().fails();
    assert!(failed.stdout.contains("| hit: exact"), "{failed}");
    assert_eq!(built(&failed), ["more"]);
    assert!(failed.stdout.contains("nothing was saved: the job failed"), "{failed}");
    assert!(failed.stdout.contains("Success - Post ./"), "{failed}");
    project.assert_healthy(&failed);
    assert_eq!(project.entries(), 2);
    let after = record_state(world);
    assert_eq!(after.references.len(), before.references.len() + 2);
    for (path, tree) in &before.trees {
        assert_eq!(tree, &after.trees[path], "{path}");
    }
    project.change("check", "./build any more; exit 1", "true");

    // act kills only the node process of a canceled step. Stopping the runner kills all processes of its
    // user.
    for all in [false, true] {
        let (job, lock) = project.start_job_blocked_in_commit();
        if all {
            world.sh("pkill --signal KILL --euid runner");
        } else {
            job.signal(Signal::INT);
        }
        poll::until("the daemon to listen", RECOVERY_LIMIT, || {
            world.daemon_pid().ok_or("no process listens")
        });
        let cancelled = job.wait(TIMEOUT).fails();
        assert!(!cancelled.stdout.contains("| hit:"), "{cancelled}");
        let is_reported = cancelled
            .stdout
            .contains("nothing is saved: the restore of this step did not determine");
        assert_eq!(is_reported, !all, "whether the step reports it: {cancelled}");
        drop(lock);
        assert!(world.daemon_answers());
        project.assert_untouched();
        assert_eq!(project.entries(), 2);
    }
    let at_last = project.push().ok();
    assert!(at_last.stdout.contains("| hit: exact"), "{at_last}");
    assert_same(&before, &record_state(world));
    project.assert_healthy(&at_last);
}

#[test]
fn nix_project_builds_once_and_then_restores() {
    run_project_jobs(Role::New);
}

#[test]
fn guix_project_builds_once_and_then_restores() {
    run_project_jobs(Role::Guix);
}

#[test]
fn read_only_job_restores_and_reports_why_it_cannot_save() {
    let service = CacheService::start();
    let project = Project::start(World::build(Role::Old).network());
    let world = &project.world;
    let push = |token: &str, mode: &str| {
        let variables = [
            "ACTIONS_CACHE_SERVICE_V2=True".to_owned(),
            format!("ACTIONS_RESULTS_URL={}", service.url()),
            format!("ACTIONS_RUNTIME_TOKEN={token}"),
            format!("ACTIONS_CACHE_MODE={mode}"),
        ];
        let words = variables.iter().flat_map(|variable| ["--env", variable]);
        project.job(&["--no-cache-server"].into_iter().chain(words).collect::<Vec<_>>()).ok()
    };
    let first = push(TOKEN, "");
    assert_eq!(built(&first), ["farewell", "greeting"]);
    project.assert_healthy(&first);
    let keys = service.keys();
    assert_eq!(keys.len(), 1);
    let written = service.seen(RequestKind::Reserve).len();
    let before = record_state(world);

    project.change(WORKFLOW, "greeting farewell", "greeting farewell welcome");
    for (token, mode, why) in [
        (read_only_token().as_str(), "", "its token has no writable scope"),
        (TOKEN, "read", "the workflow sets cache-mode: read"),
    ] {
        world.wipe_store();
        let job = push(token, mode);
        assert!(job.stdout.contains("| hit: prefix"), "{job}");
        assert_eq!(built(&job), ["welcome"]);
        let post = job.stdout.split_once("Run Post ./\n").unwrap().1;
        let reason = format!("nothing was saved: this run cannot write: {why}");
        assert_eq!(post.matches("cannot write").count(), 2, "here and in the summary: {job}");
        assert!(post.contains(&reason), "{job}");
        assert!(!post.contains("look for existing entries"), "{job}");
        project.assert_healthy(&job);
        let after = record_state(world);
        for (path, tree) in &before.trees {
            assert_eq!(tree, &after.trees[path], "{path}");
        }
        assert_eq!(service.seen(RequestKind::Reserve).len(), written);
        assert_eq!(service.keys(), keys);
    }
}
