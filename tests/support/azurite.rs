//! Third-party servers that run on Node: Azurite, Microsoft's emulator of the blob storage behind the cache
//! service, with signatures for its URLs, and any server that a script starts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::cache_service::Signer;
use super::plain_env::output;

/// The account that Azurite comes with, and its key. Both are public.
pub const ACCOUNT: &str = "devstoreaccount1";
pub const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Returns the directory of the third-party Node packages.
pub fn peers() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/node-peers");
    output(&mut Command::new(script)).ok().lines().remove(0).into()
}

/// Returns the command that runs a script of this directory in Node, with the directory of the packages as
/// its first argument.
pub fn script(name: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(name);
    let mut command = Command::new("node");
    command.arg(path).arg(peers());
    command
}

/// As [`script`], but Node resolves every host of Azure to this machine.
pub fn script_with_azure_hosts(name: &str) -> Command {
    let preload = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/azure_here.mjs");
    let mut command = script(name);
    command.env("NODE_OPTIONS", format!("--import={}", preload.display()));
    command
}

/// A server on Node that runs until this value is dropped or the test process ends.
pub struct NodeServer {
    child: Child,
    /// The first line that the server prints, when it is ready.
    pub line: String,
}

impl NodeServer {
    pub fn start(command: &mut Command) -> NodeServer {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cannot run node");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        NodeServer { child, line: line.trim().to_owned() }
    }
}

impl Drop for NodeServer {
    fn drop(&mut self) {
        // The server exits when its standard input closes.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// An Azurite that runs until this value is dropped.
pub struct Azurite {
    host: String,
    port: u16,
    _server: NodeServer,
}

impl Azurite {
    pub fn start() -> Azurite {
        Azurite::by("127.0.0.1", script("azurite.mjs"))
    }

    /// Starts Azurite on another address of this machine, with the blobs in a directory. With blobs in
    /// memory, Node spends time on garbage collection: 1.8 s of CPU time for 330 MB that are read in ranges,
    /// of which the server itself needs 0.5 s.
    pub fn at(host: &str, directory: &Path) -> Azurite {
        let mut script = script("azurite.mjs");
        script.arg(host).arg(directory);
        Azurite::by(host, script)
    }

    fn by(host: &str, mut script: Command) -> Azurite {
        let server = NodeServer::start(&mut script);
        let port = server.line.parse().expect("Azurite did not start");
        Azurite { host: host.to_owned(), port, _server: server }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns a function that signs URLs of blobs in Azurite's container.
    pub fn signer(&self) -> Box<Signer> {
        let (host, port) = (self.host.clone(), self.port);
        Box::new(move |blob, write| {
            let permissions = if write { "rcw" } else { "r" };
            let query = signed(blob, permissions);
            format!("http://{host}:{port}/{ACCOUNT}/actions-cache/{blob}?{query}")
        })
    }

    /// As [`Azurite::signer`], but once the flag is set, URLs for reading have a host name of Azure. The
    /// official client chooses its download method by that name.
    pub fn signer_with_azure_host(&self, flag: &Arc<AtomicBool>) -> Box<Signer> {
        let (port, flag, here) = (self.port, Arc::clone(flag), self.signer());
        Box::new(move |blob, write| match !write && flag.load(Ordering::Relaxed) {
            false => here(blob, write),
            true => {
                let query = signed(blob, "r");
                let host = format!("{ACCOUNT}.blob.core.windows.net:{port}");
                format!("http://{host}/actions-cache/{blob}?{query}")
            }
        })
    }

    /// Downloads a blob without the program under test.
    pub fn content(&self, blob: &str) -> Vec<u8> {
        let url = self.signer()(blob, false);
        let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let mut connection = TcpStream::connect(host).unwrap();
        let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let body = answer.split_off(end + 4);
        assert_eq!(body.len(), length.parse::<usize>().unwrap());
        body
    }
}

/// Returns the query of a service SAS for one blob.
/// Source: Microsoft Learn, "Create a service SAS", version 2018-11-09 and later.
fn signed(blob: &str, permissions: &str) -> String {
    let (version, expiry) = ("2020-10-02", "2099-01-01T00:00:00Z");
    let resource = format!("/blob/{ACCOUNT}/actions-cache/{blob}");
    let text = format!("{permissions}\n\n{expiry}\n{resource}\n\n\n\n{version}\nb\n\n\n\n\n\n");
    let signature = STANDARD.encode(hmac(&STANDARD.decode(KEY).unwrap(), text.as_bytes()));
    let escape = |text: &str| {
        text.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D").replace(':', "%3A")
    };
    format!("sv={version}&se={}&sr=b&sp={permissions}&sig={}", escape(expiry), escape(&signature))
}

/// HMAC with SHA-256, RFC 2104. The key must not be longer than a block.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}
