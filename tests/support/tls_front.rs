//! TLS in front of a service of the tests, with a certificate of an authority of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::azurite::NodePeer;
use super::cache_service::CacheService;

/// Runs until its value goes, or the test process.
pub struct TlsFront {
    port: u16,
    directory: TempDir,
    _server: NodePeer,
}

impl TlsFront {
    /// For the service's calls and its blobs. `ca.pem` is the authority, `other.pem` another one.
    pub fn before(service: &CacheService) -> TlsFront {
        let directory = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: String| fs::write(directory.path().join(name), text).unwrap();
        for name in ["other.pem", "ca.pem"] {
            let key = KeyPair::generate().unwrap();
            let mut authority = CertificateParams::new(Vec::new()).unwrap();
            authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            write(name, authority.self_signed(&key).unwrap().pem());
            let issuer = Issuer::new(authority, key);
            let key = KeyPair::generate().unwrap();
            let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            write("server.pem", server.signed_by(&key, &issuer).unwrap().pem());
            write("server.key", key.serialize_pem());
        }
        let url = service.url();
        let behind = url.trim_end_matches('/').rsplit(':').next().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/tls_front.mjs");
        let mut command = Command::new("node");
        command.arg(script).arg(behind);
        command.args(["server.pem", "server.key"].map(|name| directory.path().join(name)));
        let server = NodePeer::start(&mut command);
        let port = server.line.parse().expect("the front did not start");
        let front = TlsFront { port, directory, _server: server };
        service.stands_behind(front.url());
        front
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}/", self.port)
    }

    /// One of its certificates.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}
