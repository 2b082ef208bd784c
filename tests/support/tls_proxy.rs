//! A TLS proxy in front of a service of the tests, with a certificate of its own authority.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::azurite::NodeServer;
use super::cache_service::CacheService;

/// A proxy that runs until this value is dropped or the test process ends.
pub struct TlsProxy {
    port: u16,
    directory: TempDir,
    _server: NodeServer,
}

impl TlsProxy {
    /// Starts a proxy for the service's calls and blobs. `ca.pem` is the authority, `other.pem` an unrelated
    /// one.
    pub fn before(service: &CacheService) -> TlsProxy {
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
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/tls_proxy.mjs");
        let mut command = Command::new("node");
        command.arg(script).arg(behind);
        command.args(["server.pem", "server.key"].map(|name| directory.path().join(name)));
        let server = NodeServer::start(&mut command);
        let port = server.line.parse().expect("the front did not start");
        let front = TlsProxy { port, directory, _server: server };
        service.set_public_url(front.url());
        front
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}/", self.port)
    }

    /// The path of one of its certificates.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}
