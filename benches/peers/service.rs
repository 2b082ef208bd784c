//! Restores through the cache service, over a link of a known rate.
//!
//! The peer is the usual recipe: the official client downloads an archive, and `sudo tar` unpacks it. Both read from
//! the same Azurite, by signed URLs, in the ways that they choose on GitHub: the client chooses by the host name, and
//! sees a host name of Azure. Neither waits for the disk, as on GitHub's own runners. The servers share the
//! processors with the measured programs; the blobs are in a file system in memory.

use std::fs;
use std::thread;

use anyhow::{Result, anyhow, ensure};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::link::{Link, Rate, SERVERS};
use super::ours::{KEY, install, storecache};
use super::record::{Figure, Quantity, Wanted, Work};
use super::rounds::{Contender, bytes_below, rounds};
use super::shell::{command, run, sh};
use super::{Bench, US};
use crate::support::azurite::{self, Azurite};
use crate::support::cache_service::{CacheService, TOKEN};

const OFFICIAL: &str = "official client, tar -x";
const ALONE: &str = "the link alone";
/// The key of the peer's entry.
const THEIRS: &str = "recipe";

pub fn slow(bench: &Bench) -> Result<Work> {
    let figures = vec![
        Figure::ours_against(OFFICIAL, Quantity::Seconds, Wanted::Nothing),
        ours_against_link(Wanted::Nothing),
    ];
    on_a_thread(bench, "service-200", "200 Mbit/s", Rate::Megabits(200), figures)
}

pub fn usual(bench: &Bench) -> Result<Work> {
    let figures = vec![
        Figure::ours_against(OFFICIAL, Quantity::Seconds, Wanted::AtLeast(2.0)),
        ours_against_link(Wanted::AtMost(1.1)),
    ];
    on_a_thread(bench, "service-1000", "1 Gbit/s", Rate::Megabits(1000), figures)
}

pub fn unshaped(bench: &Bench) -> Result<Work> {
    let figures = vec![
        Figure::ours_against(OFFICIAL, Quantity::Seconds, Wanted::AtLeast(2.5)),
        ours_against_link(Wanted::Nothing),
    ];
    on_a_thread(bench, "service-unshaped", "unshaped", Rate::Unshaped, figures)
}

fn ours_against_link(wanted: Wanted) -> Figure {
    Figure { of: US.into(), over: ALONE.into(), quantity: Quantity::Seconds, wanted }
}

/// Measures on a thread of its own: the namespace of the link belongs to a thread, and nothing else must move into
/// it.
fn on_a_thread(
    bench: &Bench,
    name: &str,
    speed: &str,
    rate: Rate,
    figures: Vec<Figure>,
) -> Result<Work> {
    let corpus = bench.small()?;
    let ground = &bench.ground;
    let entries = ground.directory("service")?;
    let disk = ground.disk(corpus.bytes)?;
    let out = disk.out();
    let blobs = ground.memory()?;
    let (root, count) = (&corpus.root, bench.rounds);
    let (series, bytes) = thread::scope(|threads| {
        let measured = threads.spawn(|| -> Result<_> {
            let link = Link::enter()?;
            let azurite = Azurite::at(SERVERS, blobs.path());
            let by_name = Arc::new(AtomicBool::new(false));
            let service =
                CacheService::at(SERVERS, Some(azurite.signer_with_azure_host(&by_name)));
            let variables = [
                ("ACTIONS_RESULTS_URL", service.url()),
                ("ACTIONS_CACHE_URL", service.url()),
                ("ACTIONS_RUNTIME_TOKEN", TOKEN.into()),
                ("ACTIONS_CACHE_SERVICE_V2", "True".into()),
                ("GITHUB_SERVER_URL", "https://github.com".into()),
                ("RUNNER_ENVIRONMENT", "github-hosted".into()),
                // For the official client.
                ("AZURE_ADDRESS", SERVERS.into()),
                ("GITHUB_WORKSPACE", out.display().to_string()),
                ("RUNNER_TEMP", out.join("temp").display().to_string()),
            ];
            let there = |script: &str| {
                let mut command = command(&link.room(), script);
                command.envs(variables.iter().map(|(name, value)| (name, value)));
                run(&mut command, script)
            };

            let ours = |verb: &str, root| {
                let line = storecache(verb, root, &entries, KEY);
                line.replace(&format!("dir:{}", entries.display()), "github")
            };
            let official = |verb: &str| {
                let client = azurite::script_with_azure_hosts("official_client.mjs");
                let words = client.get_args().map(|word| word.to_string_lossy().into_owned());
                let words: Vec<String> = words.collect();
                let (_, hosts) = client.get_envs().next().unwrap_or_default();
                let hosts = hosts.unwrap_or_default().to_string_lossy();
                let node = format!("NODE_OPTIONS={hosts} node {}", words.join(" "));
                format!("cd {} && mkdir -p temp && {node} {verb} {THEIRS} cache", out.display())
            };
            sh(&format!("rm -rf {0} && mkdir -p {0}/cache", out.display()))?;
            there(&ours("save", root))?;
            let archive = out.join("cache/store.tzst");
            let tar = format!("tar --create --zstd --file={}", archive.display());
            sh(&format!("{tar} -C {} nix", root.display()))?;
            let theirs = bytes_below(&archive)?;
            let said = there(&official("save"))?;
            let key = service.keys().into_iter().find(|key| key != THEIRS);
            let key = key.ok_or_else(|| anyhow!("nothing was saved: {said}"))?;
            ensure!(service.keys().len() == 2, "the client has not saved: {said}");
            let blob = azurite.signer()(&service.blob_of(&key), false);
            let fetch = format!("curl --silent --show-error --fail --output /dev/null '{blob}'");
            let size = "curl --silent --fail --head --output /dev/null --write-out '%header{content-length}'";
            let bytes: u64 = there(&format!("{size} '{blob}'"))?.trim().parse()?;

            link.shape(rate)?;
            let of = |name: &str, script: String| {
                let environment = variables.iter();
                let contender = Contender::new(name, script).in_room(&link.room());
                environment.fold(contender, |contender, (name, value)| contender.env(name, value))
            };
            let tar = format!("tar --extract --zstd --file=cache/store.tzst -C {}", out.display());
            let contenders = [
                of(US, ours("restore", &out))
                    .into_fresh(&out)
                    .on_new(Some(&disk))
                    .tells_bytes()
                    .after(|| {
                        by_name.store(false, Ordering::Relaxed);
                        install(&out)
                    }),
                of(OFFICIAL, format!("{} && {tar}", official("restore")))
                    .into_fresh(&out)
                    .on_new(Some(&disk))
                    .moves_bytes(theirs)
                    .after(|| {
                        by_name.store(true, Ordering::Relaxed);
                        Ok(())
                    }),
                of(ALONE, fetch).moves_bytes(bytes),
            ];
            Ok((rounds(count, &contenders)?, bytes))
        });
        measured.join().unwrap_or_else(|_| Err(anyhow!("the servers have failed")))
    })?;
    fs::remove_dir_all(&entries)?;
    Ok(Work {
        name: name.to_owned(),
        title: format!("restore through the cache service, {speed}"),
        about: match rate {
            Rate::Megabits(rate) => {
                let seconds = bytes as f64 * 8.0 / (f64::from(rate) * 1e6);
                format!("{}; the bytes of ours alone take {seconds:.2} s", corpus.about)
            }
            Rate::Unshaped => corpus.about.clone(),
        },
        series,
        figures,
    })
}
