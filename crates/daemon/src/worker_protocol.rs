//! The part of the worker protocol that is needed to check that a daemon answers.
//!
//! Everything is a little-endian u64. Strings and lists are preceded by their length, and strings are padded to
//! eight bytes. storecache announces version 1.21 to both Nix and Guix, which is older than the versions in
//! which they differ. Source: `NixOS/nix:src/libstore/worker-protocol-connection.cc`, `daemon.cc`; Guix
//! `guix/store.scm`.

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::sys::socket::{self as net, AddressFamily, SockFlag, SockType, UnixAddr};
use rustix::fs::{Mode, OFlags, open};
use std::io::{Error, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};
use storecache_runtime::RunContext;
use storecache_runtime::advice::in_one_line;
use tracing::debug;

const CLIENT_MAGIC: u64 = 0x6e69_7863;
const SERVER_MAGIC: u64 = 0x6478_696f;
const OUR_VERSION: u64 = 0x115;
/// Protocol version 1.33, with which Nix began to send its program version. Below 1.35, nothing else is new in
/// a handshake.
const VERSION_TELLING: u64 = 0x121;
const STDERR_LAST: u64 = 0x616c_7473;
const STDERR_ERROR: u64 = 0x6378_7470;
const STDERR_NEXT: u64 = 0x6f6c_6d67;
const OP_IS_VALID_PATH: u64 = 1;
const OP_ADD_TEMP_ROOT: u64 = 11;
const OP_QUERY_VALID_PATHS: u64 = 31;
/// Longest string that is accepted from a daemon.
const STRING_LIMIT: u64 = 1 << 20;
/// Pause between two attempts to reach a daemon that is starting.
const TRY_AGAIN: Duration = Duration::from_millis(5);
/// How long a daemon with a full backlog may refuse new connections.
const ROOM: Duration = Duration::from_secs(2);

/// Pauses before another client, if the daemon closed the connection of the last one without an answer.
const LOST_PAUSES: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];

/// A connection on which the daemon has reported that the store is open.
pub struct Client {
    stream: UnixStream,
    deadline: Instant,
}

/// Returns the version of the Nix that answers on `socket`.
///
/// # Errors
/// If the daemon does not answer within `timeout`, or is too old to send its version.
pub fn nix_version(socket: &Path, timeout: Duration) -> Result<String> {
    let (mut client, server) = Client::greet(socket, Instant::now() + timeout, VERSION_TELLING)?;
    if server < VERSION_TELLING {
        bail!("the daemon is too old to report its version");
    }
    let version = client.string()?;
    client.drain()?;
    Ok(version)
}

/// Connects to a socket whose path may be longer than the 107 bytes of an address.
///
/// # Errors
/// [`ErrorKind::WouldBlock`] if the backlog is full for [`ROOM`]: the daemon hangs, or has ended and a child of
/// it still has the socket. A blocking connect would wait forever (`man 2 connect`, `EAGAIN`).
pub fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    let (Some(parent), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(ErrorKind::NotFound.into());
    };
    // Not opened for reading: a FIFO that a user has put there would wait for a writer.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(parent, flags, Mode::empty())?;
    let path = Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    let address = UnixAddr::new(&path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let deadline = Instant::now() + ROOM;
    loop {
        let end = net::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        match net::connect(end.as_raw_fd(), &address) {
            Ok(()) => {
                let stream = UnixStream::from(end);
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(Errno::EAGAIN) if Instant::now() < deadline => sleep(TRY_AGAIN),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Retries until the daemon completes a handshake and answers one `IsValidPath`. Failed attempts are reported to `run`.
///
/// # Errors
/// After `timeout`, with the step that the last attempt reached and its error.
pub fn await_ready(
    run: &RunContext,
    socket: &Path,
    probe: &str,
    timeout: Duration,
) -> Result<Client> {
    let deadline = Instant::now() + timeout;
    loop {
        let error = match Client::open(socket, deadline) {
            Ok(mut client) => match client.is_valid(probe) {
                Ok(_) => return Ok(client),
                Err(e) => e.context("failed step: query IsValidPath"),
            },
            Err(e) => e,
        };
        if Instant::now() + TRY_AGAIN >= deadline {
            return Err(error.context(format!(
                "the daemon did not become ready on {} within {} s",
                socket.display(),
                timeout.as_secs()
            )));
        }
        run.report_waiting(format!(
            "the daemon on {} is not ready: {}",
            socket.display(),
            in_one_line(error.as_ref())
        ));
        sleep(TRY_AGAIN);
    }
}

impl Client {
    /// Connects, completes a handshake, and waits until the daemon has opened the store.
    pub fn open(socket: &Path, deadline: Instant) -> Result<Self> {
        let (mut client, _) = Self::greet(socket, deadline, OUR_VERSION)?;
        client.drain().context("failed step: wait until it has opened the store")?;
        Ok(client)
    }

    /// As [`Client::open`], but tries again if the daemon closed the connection. It opens the store in a process for each
    /// client, before it reads the greeting (`NixOS/nix:src/nix/unix/daemon.cc`, `daemonLoop`). If that fails, the
    /// connection is reset, and the cause may pass.
    pub fn open_again(run: &RunContext, socket: &Path, deadline: Instant) -> Result<Self> {
        for pause in LOST_PAUSES {
            match Self::open(socket, deadline) {
                Err(e) if is_lost(&e) && Instant::now() + pause < deadline => {
                    let shown = socket.display();
                    let reason = in_one_line(e.as_ref());
                    debug!(reason, wait_ms = pause.as_millis(), "retry to greet the daemon");
                    run.report_waiting(format!("the daemon on {shown} lost a client: {reason}"));
                    sleep(pause);
                }
                done => return done,
            }
        }
        Self::open(socket, deadline)
    }

    /// Performs the first half of a handshake. Returns the server's version too.
    fn greet(socket: &Path, deadline: Instant, version: u64) -> Result<(Self, u64)> {
        let step = |name: &'static str| move || format!("failed step: {name}");
        let stream = connect(socket).with_context(step("connect"))?;
        let mut client = Client { stream, deadline };
        client.send(&[CLIENT_MAGIC]).with_context(step("send a greeting"))?;
        let magic = client.word().with_context(step("receive its greeting"))?;
        if magic != SERVER_MAGIC {
            return Err(anyhow!("not the greeting of a Nix or Guix daemon: {magic:#x}"))
                .with_context(step("receive its greeting"));
        }
        let server = client.word().with_context(step("receive its version"))?;
        // No processor affinity; keep the reserved space, or Guix would delete `db/reserved`.
        client.send(&[version, 0, 1]).with_context(step("send our version"))?;
        Ok((client, server))
    }

    pub fn is_valid(&mut self, path: &str) -> Result<bool> {
        Ok(self.ask_about(path, OP_IS_VALID_PATH)? != 0)
    }

    /// Protects an item from collectors while this connection is open. Waits for a running collector.
    pub fn keep(&mut self, path: &str) -> Result<()> {
        self.ask_about(path, OP_ADD_TEMP_ROOT).map(drop)
    }

    /// Performs an operation that takes a path and answers with a number.
    fn ask_about(&mut self, path: &str, operation: u64) -> Result<u64> {
        let mut request = operation.to_le_bytes().to_vec();
        push_string(&mut request, path);
        self.arm()?;
        self.stream.write_all(&request)?;
        self.drain()?;
        self.word()
    }

    /// Returns those of `paths` that the daemon reports as valid.
    pub fn valid(&mut self, paths: &[String]) -> Result<Vec<String>> {
        let mut request = OP_QUERY_VALID_PATHS.to_le_bytes().to_vec();
        request.extend_from_slice(&(paths.len() as u64).to_le_bytes());
        paths.iter().for_each(|path| push_string(&mut request, path));
        self.arm()?;
        self.stream.write_all(&request)?;
        self.drain()?;
        let count = self.word()?;
        if count > paths.len() as u64 {
            bail!("asked about {} paths, but the daemon returned {count}", paths.len());
        }
        (0..count).map(|_| self.string()).collect()
    }

    /// Reads log messages up to the end of an operation.
    fn drain(&mut self) -> Result<()> {
        loop {
            match self.word()? {
                STDERR_LAST => return Ok(()),
                STDERR_NEXT => {
                    self.string()?;
                }
                STDERR_ERROR => {
                    let message = self.string()?;
                    bail!("the daemon reports: {message}");
                }
                other => bail!("the daemon sent the unknown message {other:#x}"),
            }
        }
    }

    fn send(&mut self, words: &[u64]) -> Result<()> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.arm()?;
        Ok(self.stream.write_all(&bytes)?)
    }

    fn word(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Reads this number of bytes before the deadline, in however many pieces they arrive.
    fn fill(&mut self, mut bytes: &mut [u8]) -> Result<()> {
        while !bytes.is_empty() {
            self.arm()?;
            match self.stream.read(bytes) {
                Ok(0) => bail!(Error::new(ErrorKind::UnexpectedEof, "the daemon hung up")),
                Ok(read) => bytes = &mut bytes[read..],
                Err(e) => match e.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                        bail!("the daemon does not answer")
                    }
                    _ => return Err(e.into()),
                },
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Result<String> {
        let length = self.word()?;
        if length > STRING_LIMIT {
            bail!("the daemon sent a string of {length} bytes");
        }
        let mut bytes = vec![0; length.next_multiple_of(8) as usize];
        self.fill(&mut bytes)?;
        bytes.truncate(length as usize);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Limits the next read and write to the time that is left until the deadline.
    ///
    /// # Errors
    /// If the deadline has passed. A read timeout alone would not stop a daemon that keeps sending.
    fn arm(&self) -> Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("the daemon did not answer in time");
        }
        let left = left.max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left))?;
        self.stream.set_write_timeout(Some(left))?;
        Ok(())
    }
}

/// Whether the other end closed the connection without an answer.
fn is_lost(error: &anyhow::Error) -> bool {
    let lost = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::UnexpectedEof];
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<Error>());
    kinds.map(Error::kind).any(|kind| lost.contains(&kind))
}

fn push_string(request: &mut Vec<u8>, text: &str) {
    request.extend_from_slice(&(text.len() as u64).to_le_bytes());
    request.extend_from_slice(text.as_bytes());
    request.resize(request.len().next_multiple_of(8), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// A listener that greets like a daemon, and then sends `rest` again and again.
    fn endless(socket: &Path, rest: Vec<u8>, pause: Duration) {
        let listener = UnixListener::bind(socket).unwrap();
        thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            client.write_all(&SERVER_MAGIC.to_le_bytes()).unwrap();
            client.write_all(&OUR_VERSION.to_le_bytes()).unwrap();
            // Until the client closes the connection.
            while client.write_all(&rest).is_ok() {
                thread::sleep(pause);
            }
        });
    }

    #[test]
    fn endless_daemon_responses_end_at_the_deadline() {
        let directory = tempfile::tempdir().unwrap();
        let message = {
            let mut message = STDERR_NEXT.to_le_bytes().to_vec();
            push_string(&mut message, "more");
            message
        };
        let long = [STDERR_NEXT.to_le_bytes(), STRING_LIMIT.to_le_bytes()].concat();
        let drip = vec![0];
        for (name, rest, pause) in [
            ("stream", message, Duration::ZERO),
            ("string", long, Duration::from_millis(20)),
            ("drip", drip, Duration::from_millis(20)),
        ] {
            let socket = directory.path().join(name);
            endless(&socket, rest, pause);
            let (send, ended) = std::sync::mpsc::channel();
            thread::spawn(move || {
                let deadline = Instant::now() + Duration::from_millis(300);
                let _ = send.send(Client::open(&socket, deadline).is_err());
            });
            // A long timeout that only prevents a hang of the test.
            assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(true), "{name}");
        }
    }

    #[test]
    fn connect_does_not_wait_for_a_fifo() {
        let place = tempfile::tempdir().unwrap();
        let fifo = place.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        assert!(connect(&fifo.join("socket")).is_err());
    }

    /// Closes so many connections at once, and then answers one like a daemon.
    fn daemon_that_loses(clients: usize, socket: &Path) -> thread::JoinHandle<()> {
        let listener = UnixListener::bind(socket).unwrap();
        thread::spawn(move || {
            for _ in 0..clients {
                drop(listener.accept().unwrap());
            }
            let Ok((mut client, _)) = listener.accept() else { return };
            for word in [SERVER_MAGIC, OUR_VERSION, STDERR_LAST] {
                client.write_all(&word.to_le_bytes()).unwrap();
            }
            // Until the client closes the connection.
            let _ = std::io::copy(&mut client, &mut std::io::sink());
        })
    }

    #[test]
    fn daemon_that_loses_a_client_is_asked_again() {
        let directory = tempfile::tempdir().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        for (clients, name) in [(0, "none"), (1, "one"), (LOST_PAUSES.len(), "some")] {
            let socket = directory.path().join(name);
            let daemon = daemon_that_loses(clients, &socket);
            Client::open_again(&RunContext::default(), &socket, deadline).map(drop).unwrap();
            daemon.join().unwrap();
        }
        let socket = directory.path().join("all");
        let daemon = daemon_that_loses(LOST_PAUSES.len() + 1, &socket);
        let error =
            Client::open_again(&RunContext::default(), &socket, deadline).map(drop).unwrap_err();
        assert!(is_lost(&error), "{error:#}");
        // Lets the thread end.
        drop(UnixStream::connect(&socket));
        let _ = daemon.join();
    }
}
