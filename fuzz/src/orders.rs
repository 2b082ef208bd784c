//! Fuzzes the root helper's decision on whose rights it uses, and its guardian, in a world in which the input
//! determines everything that others control: the request, the files and their owners, processes, sockets,
//! records of a stopped daemon, and the output of systemctl and herd. See `scene` for the format.
//!
//! For all inputs, no program outside of the closed list is executed, no path outside of the declared set is
//! opened, and a confined requester controls nothing that is done with root's rights.

use super::fake_kernel::{Event, PARENT};
use super::scene::{Kind, Machine, Scene, Suspects, parent};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use storecache_daemon::DaemonChoice;
use storecache_programs::{Execution, Kind as Program, answer_with, executed};
use storecache_root_helper::protocol::{Request, StoreRequest};
use storecache_root_helper::{Caller, serve_orders};
use storecache_runtime::RunContext;
use storecache_store::StoreKind;

/// If this environment variable is set, the answers, actions and executions of the guardian are printed.
const SHOW: &str = "STORECACHE_FUZZ_SHOW";
/// The other process of guardian and backup guardian.
const OTHER: u32 = 20;
/// Maximum timeout that a confined requester may choose.
const CONFINED_LIMIT: Duration = Duration::from_secs(60);
/// Timeout of the guardian. Simulated sleeps return at once but the clock is real, so it has to be short.
const PATIENCE: Duration = Duration::from_millis(2);
/// Directories of root's records of a stopped daemon.
const RECORDS: [&str; 2] = ["/run/storecache", "/var/lib/storecache"];
const SHEPHERDS: [&str; 2] = ["/run/shepherd/socket", "/var/run/shepherd/socket"];
/// Files that the C library reads to look up users and groups.
const ACCOUNTS: [&str; 3] = ["/etc/passwd", "/etc/group", "/etc/nsswitch.conf"];
const NAME_SERVICE: &str = "/var/run/nscd/socket";

pub fn run(input: &[u8]) -> bool {
    // Programs that were executed are recorded for the process as a whole, and tests run side by side.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut scene = Scene::parse(input);
    scene.add_child(OTHER, PARENT);
    let machine = Machine::new(scene);
    let scene = &machine.scene;
    let Some(decided) = decide(&machine) else { return false };
    let is_done = match (scene.ward, decided.result) {
        (None, result) => result.is_ok(),
        (Some(_), Err(_)) => false,
        (Some(ward), Ok(())) => guard(&machine, &decided.store, decided.mandate, ward),
    };
    is_done && scene.skipped == 0
}

/// The decision of the root helper.
struct Decided {
    store: StoreRequest,
    mandate: Caller,
    result: Result<(), String>,
}

/// Runs the decision of the root helper. Returns `None` if the request is not valid.
fn decide(machine: &Machine) -> Option<Decided> {
    let scene = &machine.scene;
    let store = serde_json::from_str(scene.store.as_deref()?).ok()?;
    let request = Request::Store(store);
    request.check(&[]).ok()?;
    let Request::Store(store) = request else { unreachable!("it was just made") };
    let asked = store.clone();
    let pairs = scene.variables.iter().map(|(name, value)| (name.into(), value.into()));
    let (environment, everywhere) = (pairs.collect::<Vec<_>>(), scene.everywhere);
    answer_with(Vec::new());
    let outcome = machine.run(Vec::new(), move || {
        let mut store = store;
        let mandate = Caller::from_environment(&environment, everywhere);
        let applied = mandate.and_then(|mut mandate| {
            let before = mandate;
            mandate.apply(&mut store).map(|_| (before, mandate))
        });
        (applied.map_err(|e| format!("{e:#}")), store)
    });
    let (applied, store) = &outcome.done;
    let decision = Decision { scene, asked: &asked, store, outcome: &outcome.events };
    decision.judge_calls();
    let mandate = match applied {
        Ok((before, after)) => {
            decision.judge(*before, *after, outcome.uid);
            *after
        }
        Err(_) => Caller::default(),
    };
    let result = applied.as_ref().map(drop).map_err(Clone::clone);
    Some(Decided { store: store.clone(), mandate, result })
}

/// A decision to check.
struct Decision<'a> {
    scene: &'a Scene,
    asked: &'a StoreRequest,
    store: &'a StoreRequest,
    outcome: &'a [Event],
}

impl Decision<'_> {
    /// Checks that the decision only reads.
    fn judge_calls(&self) {
        let executed = executed();
        assert!(executed.is_empty(), "a decision executes nothing: {executed:?}");
        for event in self.outcome {
            let allowed = match event {
                Event::Open { path, write: false } => {
                    ACCOUNTS.contains(&path.as_str()) || path.starts_with("/proc/self/")
                }
                Event::Connect(path) => path == NAME_SERVICE,
                Event::SetUser(_) | Event::SetGroup(_) | Event::SetGroups(_) => true,
                _ => false,
            };
            assert!(allowed, "a decision only looks: {event:?}");
        }
    }

    fn judge(&self, before: Caller, after: Caller, uid_after: u32) {
        let Decision { scene, asked, store, outcome } = self;
        let variable = |name: &str| {
            let mut found = scene.variables.iter().filter(|(it, _)| it == name);
            found.next().map(|(_, value)| value.as_str())
        };
        if scene.uid == 0 {
            let named = variable("SUDO_UID").and_then(|text| text.parse().ok());
            let requester = before.requester.map(|(uid, _)| uid);
            assert_eq!(requester, named.filter(|&uid: &u32| uid != 0), "sudo names the requester");
            let other = ["DOAS_USER", "PKEXEC_UID"].into_iter().any(|it| variable(it).is_some());
            assert!(named.is_some() || !other, "it is not known on whose behalf");
        }
        let changes = |event: &&Event| {
            matches!(event, Event::SetUser(_) | Event::SetGroup(_) | Event::SetGroups(_))
        };
        let changes: Vec<_> = outcome.iter().filter(changes).collect();
        let confined = before.requester.filter(|_| !before.everywhere);
        if let Some((uid, gid)) = confined {
            for time in [store.lock_timeout, store.daemon_timeout, store.stall] {
                assert!(time <= CONFINED_LIMIT, "a confined requester waits for {time:?}");
            }
            if scene.uid == 0 && uid_after != 0 {
                let [Event::SetGroups(groups), Event::SetGroup(set_gid), Event::SetUser(set_uid)] =
                    changes[..]
                else {
                    panic!("groups, then the group, then the user: {changes:?}")
                };
                assert_eq!((*set_uid, *set_gid, uid_after), (uid, gid, uid));
                assert!(groups.contains(&gid) && (gid == 0 || !groups.contains(&0)), "{groups:?}");
                assert_eq!(after.requester, None, "nothing is left to be confined");
                return;
            }
        }
        assert!(changes.is_empty(), "{changes:?}");
        assert_eq!(before, after);
        let resolved = |path: &str| self.scene.resolve("/", path);
        let root = asked.root.to_str().and_then(&resolved);
        if let Some((root, _)) = &root {
            let is_item = |store: &str| {
                root.match_indices(store).any(|(at, found)| {
                    root[at + found.len()..].len() > 1
                        && (root[..at].is_empty() || root.starts_with('/'))
                })
            };
            let exists = scene.nodes.contains_key(root);
            assert!(
                !exists || !["/nix/store/", "/gnu/store/"].iter().any(|it| is_item(it)),
                "{root}"
            );
        }
        let Some((uid, gid)) = confined.filter(|_| scene.uid == 0) else { return };
        // From here on, root's rights are kept.
        assert_ne!(asked.kind, StoreKind::Plain, "users name the directories");
        assert_eq!(
            root.map(|(root, _)| root).as_deref(),
            Some("/"),
            "root's rights below another root"
        );
        assert_eq!(store.root, Path::new("/"));
        let groups = groups_of(scene, uid, gid);
        let suspects = Suspects::User { uid, groups };
        for place in places(store.kind) {
            let (_, seen) = resolved(place).expect("a loop is an error");
            let replaceable = scene.replaceable(&suspects, &seen);
            assert_eq!(replaceable, None, "user {uid} decides where {place} leads");
        }
    }
}

/// Returns the words after the end of the options.
fn operands(words: &[std::ffi::OsString]) -> Vec<String> {
    let after = words.iter().skip_while(|word| *word != "--").skip(1);
    after.map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Returns the directories that root's rights are used on.
fn places(kind: StoreKind) -> [&'static str; 3] {
    match kind {
        StoreKind::Guix => ["/gnu/store", "/var/guix/db", "/var/guix/gcroots/storecache"],
        _ => ["/nix/store", "/nix/var/nix/db", "/nix/var/nix/gcroots/storecache"],
    }
}

/// Returns the groups of a user, by the first line of `/etc/passwd` with its number.
fn groups_of(scene: &Scene, uid: u32, gid: u32) -> Vec<u32> {
    let read = |path: &str| match scene.nodes.get(path).map(|node| &node.kind) {
        Some(Kind::File(content)) => String::from_utf8_lossy(content).into_owned(),
        _ => String::new(),
    };
    let fields = |text: &str| -> Vec<Vec<String>> {
        text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect()
    };
    let users = fields(&read("/etc/passwd"));
    let name = users.iter().find(|user| user.get(2).is_some_and(|it| *it == uid.to_string()));
    let name = name.and_then(|user| user.first());
    let listed = fields(&read("/etc/group")).into_iter().filter(|group| {
        group.get(3).is_some_and(|members| {
            members.split(',').any(|it| Some(it) == name.map(String::as_str))
        })
    });
    let listed = listed.filter_map(|group| group.get(2)?.parse().ok());
    [gid].into_iter().chain(listed).collect()
}

/// Runs a guardian for a store. Returns whether it completed all requests.
fn guard(machine: &Machine, store: &StoreRequest, mandate: Caller, ward: (bool, bool)) -> bool {
    let scene = &machine.scene;
    let mut store = store.clone();
    for time in [&mut store.lock_timeout, &mut store.daemon_timeout] {
        *time = (*time).min(PATIENCE);
    }
    store.stall = Duration::from_secs(1);
    let (restores, is_backup) = ward;
    let post = serde_json::json!({
        "setup": { "store": store, "mandate": mandate, "restores": restores },
        "is_backup": is_backup,
        "other": OTHER,
    });
    let lines = [post.to_string()].into_iter().chain(scene.orders.iter().cloned());
    let input = lines.map(|line| format!("{line}\n").into_bytes()).collect();
    answer_with(scene.answers.clone());
    let outcome = machine.run(input, || serve_orders(&RunContext::default(), |_| {}));
    storecache_runtime::disclosure::lift_limit();
    let executed = executed();
    if std::env::var_os(SHOW).is_some() {
        eprint!("{}", String::from_utf8_lossy(&outcome.output));
        outcome.events.iter().for_each(|event| eprintln!("{event:?}"));
        executed.iter().for_each(|execution| eprintln!("{execution:?}"));
    }
    let judge = Watched::new(scene, &store, mandate, &executed);
    outcome.events.iter().for_each(|event| judge.judge_event(event));
    judge.judge_executions();
    let answers = String::from_utf8_lossy(&outcome.output);
    outcome.done == 0 && !answers.contains("\"Failed\"")
}

/// The actions of a guardian to check.
struct Watched<'a> {
    scene: &'a Scene,
    store: &'a StoreRequest,
    mandate: Caller,
    executed: &'a [Execution],
    /// The resolved directories of the store.
    store_dir: String,
    state_dir: String,
    database_dir: String,
    roots_dir: String,
    socket_dir: String,
    /// Sockets of shepherds, and whether the requester named them.
    shepherds: Vec<(String, bool)>,
}

impl<'a> Watched<'a> {
    fn new(
        scene: &'a Scene,
        store: &'a StoreRequest,
        mandate: Caller,
        executed: &'a [Execution],
    ) -> Self {
        let root = store.root.to_str().unwrap_or("/");
        let root = scene.resolve("/", root).map_or_else(|| "/".into(), |(root, _)| root);
        let inside =
            |path: &str| scene.resolve(&root, path).map(|(path, _)| path).unwrap_or_default();
        let (store_dir, state) = match store.kind {
            StoreKind::Guix => ("/gnu/store", "/var/guix"),
            _ => ("/nix/store", "/nix/var/nix"),
        };
        let own = store
            .shepherds
            .iter()
            .map(|own| (own.display().to_string(), mandate.confined().is_some()));
        // The last component is not followed.
        let system = SHEPHERDS.map(|socket| {
            (format!("{}/socket", inside(parent(socket)).trim_end_matches('/')), false)
        });
        Watched {
            scene,
            store,
            mandate,
            executed,
            store_dir: inside(store_dir),
            state_dir: inside(state),
            database_dir: inside(&format!("{state}/db")),
            roots_dir: inside(&format!("{state}/gcroots/storecache")),
            socket_dir: inside(&format!("{state}/daemon-socket")),
            shepherds: own.chain(system).collect(),
        }
    }

    /// Returns the user who owns the store.
    fn owner(&self) -> u32 {
        let nodes = &self.scene.nodes;
        let place = nodes.get(&self.database_dir).or_else(|| nodes.get(&self.state_dir));
        place.map_or(0, |node| node.uid)
    }

    fn record_places(&self) -> Vec<String> {
        match self.scene.uid {
            0 => RECORDS.map(str::to_owned).into(),
            uid => vec![format!("/run/user/{uid}/storecache")],
        }
    }

    fn judge_event(&self, event: &Event) {
        let allowed = match event {
            Event::Open { path, write } => self.may_open(path, *write),
            Event::Change(path) => self.may_change(path),
            Event::Connect(path) => {
                *path == format!("{}/socket", self.socket_dir)
                    || self.shepherds.iter().any(|(socket, _)| self.is_same(socket, path))
            }
            Event::Signal { pid: OTHER, signal: 9 } => true,
            Event::Signal { pid, signal: 15 } => self.may_stop(*pid),
            Event::SetFileUser(uid) => {
                *uid == self.scene.uid || self.mandate.requester.is_some_and(|(own, _)| own == *uid)
            }
            // A thread that reads /proc with the rights of the requester drops its groups.
            Event::SetGroups(groups) => groups.is_empty() && self.mandate.confined().is_some(),
            // The program of a service manager is opened to check whether it was replaced.
            Event::OpenProgram(_) => true,
            Event::Unmount(path) => path == self.store_name(),
            _ => false,
        };
        assert!(allowed, "outside of the declared set: {event:?}");
    }

    fn store_name(&self) -> &'static str {
        match self.store.kind {
            StoreKind::Guix => "/gnu/store",
            _ => "/nix/store",
        }
    }

    /// Returns whether two paths are the same after resolving links in their directories.
    fn is_same(&self, one: &str, other: &str) -> bool {
        let directory = |path: &str| self.scene.resolve("/", parent(path)).map(|(path, _)| path);
        let name = |path: &str| path.rsplit('/').next().map(str::to_owned);
        directory(one) == directory(other) && name(one) == name(other)
    }

    /// Returns whether a path is a staging directory, or below one.
    fn is_in_staging(&self, path: &str) -> bool {
        let places = [&self.store_dir[..], parent(&self.store_dir), &self.state_dir];
        places.iter().any(|place| {
            let below = path.strip_prefix(place.trim_end_matches('/'));
            below.is_some_and(|below| below.starts_with("/.storecache-"))
        })
    }

    /// Returns whether a path is, or is below, a directory that an aborted save of this user left.
    fn is_copy_of_database(&self, path: &str) -> bool {
        let prefix = std::env::temp_dir().join("storecache-database-").display().to_string();
        let Some(rest) = path.strip_prefix(&prefix) else { return false };
        let name = format!("{prefix}{}", rest.split('/').next().unwrap_or_default());
        self.scene.nodes.get(&name).is_some_and(|it| {
            it.kind != Kind::Directory || path == name || it.uid == self.scene.uid
        })
    }

    fn is_record(&self, path: &str) -> bool {
        let places = self.record_places();
        let Some(place) = places.iter().find(|place| parent(path) == place.as_str()) else {
            return false;
        };
        let uid = self.scene.uid;
        let seen = self.scene.resolve("/", place).map(|(_, seen)| seen).unwrap_or_default();
        let replaceable = self.scene.replaceable(&Suspects::EverybodyBut(uid), &seen);
        assert_eq!(replaceable, None, "others decide what {path} is");
        if let Some(directory) = self.scene.nodes.get(place) {
            assert!(!Suspects::EverybodyBut(uid).can_write(directory), "others write to {place}");
        }
        true
    }

    fn may_open(&self, path: &str, write: bool) -> bool {
        let database = format!("{}/", self.database_dir);
        let directories = [
            &self.store_dir[..],
            parent(&self.store_dir),
            &self.state_dir,
            &self.roots_dir,
            &self.socket_dir,
            &self.database_dir,
        ];
        let looks = path.starts_with("/proc/")
            || path == "/proc"
            || path.starts_with("/sys/fs/cgroup/") && !path.contains("/../")
            || ACCOUNTS.contains(&path)
            || directories.contains(&path)
            || std::env::temp_dir() == Path::new(path)
            || self.record_places().iter().any(|place| place == path);
        (!write && looks)
            || self.is_copy_of_database(path)
            || path.strip_prefix(&database).is_some_and(|name| !name.contains('/'))
            || self.is_in_staging(path)
            || self.is_record(path)
    }

    fn may_change(&self, path: &str) -> bool {
        let is_item = parent(path) == self.store_dir || parent(path) == self.roots_dir;
        let database = format!("{}/", self.database_dir);
        self.is_in_staging(path)
            || self.is_copy_of_database(path)
            || self.record_places().iter().any(|place| place == path)
            || self.is_record(path)
            || path == self.roots_dir
            || path.starts_with(&database)
            // Items that an aborted run has placed, according to its own record.
            || is_item && self.has_own_plan()
    }

    /// Returns whether a staging directory of this user contains a record of the items that were about to be
    /// placed.
    fn has_own_plan(&self) -> bool {
        self.scene.nodes.iter().any(|(path, _)| {
            let staging = self.scene.nodes.get(parent(path));
            path.ends_with("/.placing")
                && self.is_in_staging(path)
                && staging.is_some_and(|it| it.uid == self.scene.uid)
        })
    }

    /// Returns whether the guardian may terminate a process: only a listener that is certainly the daemon.
    fn may_stop(&self, pid: u32) -> bool {
        let by_process = matches!(self.store.daemon, DaemonChoice::Auto | DaemonChoice::Process);
        let socket = format!("{}/socket", self.socket_dir);
        let Some(node) = self.scene.nodes.get(&socket) else { return false };
        let Kind::Socket(peer) = &node.kind else { return false };
        let trusted = [0, self.owner(), self.scene.uid];
        let seen = self.scene.resolve("/", &socket).map(|(_, seen)| seen).unwrap_or_default();
        let others = Suspects::EverybodyBut(self.owner());
        by_process
            && peer.pid == pid
            && trusted.contains(&peer.uid)
            && self.scene.replaceable(&others, &seen).is_none()
    }

    fn judge_executions(&self) {
        // Names that systemd or a shepherd has printed.
        let mut told: Vec<&str> = Vec::new();
        for execution in self.executed {
            let Execution { program, words, user, printed, .. } = execution;
            let allowed = match program {
                Program::Systemctl { verb, units } => {
                    let listed = self.units();
                    let known =
                        |unit: &String| listed.contains(unit) || told.contains(&unit.as_str());
                    let are_known = !units.is_empty() && units.iter().all(known);
                    let verbs = ["is-active", "show", "start", "stop", "reset-failed", "kill"];
                    if *verb == "show" {
                        let values =
                            printed.lines().filter_map(|line| Some(line.split_once('=')?.1));
                        told.extend(values.flat_map(str::split_whitespace));
                    }
                    are_known && verbs.contains(verb) && user.is_none() && operands(words) == *units
                }
                Program::Herd { socket, words: orders } => {
                    let service = orders.get(1).map(String::as_str);
                    let is_listed = service.is_none_or(|it| it == self.service() || it == "root");
                    let is_told = service.is_some_and(|it| told.contains(&it));
                    let allowed = match orders[0].as_str() {
                        "status" => is_listed || is_told,
                        "stop" => service == Some(self.service()),
                        "start" => service == Some(self.service()) || is_told,
                        _ => false,
                    };
                    if orders.len() == 1 {
                        let names =
                            printed.lines().filter_map(|line| line.trim().strip_prefix("+ "));
                        told.extend(names.map(str::trim));
                    }
                    let after = operands(words);
                    allowed && self.may_ask(&socket.to_string_lossy(), *user) && after == *orders
                }
                Program::DetachMount { path } => path == self.store_name() && user.is_none(),
                Program::UserCommand { text, .. } => {
                    let own = match &self.store.daemon {
                        DaemonChoice::Command { stop, start } => [stop, start].contains(&text),
                        _ => false,
                    };
                    own && *user == self.mandate.requester
                }
                Program::Daemon { identity, variables, groups } => {
                    self.may_start(*identity, variables, groups, *user)
                }
                Program::Journalctl | Program::PackageManager => false,
                Program::Guardian | Program::RootHelper => false,
            };
            assert!(allowed, "outside of the closed list: {execution:?}");
        }
    }

    fn units(&self) -> Vec<String> {
        let units: &[&str] = match self.store.kind {
            StoreKind::Guix => &["guix-daemon.service", "gnu-store.mount"],
            _ => &[
                "nix-daemon.socket",
                "nix-daemon.service",
                "determinate-nixd.socket",
                "nix-store.mount",
            ],
        };
        units.iter().map(|&unit| unit.to_owned()).collect()
    }

    fn service(&self) -> &'static str {
        match self.store.kind {
            StoreKind::Guix => "guix-daemon",
            _ => "nix-daemon",
        }
    }

    /// Returns whether herd may contact a shepherd as that user.
    fn may_ask(&self, socket: &str, user: Option<(u32, u32)>) -> bool {
        let Some((_, is_named)) = self.shepherds.iter().find(|(it, _)| it == socket) else {
            return false;
        };
        let found =
            self.scene.resolve("/", socket).and_then(|(path, _)| self.scene.nodes.get(&path));
        let Some(Kind::Socket(peer)) = found.map(|node| &node.kind) else { return false };
        match user {
            // The process may use its own user only for a shepherd that runs as this user.
            None => !is_named && peer.uid == self.scene.uid,
            Some(user) => Some(user) == self.mandate.requester && peer.uid == user.0,
        }
    }

    /// Returns whether a bare daemon may be started again.
    fn may_start(
        &self,
        identity: (u64, u64),
        variables: &[std::ffi::OsString],
        groups: &[u32],
        user: Option<(u32, u32)>,
    ) -> bool {
        let loader = ["LD_", "MALLOC_", "GLIBC_TUNABLES=", "GCONV_PATH=", "TMPDIR="];
        let is_loaders = |it: &std::ffi::OsString| {
            loader.iter().any(|name| it.as_encoded_bytes().starts_with(name.as_bytes()))
        };
        let socket = format!("{}/socket", self.socket_dir);
        let Some(Kind::Socket(peer)) = self.scene.nodes.get(&socket).map(|node| &node.kind) else {
            return false;
        };
        let Some(user) = user else { return false };
        let file = |name: &str| match self.scene.nodes.get(&format!("/proc/{}/{name}", peer.pid)) {
            Some(node) => node.kind.clone(),
            None => Kind::Directory,
        };
        let Kind::File(status) = file("status") else { return false };
        let status = String::from_utf8_lossy(&status).into_owned();
        let ids = |name: &str| -> Vec<String> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().map(str::to_owned).collect()
        };
        let only = |name: &str, id: u32| {
            ids(name) == [id.to_string(), id.to_string(), id.to_string(), id.to_string()]
        };
        // The executable must be the file that the daemon ran, and other users must not be able to change it
        // or a directory on the way to it.
        let Kind::Link(program) = file("exe") else { return false };
        let Some((program, seen)) = self.scene.resolve("/", &program) else { return false };
        let others = Suspects::EverybodyBut(user.0);
        let Some(found) = self.scene.nodes.get(&program) else { return false };
        self.may_stop(peer.pid)
            && identity == (super::fake_kernel::DEVICE, super::scene::inode_of(&program))
            && !variables.iter().any(is_loaders)
            && user.0 == peer.uid
            && only("Uid:", user.0)
            && only("Gid:", user.1)
            && groups.iter().all(|it| ids("Groups:").contains(&it.to_string()))
            && !others.can_write(found)
            && self.scene.replaceable(&others, &seen).is_none()
    }
}
