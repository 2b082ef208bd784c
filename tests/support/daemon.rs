//! The nix-daemon of a world.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::world::World;
use super::{poll, procfs};

const SOCKET: &str = "/nix/var/nix/daemon-socket/socket";
const LOG: &str = "/var/log/nix-daemon.log";
const UNITS: [&str; 2] = ["nix-daemon.socket", "nix-daemon.service"];
const PATIENCE: Duration = Duration::from_secs(20);

impl World {
    /// Starts the daemon: as a bare process in a session of its own, or by its socket unit in a
    /// container. Returns when a real client has had an answer.
    #[track_caller]
    pub fn start_daemon(&self) {
        if self.is_container() {
            self.ok(["systemctl", "start", UNITS[0]]);
        } else {
            // Not with NIX_REMOTE in its environment: its workers would be clients of itself.
            self.sh(&format!("setsid --fork nix-daemon --daemon </dev/null >>{LOG} 2>&1"));
        }
        poll::until("nix-daemon to answer", PATIENCE, || {
            if self.daemon_answers() { Ok(()) } else { Err(self.daemon_log()) }
        });
    }

    /// Stops the daemon, not its workers: each lives on until its client hangs up.
    #[track_caller]
    pub fn stop_daemon(&self) {
        let listeners = self.listeners();
        if self.is_container() {
            self.ok(["systemctl", "stop"].iter().chain(&UNITS));
        } else {
            for &pid in &listeners {
                let _ = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::TERM);
            }
        }
        poll::until("nix-daemon to end", PATIENCE, || {
            let left: Vec<_> = listeners
                .iter()
                .filter(|&&pid| pid != self.init() && procfs::is_alive(pid))
                .collect();
            if left.is_empty() { Ok(()) } else { Err(format!("processes {left:?}")) }
        });
    }

    /// Whether a client gets an answer. In a container this starts the service.
    pub fn daemon_answers(&self) -> bool {
        let nothing = "/nix/store/00000000000000000000000000000000-nothing";
        self.nix(["nix-store", "--check-validity", "--print-invalid", nothing]).status.success()
    }

    /// The pid, as this world sees it, of the process that listens on the socket. With systemd that
    /// is the service if it runs, else systemd itself.
    pub fn daemon_pid(&self) -> Option<u32> {
        let mut inner: Vec<u32> =
            self.listeners().into_iter().filter_map(|pid| procfs::pids(pid)?.pop()).collect();
        inner.sort_by_key(|&pid| (pid == 1, pid));
        inner.first().copied()
    }

    fn listeners(&self) -> Vec<u32> {
        procfs::listeners(self.init(), Path::new(SOCKET))
    }

    /// What bare daemons of this world have said so far.
    pub fn daemon_log(&self) -> String {
        if self.is_container() {
            return self.run(["journalctl", "--no-pager", "--unit", UNITS[1]]).stdout;
        }
        fs::read_to_string(self.host(LOG)).unwrap_or_default()
    }

    /// Waits until no process has the database open, by the lock that each holds meanwhile.
    #[track_caller]
    pub fn wait_until_idle(&self) {
        poll::until("the database to be closed by all", PATIENCE, || {
            match File::open(self.host("/nix/var/nix/db/big-lock")) {
                Ok(lock) => lock.try_lock().map_err(|error| error.to_string()),
                Err(_) => Ok(()),
            }
        });
    }

    /// Makes `/nix` what it is after an installation: no item, no row, no root. The daemon is
    /// stopped for it, and started again if it was up.
    #[track_caller]
    pub fn wipe_store(&self) {
        let was_up = self.daemon_pid().is_some();
        self.stop_daemon();
        self.wait_until_idle();
        let nix = self.host("/nix");
        let pristine = self.role().root().join("nix/.");
        for mut command in [Command::new("find"), Command::new("cp")] {
            let status = match command.get_program().to_str() {
                Some("find") => command.arg(&nix).args(["-mindepth", "1", "-delete"]).status(),
                _ => command.arg("-a").args([&pristine, &nix]).status(),
            };
            assert!(status.unwrap().success(), "cannot wipe {}", nix.display());
        }
        if was_up {
            self.start_daemon();
        }
    }
}
