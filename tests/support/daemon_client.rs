//! Clients of the daemon of a world.

use std::fs;
use std::time::Duration;

use super::invocation::Running;
use super::package_manager::PackageManager;
use super::poll;
use super::world::World;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Completes a handshake and stays connected until the client or its worker of the daemon is killed.
const CLIENT: &str = "
import socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(struct.pack('<Q', 0x6e697863))
print('greets', flush=True)
s.recv(16, socket.MSG_WAITALL)
s.sendall(struct.pack('<QQQ', 0x115, 0, 1))
assert s.recv(8, socket.MSG_WAITALL) == struct.pack('<Q', 0x616c7473)
print('connected', flush=True)
try:
    s.recv(1)
except ConnectionResetError:
    pass
print('hung up', flush=True)
";

const ADD_FILES: &str = r#"
(use-modules (guix store))
(with-store store
  (for-each (lambda (path)
              (format #t "~a~%" (add-to-store store (basename path) #t "sha256" path)))
            (cdr (command-line))))
"#;

const ADD_TEXTS: &str = r#"
(use-modules (guix store) (ice-9 match))
(match (command-line)
  ((_ name count)
   (with-store store
     (do ((n 0 (+ n 1)))
         ((= n (string->number count)))
       (let ((text (format #f "~a-~a" name n)))
         (format #t "~a~%" (add-text-to-store store text text)))))))
"#;

impl World {
    /// Starts a client of the daemon that completes a handshake and stays connected, so that its worker has
    /// the database open. The client prints `hung up` when the worker has ended.
    #[track_caller]
    pub fn connected_client(&self) -> Running<'_> {
        self.connected_client_as("root")
    }

    /// As [`World::connected_client`], as another user.
    #[track_caller]
    pub fn connected_client_as(&self, user: &str) -> Running<'_> {
        self.start_client(user, "connected")
    }

    /// Starts a client that has sent its greeting and may wait for the daemon's reply. It prints `connected`
    /// when the reply has arrived.
    #[track_caller]
    pub fn greeting_client(&self) -> Running<'_> {
        self.start_client("root", "greets")
    }

    #[track_caller]
    fn start_client(&self, user: &str, word: &str) -> Running<'_> {
        let socket = format!("{}/daemon-socket/socket", self.state());
        let client = self.command(["python3", "-c", CLIENT, &socket]).user(user).spawn();
        poll::until("the client to be connected", TIMEOUT, || {
            if client.stdout().contains(word) { Ok(()) } else { Err(client.stderr()) }
        });
        client
    }

    /// Starts a collector and waits until it is blocked.
    #[track_caller]
    pub fn blocked_collector(&self) -> Running<'_> {
        let words: &[_] = match self.package_manager() {
            PackageManager::Nix => &["nix-store", "--gc"],
            PackageManager::Guix => &["guix", "gc"],
        };
        let collector = self.command(words).through_daemon().spawn();
        poll::until("the collector to wait", TIMEOUT, || match collector.stderr() {
            said if said.contains("waiting for the big garbage collector lock") => Ok(()),
            said => Err(said),
        });
        collector
    }

    /// Adds files or directories to the store, by shell patterns. Returns the paths of the items.
    #[track_caller]
    pub fn add_files(&self, patterns: &str) -> Vec<String> {
        let add = match self.package_manager() {
            PackageManager::Nix => "nix-store --add",
            PackageManager::Guix => {
                fs::write(self.host("/tmp/add-files.scm"), ADD_FILES).unwrap();
                "guix repl -- /tmp/add-files.scm"
            }
        };
        self.sh(&format!("{add} {patterns}")).lines()
    }

    /// Adds this many items to a Guix store through the daemon: files without references, named `NAME-0` and
    /// so on. Returns their paths.
    #[track_caller]
    pub fn add_texts(&self, name: &str, count: usize) -> Vec<String> {
        fs::write(self.host("/tmp/add-texts.scm"), ADD_TEXTS).unwrap();
        let count = count.to_string();
        self.ok(["guix", "repl", "--", "/tmp/add-texts.scm", name, &count]).lines()
    }

    /// Adds a text to the store through the daemon. Returns its path.
    #[track_caller]
    pub fn add_text(&self, name: &str) -> String {
        match self.package_manager() {
            PackageManager::Guix => self.add_texts(name, 1).remove(0),
            PackageManager::Nix => {
                fs::write(self.host(format!("/tmp/{name}")), name).unwrap();
                self.nix(["nix-store", "--add", &format!("/tmp/{name}")]).ok().lines().remove(0)
            }
        }
    }
}
