//! Tests that events contain no secrets, whatever is asked for.
//!
//! They run saves and restores at the most detailed level against the cache service, with and without Azurite behind
//! it, and against object stores, with requests that fail and are retried. They show that neither the tokens, keys and
//! signatures of these runs nor the form of a signature are in any output. They do not show that for secrets of
//! another form, or for code that these runs do not reach.

use std::process::Command;

use crate::support::Output;
use crate::support::azurite::{self, Azurite};
use crate::support::cache_service::{CacheService, Fault, RequestKind, SIGNATURE, TOKEN};
use crate::support::object_server::{self, ObjectServer, SECRETS};
use crate::support::plain_env::{self, PlainEnv};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::SigningKey;
use storecache_backend::options::Service;

const TOOL: &str = "/opt/tool";
/// Parts of signed URLs and of headers, in any case.
const FORMS: [&str; 5] = ["sig=", "signature=", "bearer ", "authorization", "x-amz-"];
const REST_TOKEN: &str = "ghs_token-of-the-rest-api";

/// A fixture whose `/opt/tool` does not compress, so that its entry is read in several ranges.
fn place() -> PlainEnv {
    let place = PlainEnv::new();
    let mut state = 1_u64;
    let bytes = std::iter::from_fn(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        Some((state >> 33) as u8)
    });
    place.write("/opt/tool/small", "small\n");
    std::fs::write(place.host("/opt/tool/large"), bytes.take(3_000_000).collect::<Vec<_>>())
        .unwrap();
    place
}

/// A secret key for signatures, and its secret part.
fn sign_key() -> (String, String) {
    let encoded = BASE64_STANDARD.encode(SigningKey::from_bytes(&[7; 32]).to_keypair_bytes());
    (format!("ci-1:{encoded}"), encoded)
}

/// Runs a verb with `-vv`, and asserts that the output has events and no secrets. The run may fail.
fn attempt(place: &PlainEnv, verb: &str, more: &[&str], variables: &[(String, String)]) -> Output {
    let (key, secret) = sign_key();
    let mut command = Command::new(plain_env::binary());
    command.args([verb, "--store", "plain", "--key", "test", "--path", TOOL, "-vv", "--json"]);
    command.arg("--root").arg(place.root()).args(["--network-timeout", "1"]).args(more);
    command.env("STORECACHE_SIGN_KEY", if verb == "save" { &*key } else { "" });
    command.env("GITHUB_TOKEN", REST_TOKEN).env("HOME", place.entries());
    for name in ["XDG_CACHE_HOME", "XDG_STATE_HOME", "GITHUB_EVENT_PATH", "STORECACHE_LOG"] {
        command.env_remove(name);
    }
    let output = plain_env::output(command.envs(variables.iter().cloned()));
    let text = format!("{output}").to_lowercase();
    for level in ["info: session: ", "debug: session: "] {
        assert!(text.contains(level), "{level}: {output}");
    }
    let known = [TOKEN, SIGNATURE, azurite::KEY, REST_TOKEN, &*secret, &secret[..40]];
    for secret in known.into_iter().chain(SECRETS).chain(FORMS) {
        assert!(!text.contains(&secret.to_lowercase()), "{secret}: {output}");
    }
    output
}

/// The variables that a runner sets for a step with `uses:`.
fn of_job(service: &CacheService) -> Vec<(String, String)> {
    let variables = [
        ("ACTIONS_RESULTS_URL", service.url()),
        ("ACTIONS_CACHE_URL", service.url()),
        ("ACTIONS_RUNTIME_TOKEN", TOKEN.to_owned()),
        ("ACTIONS_CACHE_SERVICE_V2", "True".to_owned()),
        ("GITHUB_SERVER_URL", "https://github.com".to_owned()),
    ];
    variables.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

#[test]
fn events_of_the_cache_service_have_no_secrets() {
    let azurite = Azurite::start();
    // Version 1 of the service has the bytes itself.
    for (service, versions) in [
        (CacheService::start(), &["v2", "v1"][..]),
        (CacheService::with(Some(azurite.signer())), &["v2"]),
    ] {
        let variables = of_job(&service);
        for version in versions {
            let place = place();
            let run = |verb: &str, more: &[&str]| {
                attempt(&place, verb, &[more, &["--cache-service", version]].concat(), &variables)
            };
            service.inject_faults(RequestKind::Reserve, [Fault::Status(500, "boom")]);
            service.inject_faults(RequestKind::Block, [Fault::Reset]);
            let saved = run("save", &[]).ok();
            assert!(saved.stderr.contains("debug: backend: retry a request"), "{saved}");
            place.remove(TOOL);
            service.inject_faults(RequestKind::Lookup, [Fault::Status(503, "busy")]);
            let ranges =
                [Fault::Reset, Fault::ResetInBody, Fault::Expire, Fault::Status(403, "no")];
            service.inject_faults(RequestKind::Range, ranges);
            let restored = run("restore", &[]).ok();
            assert!(restored.stderr.contains("trace: backend: request a range"), "{restored}");
            service.clear_faults();

            // A run that fails.
            place.remove(TOOL);
            let broken = Fault::Status(500, "https://a.b/c?sig=made-up Bearer e30");
            service.inject_faults(RequestKind::Lookup, std::iter::repeat_n(broken, 50));
            let failed = run("restore", &[]).fails();
            assert_eq!(failed.code(), 1, "{failed}");
            service.clear_faults();
        }
    }
}

#[test]
fn events_of_object_stores_have_no_secrets() {
    for service in ObjectServer::ALL {
        let server = ObjectServer::start(service);
        let variables: Vec<_> = server.variables().into_iter().collect();
        let place = place();
        let run = |verb: &str| attempt(&place, verb, &["--backend", server.backend()], &variables);
        // Azurite cannot be made to fail.
        if service == Service::Azure {
            run("save").ok();
            place.remove(TOOL);
            run("restore").ok();
            continue;
        }
        server.inject_faults("^PUT", object_server::Fault::HangUp, 0, 1);
        let saved = run("save").ok();
        assert!(saved.stderr.contains("debug: backend: retry a request"), "{service:?} {saved}");
        place.remove(TOOL);
        server.inject_faults("^GET", object_server::Fault::Cut, 1, 2);
        run("restore").ok();

        place.remove(TOOL);
        server.inject_faults("^GET", object_server::Fault::Status(403, "AccessDenied"), 0, 1000);
        let failed = run("restore").fails();
        assert_eq!(failed.code(), 1, "{service:?} {failed}");
        server.clear_faults();
    }
}
