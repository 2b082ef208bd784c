//! Tests of entries in the cache service of GitHub Actions, versions 2 and 1, and of its faults.

use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::azurite::{self, Azurite, NodeServer};
use crate::support::cache_service::{
    CacheService, Fault, RequestKind, SIGNATURE, TOKEN, read_only_token,
};
use crate::support::message_log::cause;
use crate::support::plain_env::{self, PlainEnv, assert_same_tree};
use crate::support::tls_proxy::TlsProxy;
use crate::support::world_runs::report;
use crate::support::{Fixture, Output, Role, World, world_runs};
use proptest::prelude::*;
use serde_json::Value;
use storecache_backend::github::GitHub;
use storecache_backend::options::{
    CacheService as Version, GitHubService, NetworkTimeouts, RestApi, Secret,
};
use storecache_backend::{Backend, BackendError, EntryName, Refused};
use storecache_entry::Rung;
use storecache_runtime::RunContext;

const TOOL: &str = "/opt/tool";

/// Layout of the entries that tests write directly.
const VERSION: &str = "5f7f8dc1d8dd0a5a0d1d32b1a3a3a95d5ac1d5d1f5c7b60e7a2aa1c1f3bd2b4e";

/// The blocks are small, so that little content makes many of them.
const BLOCK: usize = 50_000;

/// Returns short timeouts, because the tests wait for them.
fn timeouts() -> NetworkTimeouts {
    NetworkTimeouts {
        stall: Duration::from_secs(5),
        answer: Duration::from_secs(5),
        pause: Duration::from_millis(2),
        old: Duration::from_secs(600),
    }
}

/// Returns the configuration of a job on github.com.
fn job(service: &CacheService) -> GitHubService {
    GitHubService {
        results_url: Some(service.url()),
        cache_url: Some(service.url()),
        server_url: Some("https://github.com".into()),
        token: Secret::new(TOKEN),
        v2: true,
        mode: String::new(),
        service: None,
        timeouts: timeouts(),
        rest: RestApi::default(),
    }
}

fn backend_of(options: &GitHubService) -> GitHub {
    GitHub::new(&RunContext::default(), options, VERSION).unwrap().with_blocks_of(BLOCK)
}

fn backend(service: &CacheService, version: Version) -> GitHub {
    backend_of(&GitHubService { service: Some(version), ..job(service) })
}

/// Returns pseudorandom bytes.
fn content(length: usize) -> Vec<u8> {
    let mut state = length as u64 | 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn save(backend: &GitHub, key: &str, content: &[u8]) -> anyhow::Result<EntryName> {
    let mut writer = backend.create(&EntryName::new(key))?;
    // In pieces that do not fit the block size.
    for piece in content.chunks(7_777) {
        writer.write_all(piece)?;
    }
    let entry = writer.finish()?.entry;
    assert_eq!(entry.size, content.len() as u64);
    Ok(entry.name)
}

fn exact(key: &str) -> [Rung; 1] {
    [Rung::Exact(key.into())]
}

/// Reads a whole entry as a restore does: its end, then ranges that were announced before.
fn fetch(backend: &GitHub, key: &str) -> anyhow::Result<Vec<u8>> {
    let (name, _) = find(backend, &exact(key), &[])?.ok_or_else(|| anyhow::anyhow!("not found"))?;
    fetch_named(backend, &name)
}

fn fetch_named(backend: &GitHub, name: &EntryName) -> anyhow::Result<Vec<u8>> {
    let mut reader = backend.open(name)?;
    let size = reader.size();
    let end = size.saturating_sub(9);
    let mut footer = vec![0; (size - end) as usize];
    reader.read_at(end, &mut footer)?;
    let starts = (0..size).step_by(33_333);
    let ranges: Vec<_> = starts.map(|start| start..size.min(start + 33_333)).collect();
    reader.expect(&ranges);
    let mut all = vec![0; size as usize];
    for range in &ranges {
        let (start, end) = (range.start as usize, range.end as usize);
        reader.read_at(range.start, &mut all[start..end])?;
    }
    assert_eq!(all[end as usize..], footer);
    Ok(all)
}

/// Returns the error with its chain of causes, as users see it.
/// Makes a lookup without problems that it has to report.
fn find(
    backend: &dyn Backend,
    rungs: &[Rung],
    passed: &[EntryName],
) -> Result<Option<(EntryName, usize)>, BackendError> {
    let (found, notes) = backend.find(rungs, passed)?;
    assert!(notes.warnings.is_empty() && notes.skipped.is_empty(), "{notes:?}");
    Ok(found.map(|found| (found.name, found.rung)))
}

fn refused_by(error: BackendError) -> Refused {
    match error {
        BackendError::Refused(refused) => refused,
        other => panic!("{other:#}"),
    }
}

fn line<T, E: std::fmt::Display>(result: Result<T, E>) -> String {
    match result {
        Ok(_) => panic!("it did not fail"),
        Err(e) => format!("{e:#}"),
    }
}

#[test]
fn entries_of_every_size_are_read_back_unchanged() {
    for version in [Version::V2, Version::V1] {
        let service = CacheService::start();
        let backend = backend(&service, version);
        for length in [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 11 * BLOCK + 5, 20_000_000] {
            let key = format!("size-{length}");
            let content = content(length);
            let name = save(&backend, &key, &content).unwrap();
            assert_eq!(service.content(&name.to_string()), content, "{version:?} {length}");
            assert_eq!(fetch(&backend, &key).unwrap(), content, "{version:?} {length}");
        }
    }
}

#[test]
fn find_skips_rejected_entries_and_returns_the_next_older() {
    for version in [Version::V2, Version::V1] {
        let service = CacheService::start();
        let backend = backend(&service, version);
        let rungs = [Rung::Exact("k-1".into()), Rung::Prefix("k-".into())];
        let other = save(&backend, "k-2", b"other").unwrap();
        save(&backend, "k-10", b"longer").unwrap();
        let mut names: Vec<_> = (0..3).map(|n| save(&backend, "k-1", &[n]).unwrap()).collect();
        names.reverse();
        let found = |passed: &[EntryName]| find(&backend, &rungs, passed).unwrap();
        for at in 0..3 {
            let (name, rung) = found(&names[..at]).unwrap();
            assert_eq!((&name, rung), (&names[at], 0), "{version:?}");
            assert_eq!(fetch_named(&backend, &name).unwrap_or_default().len(), 1);
        }
        // Through a prefix only older generations of the newest key can be found.
        let newest = found(&names).map(|(name, _)| name);
        assert!(newest.is_none_or(|name| name.key != "k-1"), "{version:?}");
        service.evict(&names[2].to_string());
        assert!(
            backend.open(&names[2]).is_err_and(|e| matches!(e, BackendError::Gone(_))),
            "{version:?}"
        );
        assert!(backend.open(&other).is_ok());
    }
}

#[test]
fn unannounced_ranges_can_be_read() {
    let service = CacheService::start();
    let backend = backend(&service, Version::V2);
    let content = content(19_000_000);
    let name = save(&backend, "k", &content).unwrap();
    let mut reader = backend.open(&name).unwrap();
    reader.expect(&[1_000_000..2_000_000, 9_000_000..18_000_000]);
    for (at, length) in [
        (0, 100),
        (1_500_000, 10),
        (100_000, 17_000_000),
        (9_000_000, 500),
        (17_999_999, 1_000_001),
    ] {
        let mut bytes = vec![0; length];
        reader.read_at(at as u64, &mut bytes).unwrap();
        assert!(bytes == content[at..at + length], "{at}");
    }
    let past = reader.read_at(18_999_999, &mut [0; 2]).unwrap_err();
    assert_eq!(past.to_string(), "truncated: got 19000000 of 19000001 bytes");
}

#[test]
fn find_returns_the_newest_entry_of_the_first_matching_rung() {
    for version in [Version::V2, Version::V1] {
        let service = CacheService::start();
        let backend = backend(&service, version);
        let find = |rungs: &[Rung]| {
            let found = find(&backend, rungs, &[]).unwrap();
            found.map(|(name, rung)| (name.key.to_lowercase(), rung))
        };
        assert_eq!(find(&exact("nix-2.8")), None);
        let old = save(&backend, "nix-2.8", b"old").unwrap();
        let new = save(&backend, "nix-2.8", b"new").unwrap();
        assert!(new.generation > old.generation);
        save(&backend, "nix-2.8.2031-abc", b"longer").unwrap();
        save(&backend, "nix-2.9-Def", b"other").unwrap();
        // These entries have the same layout but were not written by storecache.
        service.put("nix-2.9-foreign", VERSION, b"no generation");
        service.put("nix-2.9-x.20300101T000000.000000Z", &VERSION.replace('5', "6"), b"other");

        assert_eq!(fetch(&backend, "nix-2.9-def").unwrap(), b"other");
        assert_eq!(find(&exact("nix-2")), None);
        // A longer key is newer and hides the exact one: no hit is better than a wrong hit.
        assert_eq!(find(&exact("nix-2.8")), None);
        let prefix = |text: &str| Rung::Prefix(text.into());
        let rungs = [Rung::Exact("nix-2.8".into()), prefix("nix-2.8")];
        assert_eq!(find(&rungs), Some(("nix-2.8.2031-abc".into(), 1)));
        service.evict("nix-2.9-foreign");
        assert_eq!(find(&[prefix("none-"), prefix("NIX-2.9-d")]), Some(("nix-2.9-def".into(), 1)));
        // More rungs than fit into one lookup.
        let mut many: Vec<Rung> = (0..25).map(|n| prefix(&format!("none-{n}-"))).collect();
        many.push(prefix("nix-2.9-"));
        assert_eq!(find(&many), Some(("nix-2.9-def".into(), 25)));
    }
}

#[test]
fn unsupported_keys_are_refused_before_any_request() {
    let service = CacheService::start();
    let backend = backend(&service, Version::V2);
    // 488 characters and the generation make 512; this character counts as two.
    let longest = "\u{1F980}".repeat(244);
    save(&backend, &longest, b"x").unwrap();
    assert_eq!(fetch(&backend, &longest).unwrap(), b"x");
    let before = service.seen(RequestKind::Reserve).len();
    let text = line(backend.create(&EntryName::new(&format!("{longest}k"))));
    assert!(text.contains("is 513 characters long with its generation"), "{text}");
    let text = line(backend.create(&EntryName::new("a,b")));
    assert!(text.contains("has a comma"), "{text}");
    assert_eq!(service.seen(RequestKind::Reserve).len(), before);
}

/// Returns transient faults, as they occur on any network.
fn transient_faults(at: RequestKind) -> Vec<Fault> {
    let mut faults = vec![
        Fault::Reset,
        Fault::LostAnswer,
        Fault::Status(500, "boom"),
        Fault::Status(502, "bad gateway"),
        Fault::Status(503, "busy"),
        Fault::Later(429, 0),
        Fault::Later(503, 0),
        Fault::Slow,
    ];
    match at {
        RequestKind::Range => faults.extend([
            Fault::ResetInBody,
            Fault::Short,
            Fault::OtherRange,
            Fault::WholeBody,
            Fault::WholeInChunks,
            Fault::Status(403, "expired"),
            Fault::Status(410, "expired"),
        ]),
        RequestKind::Lookup | RequestKind::Reserve | RequestKind::Finalize => {
            faults.extend([Fault::Page, Fault::ResetInBody, Fault::Short])
        }
        RequestKind::Block | RequestKind::BlockList => {}
    }
    faults
}

const ALL_REQUESTS: [RequestKind; 6] = [
    RequestKind::Lookup,
    RequestKind::Reserve,
    RequestKind::Finalize,
    RequestKind::Block,
    RequestKind::BlockList,
    RequestKind::Range,
];

#[test]
fn transient_faults_are_retried_at_every_request() {
    for version in [Version::V2, Version::V1] {
        let service = CacheService::start();
        let backend = backend(&service, version);
        let content = content(9 * BLOCK + 1);
        let mut number = 0;
        for at in ALL_REQUESTS {
            if (at, version) == (RequestKind::BlockList, Version::V1) {
                continue;
            }
            for fault in transient_faults(at) {
                let what = format!("{version:?} {at:?} {fault:?}");
                number += 1;
                let key = format!("k{number}");
                let meets = |place: RequestKind| {
                    if at == place {
                        // The fault occurs twice, the second time at another request.
                        service.inject_faults(at, [fault.clone(), Fault::Slow, fault.clone()]);
                    }
                };
                let upload = [
                    RequestKind::Reserve,
                    RequestKind::Finalize,
                    RequestKind::Block,
                    RequestKind::BlockList,
                ];
                upload.into_iter().for_each(meets);
                save(&backend, &key, &content).unwrap_or_else(|e| panic!("{what}: {e:#}"));
                service.clear_faults();
                meets(RequestKind::Lookup);
                meets(RequestKind::Range);
                let back = fetch(&backend, &key).unwrap_or_else(|e| panic!("{what}: {e:#}"));
                assert!(back == content, "{what}");
                service.clear_faults();
            }
        }
    }
}

#[test]
fn lasting_faults_are_reported_once_and_leave_no_entry() {
    let cases: [(RequestKind, Fault, &str); 13] = [
        (
            RequestKind::Reserve,
            Fault::Status(500, "boom"),
            "reserve the entry: the server failed (HTTP 500)",
        ),
        (RequestKind::Reserve, Fault::Reset, "reserve the entry: "),
        (
            RequestKind::Reserve,
            Fault::Page,
            "reserve the entry: the response is not JSON (HTTP 200)",
        ),
        (RequestKind::Reserve, Fault::Later(429, 900), "it asks to retry in 900 s"),
        (
            RequestKind::Reserve,
            Fault::Status(401, "no"),
            "the token of the job is not valid or has expired",
        ),
        (
            RequestKind::Reserve,
            Fault::Status(429, "insufficient usage"),
            "the repository is used up",
        ),
        (RequestKind::Reserve, Fault::Status(429, "slower"), "too many requests (HTTP 429)"),
        (
            RequestKind::Block,
            Fault::Status(403, "no"),
            "upload a block: the URL for it is not valid",
        ),
        (
            RequestKind::Block,
            Fault::Status(413, "large"),
            "upload a block: the blob server answered HTTP 413",
        ),
        (RequestKind::Block, Fault::Reset, "upload a block: "),
        (RequestKind::BlockList, Fault::Status(400, "no"), "assemble the blocks: the blob server"),
        (
            RequestKind::Finalize,
            Fault::Status(200, "ok: no luck"),
            "did not accept it (HTTP 200): no luck",
        ),
        (
            RequestKind::Finalize,
            Fault::Status(503, "busy"),
            "finish the entry: the server failed (HTTP 503)",
        ),
    ];
    let content = content(4 * BLOCK);
    for (at, fault, expected) in cases {
        let service = CacheService::start();
        let backend = backend(&service, Version::V2);
        service.inject_faults(at, std::iter::repeat_n(fault, 50));
        let text = line(save(&backend, "k", &content));
        assert!(text.contains(expected), "{text}");
        assert!(text.len() < 400, "{text}");
        service.clear_faults();
        assert_eq!(service.keys(), [""; 0], "{text}");
        assert!(find(&backend, &exact("k"), &[]).unwrap().is_none());
    }
    let cases: [(RequestKind, Fault, &str); 9] = [
        (
            RequestKind::Lookup,
            Fault::Status(500, "boom"),
            "look up the entry: the server failed (HTTP 500)",
        ),
        (RequestKind::Lookup, Fault::Later(429, 900), "it asks to retry in 900 s"),
        (RequestKind::Lookup, Fault::Reset, "look up the entry: "),
        (RequestKind::Range, Fault::Status(404, "gone"), "deleted in the meantime"),
        (RequestKind::Range, Fault::Status(403, "no"), "the server also refuses new URLs"),
        (RequestKind::Range, Fault::Status(412, "no"), "changed while it was read"),
        (RequestKind::Range, Fault::ResetInBody, "truncated: got "),
        (RequestKind::Range, Fault::Short, "truncated: got "),
        (
            RequestKind::Range,
            Fault::Status(500, "boom"),
            "the blob server answered HTTP 500 (5 tries)",
        ),
    ];
    let service = CacheService::start();
    let backend = backend(&service, Version::V2);
    save(&backend, "k", &content).unwrap();
    for (at, fault, expected) in cases {
        service.inject_faults(at, std::iter::repeat_n(fault, 50));
        let text = line(fetch(&backend, "k"));
        assert!(text.contains(expected), "{text}");
        assert!(text.len() < 400, "{text}");
        service.clear_faults();
    }
}

#[test]
fn reader_refuses_an_entry_that_changes_during_the_read() {
    let service = CacheService::start();
    let backend = backend(&service, Version::V2);
    let name = save(&backend, "k", &content(20_000_000)).unwrap();
    let mut reader = backend.open(&name).unwrap();
    service.inject_faults(RequestKind::Range, [Fault::OtherTag]);
    let error = reader.read_at(1_000_000, &mut [0; 1000]).unwrap_err().to_string();
    assert!(error.contains("its entity tag differs"), "{error}");
    let tags = service
        .seen(RequestKind::Range)
        .into_iter()
        .map(|seen| seen.headers.get("if-match").cloned());
    let tags: Vec<_> = tags.collect();
    assert_eq!(tags[0], None);
    assert!(tags[1..].iter().all(Option::is_some));
}

#[test]
fn stalled_range_is_retried_alone_on_a_new_connection() {
    let service = CacheService::start();
    let mut options = job(&service);
    options.timeouts.stall = Duration::from_millis(700);
    let backend = backend_of(&options);
    let content = content(30_000_000);
    let name = save(&backend, "k", &content).unwrap();
    let mut reader = backend.open(&name).unwrap();
    let before = service.seen(RequestKind::Range);
    service.inject_faults(RequestKind::Range, [Fault::StallInBody]);
    reader.expect(&[1_000_000..3_000_000, 3_000_000..29_000_000]);
    let mut bytes = vec![0; 28_000_000];
    reader.read_at(1_000_000, &mut bytes).unwrap();
    assert!(bytes == content[1_000_000..29_000_000]);
    let asked = &service.seen(RequestKind::Range)[before.len()..];
    // Ranges of 1, 1, 2, 2, 4, 4 and 8 MiB, the rest, and the second half of the range that stalled.
    assert_eq!(asked.len(), 9);
    let again = &asked[8];
    assert!(asked[..8].iter().chain(&before).all(|one| one.connection != again.connection));
    let length = |range: &str| {
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        last.parse::<u64>().unwrap() - first.parse::<u64>().unwrap() + 1
    };
    let lengths: Vec<_> = asked.iter().map(|one| length(&one.headers["range"])).collect();
    assert_eq!(lengths[..8].iter().sum::<u64>(), 28_000_000);
    assert!(lengths[..8].iter().any(|&whole| lengths[8] < whole && lengths[8] >= whole / 2));
}

#[test]
fn tail_read_for_the_index_is_not_downloaded_again() {
    let service = CacheService::start();
    let backend = backend(&service, Version::V2);
    let content = content(1_000_000);
    let name = save(&backend, "k", &content).unwrap();
    let mut reader = backend.open(&name).unwrap();
    reader.read_at(999_000, &mut [0; 1000]).unwrap();
    let before = service.seen(RequestKind::Range).len();
    reader.expect(&[100_000..900_000, 900_000..950_000]);
    let mut bytes = vec![0; 800_000];
    reader.read_at(100_000, &mut bytes).unwrap();
    assert!(bytes == content[100_000..900_000]);
    let asked = &service.seen(RequestKind::Range)[before..];
    let tail = 1_000_000 - (256 << 10);
    let ranges: Vec<_> = asked.iter().map(|one| one.headers["range"].clone()).collect();
    assert_eq!(ranges, [format!("bytes=100000-{}", tail - 1)]);
}

#[test]
fn stalled_response_is_not_taken_for_end_of_file() {
    let service = CacheService::start();
    let mut options = job(&service);
    options.timeouts.stall = Duration::from_millis(150);
    let backend = backend_of(&options);
    let content = content(3 * BLOCK);
    save(&backend, "k", &content).unwrap();
    for at in [
        RequestKind::Lookup,
        RequestKind::Range,
        RequestKind::Reserve,
        RequestKind::Block,
        RequestKind::BlockList,
        RequestKind::Finalize,
    ] {
        service.inject_faults(at, [Fault::Stall]);
        let name = save(&backend, "again", &content).unwrap_or_else(|e| panic!("{at:?}: {e:#}"));
        assert!(fetch_named(&backend, &name).unwrap() == content);
        assert!(fetch(&backend, "k").unwrap() == content);
        assert_eq!(service.unused_faults(), 0, "{at:?}");
    }
    service.inject_faults(RequestKind::Range, std::iter::repeat_n(Fault::StallInBody, 50));
    let text = line(fetch(&backend, "k"));
    assert!(text.contains("bytes: no bytes received for 0.15 s (5 tries)"), "{text}");
}

#[test]
fn expired_urls_are_renewed_for_the_same_entry() {
    for version in [Version::V2, Version::V1] {
        let service = CacheService::start();
        let backend = backend(&service, version);
        let content = content(20_000_000);
        let name = save(&backend, "k", &content).unwrap();
        let mut reader = backend.open(&name).unwrap();
        service.expire_urls();
        save(&backend, "k", b"a newer one of the same key").unwrap();
        let lookups = service.seen(RequestKind::Lookup).len();
        let mut bytes = vec![0; 19_000_000];
        reader.read_at(500_000, &mut bytes).unwrap();
        assert!(bytes == content[500_000..19_500_000]);
        assert_eq!(service.seen(RequestKind::Lookup).len(), lookups + 1, "once for all ranges");

        service.expire_urls();
        let named = service.keys().into_iter().find(|key| *key == name.to_string()).unwrap();
        service.evict(&named);
        let gone = reader.read_at(0, &mut vec![0; 19_000_000]).unwrap_err().to_string();
        assert!(gone.contains("the entry was deleted in the meantime"), "{gone}");
    }
}

#[test]
fn old_urls_are_renewed_before_they_expire() {
    let service = CacheService::start();
    let mut options = job(&service);
    // URLs count as old at once.
    options.timeouts.old = Duration::ZERO;
    let backend = backend_of(&options);
    let content = content(30_000_000);
    let name = save(&backend, "k", &content).unwrap();
    let mut reader = backend.open(&name).unwrap();
    save(&backend, "k", b"a newer one of the same key").unwrap();
    let (lookups, ranges) =
        (service.seen(RequestKind::Lookup).len(), service.seen(RequestKind::Range).len());
    // A reader that used the URL of the first response again would be refused, and would request the range
    // twice.
    service.expire_urls();
    let mut bytes = vec![0; 29_000_000];
    reader.read_at(500_000, &mut bytes).unwrap();
    assert!(bytes == content[500_000..29_500_000]);
    let ranges = service.seen(RequestKind::Range).len() - ranges;
    assert_eq!(ranges, 4, "each range is asked for once");
    // Ranges that are requested at the same time share one lookup.
    assert!((1..=ranges).contains(&(service.seen(RequestKind::Lookup).len() - lookups)));
}

#[test]
fn server_without_ranges_is_read_as_one_stream() {
    let service = CacheService::start();
    let backend = backend(&service, Version::V2);
    let content = content(2_000_000);
    let name = save(&backend, "k", &content).unwrap();
    for way in [Fault::WholeBody, Fault::WholeInChunks] {
        service.inject_faults(RequestKind::Range, std::iter::repeat_n(way, 3));
        let before = service.seen(RequestKind::Range).len();
        assert!(fetch_named(&backend, &name).unwrap() == content);
        assert_eq!(
            service.seen(RequestKind::Range).len(),
            before + 2,
            "the question, then the stream"
        );
        service.clear_faults();
    }
    // The server sends the whole body from the second range on, and that stream breaks off once.
    service.inject_faults(RequestKind::Range, [Fault::Slow, Fault::WholeBody, Fault::ResetInBody]);
    assert!(fetch_named(&backend, &name).unwrap() == content);
}

#[test]
fn blocks_are_uploaded_in_parallel_at_most_four_at_once() {
    let service = CacheService::start();
    let backend = backend(&service, Version::V2);
    service.inject_faults(RequestKind::Block, std::iter::repeat_n(Fault::Slow, 40));
    let content = content(40 * BLOCK);
    save(&backend, "k", &content).unwrap();
    assert!(service.max_concurrent_blocks() <= 4, "{}", service.max_concurrent_blocks());
    let blocks = service.seen(RequestKind::Block);
    let connections: std::collections::HashSet<_> =
        blocks.iter().map(|one| one.connection).collect();
    assert!(connections.len() > 1, "all on one connection");
    assert_eq!(blocks.len(), 40);
}

#[test]
fn dropped_save_leaves_no_entry() {
    let service = CacheService::start();
    let backend = backend(&service, Version::V2);
    let mut writer = backend.create(&EntryName::new("k")).unwrap();
    writer.write_all(&content(5 * BLOCK)).unwrap();
    drop(writer);
    assert_eq!(service.keys(), [""; 0]);
    assert!(service.seen(RequestKind::Finalize).is_empty());
}

#[test]
fn reserved_key_is_refused_and_lost_reservation_is_retried() {
    for version in [Version::V2, Version::V1] {
        let service = CacheService::start();
        let backend = backend(&service, version);
        let name = EntryName::new("k");
        let _theirs = backend.create(&name).unwrap();
        let refused = backend.create(&name).err().unwrap();
        assert_eq!(refused_by(refused), Refused::Taken(name.to_string()));

        service.inject_faults(RequestKind::Reserve, [Fault::LostAnswer]);
        let writer = backend.create(&EntryName::new("lost")).unwrap();
        writer.finish().unwrap();
        assert_eq!(service.seen(RequestKind::Reserve).len(), 5);
        assert!(service.keys()[0].starts_with("lost.20"));
    }
    // The response of servers other than GitHub's.
    let service = CacheService::start();
    service.inject_faults(RequestKind::Reserve, [Fault::Status(200, "ok: ")]);
    let refused = backend(&service, Version::V2).create(&EntryName::new("k")).err().unwrap();
    assert!(matches!(refused_by(refused), Refused::Taken(_)));
}

#[test]
fn finalized_entry_counts_as_saved_despite_later_errors() {
    for version in [Version::V2, Version::V1] {
        let service = CacheService::start();
        let backend = backend(&service, version);
        // The first request already completes the entry; the second gets 404, or 400 in version 1.
        service.inject_faults(RequestKind::Finalize, [Fault::LostAnswer]);
        service.hide_new_entries(2);
        save(&backend, "k", b"once").unwrap();
        assert_eq!(fetch(&backend, "k").unwrap(), b"once");
    }
    // The service does not find the entry at first.
    let service = CacheService::start();
    let backend = backend(&service, Version::V2);
    let not_found = || Fault::Status(404, "not found");
    service.inject_faults(RequestKind::Finalize, [not_found(), not_found()]);
    save(&backend, "k", b"late").unwrap();
    assert_eq!(fetch(&backend, "k").unwrap(), b"late");
    // If the lookup lags, even right after the save, the result is a miss and not an error.
    service.hide_new_entries(1);
    assert!(find(&backend, &exact("k"), &[]).unwrap().is_none());
}

#[test]
fn denied_reads_and_writes_are_recognized() {
    let service = CacheService::start();
    let denied = "cache write denied: token has no writable scopes";
    for answer in
        [Fault::Status(403, denied), Fault::Status(200, "ok: cache write denied: no scopes")]
    {
        service.inject_faults(RequestKind::Reserve, [answer]);
        let refused = backend(&service, Version::V2).create(&EntryName::new("k")).err().unwrap();
        assert!(matches!(refused_by(refused), Refused::Write(_)));
    }
    let denied = "cache read denied: token has no readable scopes";
    service.inject_faults(RequestKind::Lookup, [Fault::Status(403, denied)]);
    let refused = find(&backend(&service, Version::V2), &exact("k"), &[]).unwrap_err();
    let refused = refused_by(refused);
    let text = "this run cannot read: token has no readable scopes";
    assert_eq!(refused.to_string(), text);
}

#[test]
fn version_1_is_used_where_version_2_is_not_supported() {
    let service = CacheService::start();
    service.support_v1_only();
    // As in act, which claims to be github.com and has another service behind the second URL.
    let options = GitHubService { v2: false, ..job(&service) };
    let backend = backend_of(&options);
    assert!(backend.describe().contains("v2"));
    save(&backend, "k", b"by version 1").unwrap();
    assert_eq!(fetch(&backend, "k").unwrap(), b"by version 1");
    assert!(backend.describe().contains("v1"));

    // As on GHES: version 2 is not tried.
    let server_url = Some("https://ghes.example".into());
    let options = GitHubService { v2: false, server_url, ..job(&service) };
    assert!(backend_of(&options).describe().contains("v1"));
    // As in the runner of Gitea: another host, and version 2.
    let options = GitHubService { v2: true, ..options };
    assert!(backend_of(&options).describe().contains("v2"));
    let options = GitHubService { service: Some(Version::V1), ..options };
    assert!(backend_of(&options).describe().contains("v1"));
    let only_v2 = GitHubService { cache_url: None, ..job(&service) };
    let text = line(fetch(&backend_of(&only_v2), "k"));
    assert!(text.contains("(HTTP 404)"), "{text}");
}

#[test]
fn version_1_server_without_ranges_stores_and_returns_entries() {
    let directory = tempfile::tempdir().unwrap();
    let server = NodeServer::start(azurite::script("dtu.mjs").arg(directory.path()));
    let backend = backend_of(&GitHubService {
        results_url: None,
        cache_url: Some(server.line.clone()),
        server_url: Some("https://ghes.example".into()),
        token: Secret::new("e30.e30.x"),
        v2: false,
        mode: String::new(),
        service: None,
        timeouts: timeouts(),
        rest: RestApi::default(),
    });
    for length in [1, BLOCK, 3 * BLOCK + 1] {
        let content = content(length);
        let name = save(&backend, &format!("of-{length}"), &content).unwrap();
        assert_eq!(fetch_named(&backend, &name).unwrap(), content, "{length}");
        // This server looks up whole keys only and so cannot find the newest entry of a key: a miss, not an
        // error.
        assert!(find(&backend, &exact(&format!("of-{length}")), &[]).unwrap().is_none());
    }
}

/// Returns the variables that a runner sets for a step with `uses:`.
fn variables(service: &CacheService) -> [(&'static str, String); 5] {
    [
        ("ACTIONS_RESULTS_URL", service.url()),
        ("ACTIONS_CACHE_URL", service.url()),
        ("ACTIONS_RUNTIME_TOKEN", TOKEN.into()),
        ("ACTIONS_CACHE_SERVICE_V2", "True".into()),
        ("GITHUB_SERVER_URL", "https://github.com".into()),
    ]
}

/// Runs a save or restore of `/opt/tool` as in a job, and asserts that no secret is printed. The run may fail.
fn attempt(place: &PlainEnv, service: &CacheService, verb: &str, more: &[&str]) -> Output {
    attempt_with(place, service, verb, more, &[])
}

fn attempt_with(
    place: &PlainEnv,
    service: &CacheService,
    verb: &str,
    more: &[&str],
    environment: &[(&str, &str)],
) -> Output {
    let mut command = Command::new(plain_env::binary());
    command.args([verb, "--store", "plain", "--key", "test", "--path", TOOL, "--root"]);
    command.arg(place.root()).args(["--network-timeout", "1"]).args(more);
    command.envs(variables(service)).envs(environment.iter().copied());
    command.env_remove("XDG_CACHE_HOME").env("HOME", place.entries());
    let output = plain_env::output(&mut command);
    for secret in [TOKEN, SIGNATURE, "sig="] {
        assert!(!format!("{output}").contains(secret), "{output}");
    }
    output
}

/// Returns a plain-directory fixture whose `/opt/tool` does not compress, so that the entry is larger than any
/// head.
fn random_tool() -> PlainEnv {
    let place = PlainEnv::new();
    place.write("/opt/tool/small", "small\n");
    std::fs::write(place.host("/opt/tool/large"), content(3_000_000)).unwrap();
    place
}

#[test]
fn job_uses_the_cache_service_by_default() {
    let service = CacheService::start();
    let place = PlainEnv::filled();
    let before = place.tree(TOOL);
    let saved = report(&attempt(&place, &service, "save", &["--json"]).ok());
    let host = service.url().replace("http://", "").replace('/', "");
    assert_eq!(saved["backend"], format!("github, v2 at {host}"));
    assert_eq!(service.keys(), [saved["entry"].as_str().unwrap()]);
    let bytes = service.content(&service.keys()[0]);
    assert_eq!(saved["bytes"]["uploaded"], bytes.len());

    place.remove(TOOL);
    let restored = report(&attempt(&place, &service, "restore", &["--json"]).ok());
    assert_eq!(restored["hit"], "exact");
    assert_same_tree(&before, &place.tree(TOOL));
    attempt(&place, &service, "verify", &[]).ok();
    attempt(&place, &service, "inspect", &[]).ok();

    // The entry is an ordinary snapshot, and is not used for another kind of store.
    std::fs::write(place.entries().join("it.tar.zst"), &bytes).unwrap();
    plain_env::storecache(["verify".into(), place.entries().join("it.tar.zst")]).ok();
    let other = ["--store", "nix", "--key", "test"];
    let output = plain_env::output(
        Command::new(plain_env::binary()).args(["inspect"]).args(other).envs(variables(&service)),
    );
    assert!(output.fails().stderr.contains("no entry for test"));

    // The override selects version 1.
    let v1 = [("STORECACHE_CACHE_SERVICE", "v1")];
    let missed = attempt_with(&place, &service, "restore", &["--json"], &v1).ok();
    assert_eq!(report(&missed)["hit"], "exact", "both versions have the same entries here");
    attempt(&place, &service, "save", &["--cache-service", "v1"]).ok();
    assert_eq!(service.keys().len(), 2);
    // If the service turns out not to support version 2, the report names version 1.
    service.support_v1_only();
    let restored = report(&attempt(&place, &service, "restore", &["--json"]).ok());
    assert_eq!(restored["backend"], format!("github, v1 at {host}"));
    let saved = report(&attempt(&place, &service, "save", &["--json"]).ok());
    assert_eq!(saved["backend"], format!("github, v1 at {host}"));
    // Outside of a job the directory remains the default.
    let none = [("ACTIONS_RUNTIME_TOKEN", "")];
    let missed = attempt_with(&place, &service, "restore", &["--json"], &none).ok();
    assert!(report(&missed)["backend"].as_str().unwrap().starts_with("dir:"));
    let none = [("ACTIONS_RESULTS_URL", ""), ("ACTIONS_CACHE_URL", "")];
    let wrong = attempt_with(&place, &service, "restore", &["--backend", "github"], &none);
    assert_eq!(wrong.code(), 2);
    assert!(wrong.stderr.contains("only for steps with `uses:`"), "{wrong}");
}

/// Returns faults of lookups and downloads. Some of them end a download, as the test observes.
fn download_faults() -> Vec<(RequestKind, Fault)> {
    let lookup = [
        Fault::Reset,
        Fault::Page,
        Fault::Stall,
        Fault::Status(401, "no"),
        Fault::Status(403, "cache read denied: token has no readable scopes"),
        Fault::Status(500, "boom"),
        Fault::Later(429, 60),
        Fault::Slow,
    ];
    let range = [
        Fault::Reset,
        Fault::ResetInBody,
        Fault::StallInBody,
        Fault::Stall,
        Fault::Short,
        Fault::Status(403, "expired"),
        Fault::Status(404, "gone"),
        Fault::Status(412, "changed"),
        Fault::Status(416, "shorter"),
        Fault::Status(500, "boom"),
        Fault::Status(503, "busy"),
        Fault::Later(503, 60),
        Fault::WholeBody,
        Fault::WholeInChunks,
        Fault::OtherRange,
        Fault::OtherTag,
        Fault::Slow,
    ];
    let lookup = lookup.into_iter().map(|fault| (RequestKind::Lookup, fault));
    lookup.chain(range.into_iter().map(|fault| (RequestKind::Range, fault))).collect()
}

#[test]
fn download_faults_leave_the_directory_complete_or_unchanged() {
    let service = CacheService::start();
    let place = random_tool();
    let before = place.tree(TOOL);
    attempt(&place, &service, "save", &[]).ok();
    place.remove(TOOL);
    let (mut whole, mut untouched) = (0, 0);
    for (at, fault) in download_faults() {
        // The fault occurs once, in the middle of a download; then always.
        for times in [1, 30] {
            if fault == Fault::Stall && times > 1 {
                // Another test covers this with a shorter timeout.
                continue;
            }
            let skipped = if at == RequestKind::Range { times % 30 } else { 0 };
            service.inject_faults(at, std::iter::repeat_n(Fault::Slow, skipped));
            service.inject_faults(at, std::iter::repeat_n(fault.clone(), times));
            let output = attempt(&place, &service, "restore", &["--json"]);
            service.clear_faults();
            let report = report(&output);
            if report["items"]["restored"] == 1 {
                whole += 1;
                assert_same_tree(&before, &place.tree(TOOL));
                place.remove(TOOL);
                continue;
            }
            untouched += 1;
            let reason = report["reason"].as_str().unwrap();
            assert_eq!(report["hit"], "miss", "{output}");
            assert!(!place.host(TOOL).exists(), "{output}");
            assert_eq!(place.leftovers(), [""; 0]);
            assert!(reason.len() < 350, "{reason}");
            if reason.starts_with("this run cannot read") {
                continue;
            }
            assert_eq!(output.code(), 1, "{at:?} {fault:?} {output}");
            let lines = output.messages();
            let untouched = "nothing was restored, the store is as it was";
            assert!(lines[0].ends_with(cause(reason)), "{at:?} {fault:?} {output}");
            assert!(lines[1].starts_with("note: ") && lines[1].contains(untouched), "{output}");
            assert!(lines.len() <= 3, "{at:?} {fault:?} {output}");
        }
    }
    // Both outcomes occur often enough.
    assert!(whole > 20 && untouched > 15, "{whole} {untouched}");
}

#[test]
fn upload_faults_leave_a_complete_entry_or_none() {
    let place = random_tool();
    let before = place.tree(TOOL);
    let everywhere = [
        Fault::Reset,
        Fault::LostAnswer,
        Fault::Stall,
        Fault::Slow,
        Fault::Status(400, "odd"),
        Fault::Status(403, "denied"),
        Fault::Status(404, "not found"),
        Fault::Status(409, "conflict"),
        Fault::Status(500, "boom"),
        Fault::Later(429, 60),
        Fault::Page,
    ];
    for at in [RequestKind::Reserve, RequestKind::Block, RequestKind::Finalize] {
        for (fault, times) in everywhere.iter().flat_map(|fault| [(fault, 1), (fault, 30)]) {
            if *fault == Fault::Stall && times > 1 {
                continue;
            }
            let service = CacheService::start();
            service.inject_faults(at, std::iter::repeat_n(fault.clone(), times));
            let output = attempt(&place, &service, "save", &["--json"]);
            service.clear_faults();
            let report = report(&output);
            let what = format!("{at:?} {fault:?} {times} {output}");
            assert_same_tree(&before, &place.tree(TOOL));
            match (output.code(), report["reason"].as_str()) {
                (0, None) => {
                    assert_eq!(service.keys().len(), 1, "{what}");
                    attempt(&place, &service, "verify", &[]).ok();
                }
                (0, Some(reason)) => {
                    assert!(reason.starts_with("entry test.20"), "{what}");
                    assert_eq!(service.keys(), [""; 0], "{what}");
                }
                (_, reason) => {
                    let lines = output.messages();
                    assert_eq!(lines[0], format!("error: {}", cause(reason.unwrap())), "{what}");
                    assert!(lines[1].starts_with("note: the save failed in"), "{what}");
                    assert!(lines.len() <= 3, "{what}");
                }
            }
        }
    }
}

#[test]
fn read_only_run_reports_it_before_any_request() {
    let service = CacheService::start();
    let place = PlainEnv::filled();
    let token = read_only_token();
    for (name, value, why) in [
        ("ACTIONS_RUNTIME_TOKEN", token.as_str(), "its token has no writable scope"),
        ("ACTIONS_CACHE_MODE", "read", "the workflow sets cache-mode: read"),
    ] {
        let worth_it = ["--policy", "auto", "--json"];
        let output = attempt_with(&place, &service, "save", &worth_it, &[(name, value)]).ok();
        let reason = report(&output)["reason"].as_str().unwrap().to_owned();
        assert!(reason.starts_with("this run cannot write: "), "{reason}");
        assert!(reason.contains(why), "{reason}");
        // Without `--policy auto`, a save that may not write fails.
        let failed = attempt_with(&place, &service, "save", &[], &[(name, value)]).fails();
        assert!(failed.stderr.contains(&reason), "{failed}");
    }
    let none = [("ACTIONS_CACHE_MODE", "write-only")];
    let missed = report(&attempt_with(&place, &service, "restore", &["--json"], &none).ok());
    assert_eq!(missed["hit"], "miss");
    let reason = "this run cannot read: the workflow sets cache-mode: write-only";
    assert_eq!(missed["reason"], reason);
    for at in ALL_REQUESTS {
        assert!(service.seen(at).is_empty(), "{at:?}");
    }
    attempt_with(&place, &service, "save", &[], &none).ok();
    assert_eq!(service.keys().len(), 1);
}

#[test]
fn proxy_from_the_environment_is_used() {
    // The service acts as its own proxy: the request targets then begin with the host.
    let service = CacheService::start();
    let place = PlainEnv::filled();
    let proxy = service.url();
    let elsewhere = "http://results.example/";
    let environment = [
        ("HTTP_PROXY", proxy.as_str()),
        ("http_proxy", &proxy),
        ("ACTIONS_RESULTS_URL", elsewhere),
    ];
    let output = attempt_with(&place, &service, "restore", &["--json"], &environment).ok();
    assert_eq!(report(&output)["hit"], "miss");
    assert_eq!(service.seen(RequestKind::Lookup)[0].headers["host"], "results.example");
}

#[test]
fn nix_store_is_saved_and_restored_through_the_service() {
    let service = CacheService::start();
    let saver = World::build(Role::New).fixture(Fixture::Small).network().start();
    saver.start_daemon();
    let run = |world: &World, verb: &str| {
        let words = [verb, "--store", "nix", "--key", "test", "--json"];
        let mut invocation = world.storecache_as("runner", words);
        for (name, value) in variables(&service) {
            invocation = invocation.env(name, value);
        }
        report(&invocation.ok())
    };
    let saved = run(&saver, "save");
    assert_eq!(service.keys(), [saved["entry"].as_str().unwrap()]);
    let before = world_runs::record_state(&saver);

    let restorer = World::build(Role::Old).network().start();
    restorer.start_daemon();
    let restored = run(&restorer, "restore");
    assert_eq!(restored["hit"], "exact");
    world_runs::assert_same(&before, &world_runs::record_state(&restorer));
    restorer.verify_store();
    // Items that are present are not downloaded again.
    let again = run(&restorer, "restore");
    let bytes = |report: &Value| report["bytes"]["downloaded"].as_u64().unwrap();
    assert_eq!(again["items"]["restored"], 0);
    assert!(bytes(&again) < bytes(&restored) / 2, "{again}");
}

#[test]
fn official_client_and_storecache_read_each_others_entries() {
    let azurite = Azurite::start();
    let service = CacheService::with(Some(azurite.signer()));
    let directory = tempfile::tempdir().unwrap();
    let (workspace, temporary) = (directory.path().join("ws"), directory.path().join("tmp"));
    let data = workspace.join("data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::create_dir_all(&temporary).unwrap();
    std::fs::write(data.join("random"), content(1_200_000)).unwrap();
    std::fs::write(data.join("text"), "text\n").unwrap();
    let before = plain_env::plain_tree(&data);
    let official = |verb: &str, key: &str| {
        let mut command = azurite::script("official_client.mjs");
        command.args([verb, key, "data"]).envs(variables(&service)).current_dir(&workspace);
        command.env("GITHUB_WORKSPACE", &workspace).env("RUNNER_TEMP", &temporary);
        plain_env::output(&mut command).ok().stdout
    };

    let theirs = "peer.20261122T095523.123456Z";
    let said = official("save", theirs);
    assert_eq!(service.keys(), [theirs], "{said}");
    let version = service.version_of(theirs);
    let backend = GitHub::new(&RunContext::default(), &job(&service), &version)
        .unwrap()
        .with_blocks_of(BLOCK);
    let archive = azurite.content(&service.blob_of(theirs));
    assert!(fetch(&backend, "peer").unwrap() == archive, "what they save we fetch");

    // Save that archive again in many blocks, under a name that storecache chose.
    let ours = save(&backend, "ours", &archive).unwrap().to_string();
    assert!(service.keys().contains(&ours));
    assert!(azurite.content(&service.blob_of(&ours)) == archive);
    for (key, matched) in [(ours.as_str(), ours.as_str()), ("ours", "undefined")] {
        std::fs::remove_dir_all(&data).unwrap();
        let said = official("restore", key);
        assert!(said.contains(&format!("result: {matched}")), "{said}");
        if matched == ours {
            assert_same_tree(&before, &plain_env::plain_tree(&data));
        } else {
            std::fs::create_dir(&data).unwrap();
        }
    }
    // In a single block, as for most small stores, and under the rules of real signatures.
    let small = save(&backend, "small", b"in one request").unwrap();
    assert_eq!(fetch_named(&backend, &small).unwrap(), b"in one request");
    assert!(matches!(refused_by(backend.create(&small).err().unwrap()), Refused::Taken(_)));

    let place = PlainEnv::filled();
    let before = place.tree(TOOL);
    attempt(&place, &service, "save", &[]).ok();
    place.remove(TOOL);
    attempt(&place, &service, "restore", &[]).ok();
    assert_same_tree(&before, &place.tree(TOOL));
}

#[test]
fn official_client_reads_our_entries_through_the_azure_sdk() {
    let azurite = Azurite::start();
    let by_name = Arc::new(AtomicBool::new(false));
    let service = CacheService::with(Some(azurite.signer_with_azure_host(&by_name)));
    let directory = tempfile::tempdir().unwrap();
    let (workspace, temporary) = (directory.path().join("ws"), directory.path().join("tmp"));
    let data = workspace.join("data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::create_dir_all(&temporary).unwrap();
    // Several of the official client's ranges of 4 MiB, and several of our blocks.
    std::fs::write(data.join("random"), content(21_000_000)).unwrap();
    let before = plain_env::plain_tree(&data);
    let official = |verb: &str, key: &str| {
        let mut command = azurite::script_with_azure_hosts("official_client.mjs");
        command.args([verb, key, "data"]).envs(variables(&service)).current_dir(&workspace);
        command.env("GITHUB_WORKSPACE", &workspace).env("RUNNER_TEMP", &temporary);
        plain_env::output(&mut command).ok().stdout
    };
    let theirs = "peer.20261122T095523.123456Z";
    official("save", theirs);
    let version = service.version_of(theirs);
    let backend = GitHub::new(&RunContext::default(), &job(&service), &version)
        .unwrap()
        .with_blocks_of(5_000_000);
    let archive = fetch(&backend, "peer").unwrap();
    let ours = save(&backend, "ours", &archive).unwrap().to_string();
    std::fs::remove_dir_all(&data).unwrap();
    by_name.store(true, Ordering::Relaxed);
    let said = official("restore", &ours);
    assert!(said.contains(&format!("result: {ours}")), "{said}");
    // Only the Azure SDK downloads in segments.
    assert!(said.contains("Downloading segment at offset 0"), "{said}");
    assert_same_tree(&before, &plain_env::plain_tree(&data));
}

#[test]
fn tls_uses_the_certificates_that_the_machine_trusts() {
    let service = CacheService::start();
    let front = TlsProxy::before(&service);
    let place = random_tool();
    let before = place.tree(TOOL);
    let environment = |ca: &'static str| {
        [
            ("ACTIONS_RESULTS_URL".to_owned(), front.url()),
            ("SSL_CERT_FILE".to_owned(), front.file(ca).display().to_string()),
        ]
    };
    let attempt = |verb: &str, ca| {
        let environment = environment(ca);
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        attempt_with(&place, &service, verb, &["--json"], &environment)
    };
    let saved = report(&attempt("save", "ca.pem").ok());
    assert!(saved["backend"].as_str().unwrap().starts_with("github, v2 at 127.0.0.1:"), "{saved}");
    place.remove(TOOL);
    let refused = attempt("restore", "other.pem").fails();
    assert!(refused.stderr.contains("certificate"), "{refused}");
    assert!(refused.stderr.contains("nothing was restored"), "{refused}");
    let restored = report(&attempt("restore", "ca.pem").ok());
    assert_eq!(restored["hit"], "exact");
    assert_same_tree(&before, &place.tree(TOOL));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_faults_never_return_wrong_bytes(
        length in 1usize..700_000,
        faults in proptest::collection::vec((0usize..6, 0usize..18), 0..25),
        v2 in any::<bool>(),
    ) {
        let service = CacheService::start();
        let backend = backend(&service, if v2 { Version::V2 } else { Version::V1 });
        let content = content(length);
        for (at, fault) in faults {
            let at = ALL_REQUESTS[at];
            let mut kinds = transient_faults(at);
            kinds.extend([
                Fault::Status(404, "gone"),
                Fault::Status(409, "taken"),
                Fault::OtherTag,
                Fault::Later(429, 100),
            ]);
            let fault = kinds[fault % kinds.len()].clone();
            service.inject_faults(at, [fault]);
        }
        let saved = save(&backend, "k", &content);
        if let Ok(name) = &saved {
            prop_assert!(service.content(&name.to_string()) == content);
        }
        for _ in 0..2 {
            if let Ok(back) = fetch(&backend, "k") {
                prop_assert!(back == content);
            }
        }
        service.clear_faults();
        match fetch(&backend, "k") {
            Ok(back) => prop_assert!(back == content),
            // A failed save may have been completed; a successful save can be read.
            Err(_) => prop_assert!(saved.is_err()),
        }
    }
}
