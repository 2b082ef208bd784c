//! Third-party object stores: moto for S3 and, with two headers renamed to Google's, for Google Cloud
//! Storage; Azurite for Azure.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use storecache_backend::object_store::Objects;
use storecache_backend::options::{Address, NetworkTimeouts, ObjectStore, Secret, Service};

use super::azurite::{self, Azurite, NodeServer};
use super::plain_env::output;
use storecache_runtime::RunContext;

/// Layout of the entries that tests write themselves.
pub const VERSION: &str = "5f7f8dc1d8dd0a5a0d1d32b1a3a3a95d5ac1d5d1f5c7b60e7a2aa1c1f3bd2b4e";

/// Credentials that must not appear in any output.
pub const SECRETS: [&str; 3] = ["AKIDTEST", "secret-of-s3", "ya29.secret-of-google"];

/// A server that runs until this value is dropped.
pub struct ObjectServer {
    pub service: Service,
    /// Keeps the server running.
    _peer: Peer,
    port: u16,
}

enum Peer {
    Moto(NodeServer),
    Azurite(Azurite),
}

/// A fault in later requests.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Half of the body is sent, then the connection ends.
    Cut,
    /// Half of the body is sent, then nothing.
    Stall,
    /// No response is sent.
    Hang,
    /// The connection ends before the response.
    HangUp,
    /// The request is carried out, and the connection ends before the response.
    Lost,
    Status(u16, &'static str),
}

impl ObjectServer {
    pub const ALL: [Service; 3] = [Service::S3, Service::Google, Service::Azure];

    pub fn start(service: Service) -> ObjectServer {
        let kind = match service {
            Service::S3 => "s3",
            Service::Google => "google",
            Service::Azure => {
                let azurite = Azurite::start();
                let port = azurite.port();
                return ObjectServer { service, _peer: Peer::Azurite(azurite), port };
            }
        };
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = output(&mut Command::new(here.join("scripts/object-peers"))).ok();
        let mut command = Command::new(python.lines().remove(0));
        command.arg(here.join("tests/support/object_store.py")).arg(kind);
        let peer = NodeServer::start(&mut command);
        let port = peer.line.parse().expect("moto did not start");
        ObjectServer { service, _peer: Peer::Moto(peer), port }
    }

    /// The value of `--backend`.
    pub fn backend(&self) -> &'static str {
        match self.service {
            Service::S3 => "s3://entries/ci/stores",
            Service::Google => "gs://entries/ci/stores",
            Service::Azure => "az://actions-cache/ci/stores",
        }
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The environment variables that lead to the server.
    pub fn variables(&self) -> Vec<(String, String)> {
        let url = format!("http://{}", self.host());
        let set: &[(&str, &str)] = match self.service {
            Service::S3 => &[
                ("AWS_ENDPOINT_URL", &url),
                ("AWS_ALLOW_HTTP", "true"),
                ("AWS_REGION", "us-east-1"),
                ("AWS_ACCESS_KEY_ID", SECRETS[0]),
                ("AWS_SECRET_ACCESS_KEY", SECRETS[1]),
            ],
            Service::Google => &[
                ("GOOGLE_BASE_URL", &url),
                ("GOOGLE_ALLOW_HTTP", "true"),
                ("GOOGLE_OAUTH_ACCESS_TOKEN", SECRETS[2]),
            ],
            Service::Azure => &[
                ("AZURE_STORAGE_ENDPOINT", &format!("{url}/{}", azurite::ACCOUNT)),
                ("AZURE_ALLOW_HTTP", "true"),
                ("AZURE_STORAGE_ACCOUNT_NAME", azurite::ACCOUNT),
                ("AZURE_STORAGE_ACCOUNT_KEY", azurite::KEY),
            ],
        };
        set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Options with short timeouts, because the tests wait for them.
    pub fn options(&self) -> ObjectStore {
        let settings = self.variables().into_iter();
        ObjectStore {
            address: Address::parse(self.backend()).unwrap().unwrap(),
            settings: settings.map(|(name, value)| (name, Secret::new(value))).collect(),
            timeouts: NetworkTimeouts {
                stall: Duration::from_secs(2),
                answer: Duration::from_secs(2),
                pause: Duration::from_millis(2),
                old: Duration::from_secs(600),
            },
        }
    }

    pub fn open(&self) -> Objects {
        Objects::new(&RunContext::default(), &self.options(), VERSION).unwrap()
    }

    /// Injects a fault into `count` requests whose request line, as in `PUT /bucket/key?query`, matches the
    /// expression, after skipping `skip` matching requests. Replaces the previous faults.
    pub fn inject_faults(&self, expression: &str, fault: Fault, skip: u32, count: u32) {
        let kind = match fault {
            Fault::Cut => "cut",
            Fault::Stall => "stall",
            Fault::Hang => "hang",
            Fault::HangUp => "hang-up",
            Fault::Lost => "lost",
            Fault::Status(..) => "status",
        };
        let (status, code) = match fault {
            Fault::Status(status, code) => (status.to_string(), code),
            _ => (String::new(), ""),
        };
        let order = json!([{ "match": expression, "kind": kind, "skip": skip, "count": count,
            "status": status, "code": code }]);
        self.ask("/-/faults", &order.to_string());
    }

    pub fn clear_faults(&self) {
        self.ask("/-/faults", "[]");
    }

    /// Returns the requests since the last call: line, range and credentials of each.
    pub fn log(&self) -> Vec<[String; 3]> {
        serde_json::from_str(&self.ask("/-/log", "")).unwrap()
    }

    /// The number of requests in a log whose line contains all of these parts.
    pub fn asked(log: &[[String; 3]], parts: &[&str]) -> usize {
        log.iter().filter(|it| parts.iter().all(|part| it[0].contains(part))).count()
    }

    /// Keys of all objects, and the number of uploads that are neither completed nor aborted.
    pub fn keys_and_uploads(&self) -> (Vec<String>, usize) {
        let listed = self.ask("/entries?list-type=2", "");
        let keys = listed.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        let uploads = self.ask("/entries?uploads", "");
        (keys.map(str::to_owned).collect(), uploads.matches("<UploadId>").count())
    }

    /// Writes an object that is not a snapshot, as any user with access could.
    pub fn put_invalid_object(&self, key: &str) {
        self.request("PUT", &format!("/entries/{key}"), "not a snapshot at all");
    }

    pub fn delete_object(&self, key: &str) {
        self.request("DELETE", &format!("/entries/{key}"), "");
    }

    fn ask(&self, path: &str, body: &str) -> String {
        self.request(if body.is_empty() { "GET" } else { "POST" }, path, body)
    }

    fn request(&self, method: &str, path: &str, body: &str) -> String {
        let mut connection = TcpStream::connect(self.host()).unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}",
            self.host()
        );
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 20"), "{path}: {answer}");
        body.to_owned()
    }
}
