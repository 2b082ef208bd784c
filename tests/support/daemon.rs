//! The nix-daemon or guix-daemon of a world.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Pid, Signal, kill_process};

use super::fixture_cache::Role;
use super::invocation::Running;
use super::package_manager::{PackageManager, Tree};
use super::world::{World, close_socket_directory, give_to_owner, pristine};
use super::{poll, procfs};

/// A script that replaces itself with the guix-daemon that fits the store.
const BARE_GUIX_DAEMON: &str = include_str!("bare-guix-daemon");
const SHEPHERD: &str = include_str!("shepherd.scm");
const SHEPHERD_SOCKET: &str = "/run/shepherd/socket";
const MOUNT: &str = "gnu-store.mount";
const TIMEOUT: Duration = Duration::from_secs(20);

impl World {
    /// Starts the daemon: as a bare process in a session of its own, or by its unit in a container. Returns
    /// when a real client has received a reply and, in a container with Guix, when the store is read-only
    /// again, which it is not while the service starts.
    #[track_caller]
    pub fn start_daemon(&self) {
        if self.is_container() {
            // A test may start the units more often within a few seconds than systemd allows.
            self.ok(["systemctl", "reset-failed"].iter().chain(self.units()));
            self.ok(["systemctl", "start", self.units()[0]]);
        } else if self.has_shepherd() {
            self.ok(["herd", "start", "guix-daemon"]);
        } else {
            // Without NIX_REMOTE in its environment: with it, the daemon's workers would be clients of the
            // daemon.
            let become_daemon = match self.package_manager() {
                PackageManager::Nix => "exec nix-daemon --daemon",
                PackageManager::Guix => BARE_GUIX_DAEMON,
            };
            let script = format!("exec </dev/null >>{} 2>&1\n{become_daemon}", self.log());
            self.ok(["setsid", "--fork", "bash", "-c", &script]);
        }
        self.wait_for_answer();
        if self.is_container() && self.package_manager() == PackageManager::Guix {
            poll::until("the store to be read-only", TIMEOUT, || {
                let state = self.run(["systemctl", "is-active", MOUNT]);
                if state.status.success() { Ok(()) } else { Err(state.to_string()) }
            });
        }
    }

    /// Starts a shepherd in a bare world with Guix, which starts the daemon and restarts it if it ends. From
    /// now on [`World::start_daemon`] and [`World::stop_daemon`] use this shepherd.
    #[track_caller]
    pub fn start_shepherd(&self) {
        fs::write(self.host("/etc/shepherd.scm"), SHEPHERD).unwrap();
        self.sh("mkdir -p -m 700 /run/shepherd");
        let words = ["setsid", "--fork", "shepherd", "--silent", "--config=/etc/shepherd.scm"];
        let more = ["--socket=/run/shepherd/socket", "--logfile=/var/log/shepherd.log"];
        let words = words.into_iter().chain(more);
        self.command(words).env("BARE_GUIX_DAEMON", BARE_GUIX_DAEMON).ok();
        self.wait_for_answer();
    }

    fn has_shepherd(&self) -> bool {
        self.host(SHEPHERD_SOCKET).exists()
    }

    #[track_caller]
    fn wait_for_answer(&self) {
        poll::until("the daemon to answer", TIMEOUT, || {
            if self.daemon_answers() { Ok(()) } else { Err(self.daemon_log()) }
        });
    }

    /// Stops the daemon but not its workers: each worker runs until its client disconnects. Only the service
    /// of Guix ends the workers too. The read-only mount of a store stays.
    #[track_caller]
    pub fn stop_daemon(&self) {
        let listeners = self.listeners();
        if self.is_container() {
            self.ok(["systemctl", "stop"].iter().chain(self.units()));
        } else if self.has_shepherd() {
            self.ok(["herd", "stop", "guix-daemon"]);
        } else {
            for &pid in &listeners {
                let _ = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::TERM);
            }
        }
        poll::until("the daemon to end", TIMEOUT, || {
            let left: Vec<_> = listeners
                .iter()
                .filter(|&&pid| pid != self.init() && procfs::is_alive(pid))
                .collect();
            if left.is_empty() { Ok(()) } else { Err(format!("processes {left:?}")) }
        });
    }

    /// Whether a client gets a reply. In a container with Nix, this starts the service.
    pub fn daemon_answers(&self) -> bool {
        let nothing = "/nix/store/00000000000000000000000000000000-nothing";
        let words: &[_] = match self.package_manager() {
            PackageManager::Nix => &["nix-store", "--check-validity", "--print-invalid", nothing],
            PackageManager::Guix => &["guix", "gc", "--list-failures"],
        };
        self.nix(words).status.success()
    }

    /// The pid, as this world sees it, of the process that listens on the socket. With systemd, that is the
    /// service if it runs, and otherwise systemd itself.
    pub fn daemon_pid(&self) -> Option<u32> {
        let mut inner: Vec<u32> =
            self.listeners().into_iter().filter_map(|pid| procfs::pids(pid)?.pop()).collect();
        inner.sort_by_key(|&pid| (pid == 1, pid));
        inner.first().copied()
    }

    /// The pid of the process behind a socket, as the kernel reports it to a client that connects. Of two
    /// daemons, this is the one that clients can reach.
    pub fn listener(&self, socket: &str) -> Option<u32> {
        let ask = "import socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
print(struct.unpack('iII', s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])";
        self.run(["python3", "-c", ask, socket]).stdout.trim().parse().ok()
    }

    fn listeners(&self) -> Vec<u32> {
        procfs::listeners(self.init(), &Path::new(self.state()).join("daemon-socket/socket"))
    }

    /// The unit to start, then the unit that systemd starts for it.
    fn units(&self) -> &'static [&'static str] {
        match self.package_manager() {
            PackageManager::Nix => &["nix-daemon.socket", "nix-daemon.service"],
            PackageManager::Guix => &["guix-daemon.service"],
        }
    }

    fn log(&self) -> String {
        format!("/var/log/{}.log", self.package_manager().daemon())
    }

    /// Everything that the bare daemons of this world, or the service in a container, have logged so far.
    pub fn daemon_log(&self) -> String {
        if self.is_container() {
            return self
                .run(["journalctl", "--no-pager", "--unit", self.package_manager().daemon()])
                .stdout;
        }
        fs::read_to_string(self.host(self.log())).unwrap_or_default()
    }

    /// Waits until no process has the database open, as shown by the lock that each such process holds.
    #[track_caller]
    pub fn wait_until_idle(&self) {
        poll::until("all processes to close the database", TIMEOUT, || {
            self.try_lock("db/big-lock")
        });
    }

    /// Takes a lock of the state directory and releases it.
    ///
    /// # Errors
    /// If another process holds the lock.
    pub fn try_lock(&self, name: &str) -> Result<(), String> {
        let path = self.host(self.state()).join(name);
        let Ok(lock) = File::options().read(true).write(true).open(path) else {
            return Ok(());
        };
        let held = |error: &dyn ToString| format!("{name}: {}", error.to_string());
        match self.package_manager() {
            PackageManager::Nix => lock.try_lock().map_err(|error| held(&error)),
            PackageManager::Guix => fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive)
                .map_err(|error| held(&error)),
        }
    }

    /// Keeps a restore in its commit, with the daemon stopped, until the value is dropped: a process holds an
    /// open write transaction. The daemon must have created the database.
    #[track_caller]
    pub fn hold_database(&self) -> Running<'_> {
        assert!(self.daemon_answers(), "the database is made by the daemon");
        self.wait_until_idle();
        let hold = format!(
            "import sqlite3, time
database = sqlite3.connect('file:{}/db/db.sqlite?mode=rw', uri=True, isolation_level=None)
database.execute('BEGIN IMMEDIATE')
print('held', flush=True)
time.sleep(1000)",
            self.state()
        );
        let holder = self.spawn(["python3", "-c", &hold]);
        poll::until("the database to be held", TIMEOUT, || match holder.stdout() {
            said if said.contains("held") => Ok(()),
            said => Err(format!("{said}{}", holder.stderr())),
        });
        holder
    }

    /// Keeps a restore waiting in its commit, with the daemon running, until the file is dropped.
    #[track_caller]
    pub fn hold_big_lock(&self) -> File {
        let path = self.host(self.state()).join("db/big-lock");
        let lock = File::options().read(true).write(true).open(path).unwrap();
        // Nix uses `flock` and Guix record locks, which do not exclude each other; see `crates/store/src/locks.rs`.
        match self.package_manager() {
            PackageManager::Nix => lock.lock_shared().unwrap(),
            PackageManager::Guix => {
                let whole = nix::libc::flock {
                    l_type: nix::libc::F_RDLCK as i16,
                    l_whence: nix::libc::SEEK_SET as i16,
                    l_start: 0,
                    l_len: 0,
                    l_pid: 0,
                };
                fcntl(&lock, FcntlArg::F_OFD_SETLK(&whole)).map(drop).unwrap();
            }
        }
        lock
    }

    /// Gives the user `guix-daemon` and its group another number, as on another machine, and changes the
    /// owner of its files accordingly. The daemon must not be running.
    #[track_caller]
    pub fn renumber_owner(&self, number: u32) {
        assert_eq!(self.daemon_pid(), None);
        self.sh(&format!(
            "groupmod -g {number} guix-daemon
             usermod -u {number} guix-daemon
             chown -R guix-daemon:guix-daemon /gnu/store /var/guix /var/log/guix"
        ));
    }

    /// Resets store and state to a fresh installation: no items, no rows, no roots. Stops the daemon
    /// meanwhile, and starts it again if it was running.
    #[track_caller]
    pub fn wipe_store(&self) {
        self.refill_store(|tree| pristine(self.role(), tree));
    }

    /// Replaces store and state with copies of what `source` returns for each of their trees. Stops the
    /// daemon meanwhile, and starts it again if it was running.
    #[track_caller]
    pub fn refill_store(&self, source: impl Fn(Tree) -> PathBuf) {
        let was_up = self.daemon_pid().is_some();
        self.stop_daemon();
        self.wait_until_idle();
        for &tree in self.package_manager().trees() {
            let here = self.host(tree.inside);
            // A directory that is a mount point, in this namespace or another, must stay.
            let store = self.host(self.store());
            let mut find = Command::new("find");
            find.arg(&here).args(["-mindepth", "1", "-not", "-path"]).arg(&store).arg("-delete");
            let mut copy = Command::new("cp");
            copy.arg("-a").arg(source(tree).join(".")).arg(&here);
            for mut command in [find, copy] {
                let status = command.status().unwrap();
                assert!(status.success(), "cannot wipe {}", here.display());
            }
            give_to_owner(self.role(), &here);
        }
        if !self.is_container() {
            close_socket_directory(&self.host(self.state()));
        }
        if self.role() == Role::Guix {
            // The number of the user may have changed since the installation.
            let numbers = self.sh("echo $(id -u guix-daemon):$(id -g guix-daemon)").stdout;
            let mut chown = Command::new("chown");
            chown.args(["-R", numbers.trim()]);
            chown.args([self.host(self.store()), self.host(self.state())]);
            assert!(chown.status().unwrap().success(), "cannot change the owner of the store");
        }
        if was_up {
            self.start_daemon();
        }
    }
}
