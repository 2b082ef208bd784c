//! Starts and ends worlds.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use super::fixture_cache::{Fixture, Role};
use super::invocation::{Invocation, Output, Running};
use super::package_manager::{PackageManager, Tree};
use super::scratch::{Backend, Scratch};
use super::{poll, procfs};

/// The path in a container of the drop-in [`Role::drop_in`] for the daemon's service.
const DROP_IN: &str = "/etc/systemd/system/guix-daemon.service.d/test.conf";
const START_TIMEOUT: Duration = Duration::from_secs(20);
const BOOT_TIMEOUT: Duration = Duration::from_secs(90);
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// The settings of a world before its start.
#[derive(Clone, Debug)]
pub struct Plan {
    role: Role,
    fixture: Option<Fixture>,
    backend: Option<Backend>,
    container: bool,
    network: bool,
    sees: Vec<(PathBuf, String)>,
}

impl Plan {
    /// Starts with a copy of that fixture instead of a fresh installation's store.
    pub fn fixture(mut self, fixture: Fixture) -> Plan {
        self.fixture = Some(fixture);
        self
    }

    /// Shares `/cache` with other worlds that have this backend.
    pub fn backend(mut self, backend: &Backend) -> Plan {
        self.backend = Some(backend.clone());
        self
    }

    /// Boots systemd, with the socket unit of nix-daemon, or the service of guix-daemon and the read-only
    /// mount of its store, instead of running bare processes. A drop-in keeps the Guix daemon from using
    /// substitutes, and makes it run as root in [`Role::GuixRoot`].
    pub fn container(mut self) -> Plan {
        self.container = true;
        self
    }

    /// Shares the network of the test process, so that the world can reach a service that the test runs on a
    /// port. Otherwise the world has only a loopback device.
    pub fn network(mut self) -> Plan {
        self.network = true;
        self
    }

    /// Makes a file or directory of this machine visible at a path of the world.
    pub fn bind_mount(mut self, here: impl Into<PathBuf>, inside: impl Into<String>) -> Plan {
        self.sees.push((here.into(), inside.into()));
        self
    }

    #[track_caller]
    pub fn start(self) -> World {
        World::start(self)
    }
}

/// An isolated machine with its own pids, mounts, network and host name. Its root is that of the [`Role`],
/// and its store and state are private, on a plain file system. The storecache under test is in its `PATH`.
///
/// A bare world starts without a daemon. A container starts with the socket unit of nix-daemon active, or
/// with guix-daemon answering and its store read-only.
#[derive(Debug)]
pub struct World {
    role: Role,
    container: bool,
    backend: Backend,
    keeper: Child,
    init: u32,
    scratch: Scratch,
}

impl World {
    pub fn build(role: Role) -> Plan {
        Plan {
            role,
            fixture: None,
            backend: None,
            container: false,
            network: false,
            sees: Vec::new(),
        }
    }

    /// A bare world after the installation of Nix or Guix: no item, no database.
    #[track_caller]
    pub fn new(role: Role) -> World {
        World::build(role).start()
    }

    /// A bare world with a filled store.
    #[track_caller]
    pub fn with_fixture(role: Role, fixture: Fixture) -> World {
        World::build(role).fixture(fixture).start()
    }

    /// A world that has booted systemd, with an empty store.
    #[track_caller]
    pub fn container(role: Role) -> World {
        World::build(role).container().start()
    }

    #[track_caller]
    fn start(plan: Plan) -> World {
        assert!(
            rustix::process::geteuid().is_root(),
            "worlds need root: run the tests through sudo"
        );
        let root = plan.role.root();
        let scratch = Scratch::new();
        let backend = plan.backend.unwrap_or_default();

        let bind = |source: &Path, target: &str| format!("{}:{target}", source.display());
        let trees = plan.role.package_manager().trees().iter().map(|&tree| {
            let source = match plan.fixture {
                Some(fixture) => plan.role.fixture(fixture).join(tree.name),
                None => pristine(plan.role, tree),
            };
            let copy = scratch.copy(&source, tree.name);
            if plan.fixture.is_none() {
                give_to_owner(plan.role, &copy);
            }
            if !plan.container {
                let state = Path::new(plan.role.package_manager().state());
                if let Ok(below) = state.strip_prefix(tree.inside) {
                    close_socket_directory(&copy.join(below));
                }
            }
            bind(&copy, tree.inside)
        });
        let trees: Vec<_> = trees.collect();
        let drop_in = plan.role.drop_in().map(|path| bind(&path, DROP_IN));
        let mut keeper = Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "--pid",
                "--fork",
                "--kill-child",
                "--uts",
            ])
            .args((!plan.network).then_some("--net"))
            .env("NETWORK", if plan.network { "host" } else { "private" })
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/init"))
            .arg(if plan.container { "container" } else { "world" })
            .args([&root, scratch.path()])
            .args(trees)
            .args(drop_in)
            .args(plan.sees.iter().map(|(here, inside)| bind(here, inside)))
            .arg(bind(&backend.host_path(), "/cache"))
            .arg(bind(&binary(), "/usr/local/bin/storecache"))
            .stdin(Stdio::piped())
            .stdout(File::create(scratch.path().join("said")).unwrap())
            .stderr(File::options().append(true).open(scratch.path().join("said")).unwrap())
            .spawn()
            .expect("cannot run unshare");
        poll::until("the world to be ready", START_TIMEOUT, || {
            let said = fs::read_to_string(scratch.path().join("said")).unwrap();
            let ended = keeper.try_wait().unwrap();
            assert!(ended.is_none(), "the world has not started: {said}");
            if said.contains("ready\n") { Ok(()) } else { Err(said) }
        });
        let init =
            procfs::first_child(keeper.id()).expect("PID 1 of the world is the child of unshare");
        let mut world =
            World { role: plan.role, container: plan.container, backend, keeper, init, scratch };
        if world.container {
            world.wait_for_boot();
            if world.package_manager() == PackageManager::Guix {
                world.start_daemon();
            }
        }
        world
    }

    #[track_caller]
    fn wait_for_boot(&mut self) {
        self.init = poll::until("systemd to appear", START_TIMEOUT, || {
            let mark = format!("STORECACHE_WORLD={}", self.scratch.name());
            let is_init = |&pid: &u32| {
                procfs::pids(pid).is_some_and(|pids| pids.len() > 2 && pids.ends_with(&[1]))
                    && fs::read(format!("/proc/{pid}/environ")).is_ok_and(|variables| {
                        variables.split(|&byte| byte == 0).any(|it| it == mark.as_bytes())
                    })
            };
            procfs::all().into_iter().find(is_init).ok_or_else(|| self.console())
        });
        poll::until("systemd to have booted", BOOT_TIMEOUT, || {
            let state = self.run(["systemctl", "is-system-running"]);
            match state.stdout.trim() {
                "running" | "degraded" => Ok(()),
                _ => Err(format!("{state}{}", self.console())),
            }
        });
    }

    fn console(&self) -> String {
        fs::read_to_string(self.scratch.path().join("console")).unwrap_or_default()
    }

    pub fn role(&self) -> Role {
        self.role
    }

    pub fn package_manager(&self) -> PackageManager {
        self.role.package_manager()
    }

    /// The directory of the items.
    pub fn store(&self) -> &'static str {
        self.package_manager().store()
    }

    /// The directory with the database.
    pub fn state(&self) -> &'static str {
        self.package_manager().state()
    }

    pub fn is_container(&self) -> bool {
        self.container
    }

    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The pid of its PID 1 as the test process sees it.
    pub fn init(&self) -> u32 {
        self.init
    }

    /// The path of a file of this world for the test process. Absolute symlinks on the way would lead outside
    /// of the world; below `/nix` and `/gnu`, no path to an item has one. A read-only mount in the world does
    /// not affect the test process.
    pub fn host(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        let below_root = path.strip_prefix("/").expect("paths inside a world are absolute");
        for tree in self.package_manager().trees() {
            if let Ok(below) = path.strip_prefix(tree.inside) {
                return self.scratch.path().join(tree.name).join(below);
            }
        }
        PathBuf::from(format!("/proc/{}/root", self.init)).join(below_root)
    }

    /// A command in this world, to be adjusted and then run.
    pub fn command<I: IntoIterator<Item: AsRef<OsStr>>>(&self, words: I) -> Invocation<'_> {
        Invocation::new(self, words)
    }

    /// Runs as root, without the daemon, whatever the outcome.
    #[track_caller]
    pub fn run<I: IntoIterator<Item: AsRef<OsStr>>>(&self, words: I) -> Output {
        self.command(words).run()
    }

    /// Runs as root, without the daemon, and panics on failure.
    #[track_caller]
    pub fn ok<I: IntoIterator<Item: AsRef<OsStr>>>(&self, words: I) -> Output {
        self.command(words).ok()
    }

    #[track_caller]
    pub fn run_as<I: IntoIterator<Item: AsRef<OsStr>>>(&self, user: &str, words: I) -> Output {
        self.command(words).user(user).run()
    }

    #[track_caller]
    pub fn spawn<I: IntoIterator<Item: AsRef<OsStr>>>(&self, words: I) -> Running<'_> {
        self.command(words).spawn()
    }

    /// Runs as root through the daemon, whatever the outcome.
    #[track_caller]
    pub fn nix<I: IntoIterator<Item: AsRef<OsStr>>>(&self, words: I) -> Output {
        self.command(words).through_daemon().run()
    }

    /// Runs a shell script as root and panics on failure.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Output {
        self.ok(["bash", "-euo", "pipefail", "-c", script])
    }

    /// The program under test with these arguments, to be adjusted and then run.
    pub fn storecache<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Invocation<'_> {
        let mut words = vec![OsStr::new("storecache").to_owned()];
        words.extend(arguments.into_iter().map(|word| word.as_ref().to_owned()));
        self.command(words)
    }

    /// As [`World::storecache`], as an ordinary user.
    pub fn storecache_as<I: IntoIterator<Item: AsRef<OsStr>>>(
        &self,
        user: &str,
        arguments: I,
    ) -> Invocation<'_> {
        self.storecache(arguments).user(user)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // PID 1 exits at the end of its input, and the kernel then kills all processes of the world.
        drop(self.keeper.stdin.take());
        let deadline = std::time::Instant::now() + END_TIMEOUT;
        while matches!(self.keeper.try_wait(), Ok(None)) {
            if std::time::Instant::now() > deadline {
                let _ = self.keeper.kill();
                let _ = self.keeper.wait();
                break;
            }
            thread::sleep(Duration::from_millis(2));
        }
        if self.container {
            remove_control_groups(Path::new("/sys/fs/cgroup"), self.scratch.name());
        }
    }
}

/// The source of a tree as it is after the installation.
pub(super) fn pristine(role: Role, tree: Tree) -> PathBuf {
    role.root().join(tree.inside.trim_start_matches('/'))
}

/// Changes the owner of an installed tree to root, for [`Role::GuixRoot`].
pub(super) fn give_to_owner(role: Role, tree: &Path) {
    if role == Role::GuixRoot {
        let status = Command::new("chown").args(["-R", "0:0"]).arg(tree).status().unwrap();
        assert!(status.success(), "cannot change the owner of {}", tree.display());
    }
}

/// Lets only the owner of the store put a socket into `daemon-socket`, as the installers of Nix and Guix
/// leave it. Debian lets a group do so, because systemd manages the socket there; a bare world has no
/// systemd.
pub(super) fn close_socket_directory(state: &Path) {
    let directory = state.join("daemon-socket");
    if directory.is_dir() {
        fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).unwrap();
    }
}

/// The program under test. STORECACHE_TEST_BINARY selects another build, such as the one to be released.
pub(super) fn binary() -> PathBuf {
    env::var_os("STORECACHE_TEST_BINARY")
        .map_or(env!("CARGO_BIN_EXE_storecache").into(), PathBuf::from)
}

// Removes the groups that tests/support/init has made. They are in the top directory of a hierarchy, which is
// either `top` or a directory in it.
fn remove_control_groups(top: &Path, name: &str) {
    let hierarchies = fs::read_dir(top).into_iter().flatten().flatten().map(|entry| entry.path());
    for group in hierarchies.map(|it| it.join(name)).chain([top.join(name)]) {
        remove_group(&group);
    }
}

fn remove_group(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}
