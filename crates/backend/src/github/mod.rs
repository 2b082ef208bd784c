//! Entries in the cache service of GitHub Actions, versions 2 and 1.
//!
//! The service knows keys and versions; the bytes are in a blob on another server, behind signed URLs. The key of an
//! entry in the service is its name here, key and generation, so that every save is a new entry and a lookup by
//! prefix finds the newest one. The rest of the crate is synchronous; this part has threads of its own.
//!
//! No error and no description contains the token or a URL.

mod blob_reader;
mod cache_service;
mod cache_service_v1;
mod cache_service_v2;
mod repository_records;
mod rest;
mod rest_error;
mod retryable_failures;
mod token_scopes;
mod transport;
mod upload;

pub use repository_records::Repository;

use super::{
    Backend, BackendError, Entry, EntryIdentity, EntryList, EntryName, EntryWriter, FoundEntry,
    Gone, Health, Notes, Quarantine, QuarantineList, Quarantined, ReadAt, Refused, TRIAL,
};
use crate::http_client::RetryingClient;
use crate::options::{GitHubService, Secret};
use crate::prefetch::Reader;
use crate::retry_limits::REQUEST_TRIES;
use anyhow::{Context, Result, bail};
use blob_reader::{Blob, Probed};
use cache_service::{KEYS, Match, Reserved, Service};
use rest::Rest;
use rest_error::Asker;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use storecache_entry::Rung;
use storecache_runtime::RunContext;
use storecache_runtime::memory::{ByteSemaphore, Traffic};
use token_scopes::Access;
use tracing::debug;

/// Bytes of the first request for an entry, which usually contain its head.
const HEAD: u64 = 64 << 10;

/// Every generation begins with this until the year 2100. It is longer than a dot, so that the prefix of an exact key
/// matches few other keys: `nix-2.8` is also a prefix of `nix-2.8.0-abc`.
const CENTURY: &str = ".20";

pub struct GitHub {
    hub: Arc<Hub>,
    access: Access,
    /// URLs of entries that were found and are not opened yet.
    found: Mutex<HashMap<EntryName, Secret>>,
    /// The previous generation of each entry, as far as this run has searched. So skipping one more entry takes the
    /// same few lookups, no matter how many were skipped before.
    before: Mutex<HashMap<EntryName, EntryName>>,
    rest: Rest,
    listed: Mutex<Listed>,
    traffic: Traffic,
}

/// Entries that the REST API is known to have.
#[derive(Default)]
struct Listed {
    /// Names that this run has reserved.
    ours: HashSet<EntryName>,
    /// Numbers of the listed entries.
    numbers: HashMap<EntryName, i64>,
    /// Whether they belong to the cache service in use. A runner may have a cache service other than GitHub's, and
    /// nevertheless the URL of GitHub's API.
    of_this_service: bool,
}

/// State that readers and writers share.
struct Hub {
    service: Service,
    /// The bytes that all readers may fetch ahead together.
    ahead: ByteSemaphore,
}

impl Hub {
    /// Waits for a request, unless the run is canceled.
    fn wait<T>(
        &self,
        request: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        self.wire().wait(request).map_err(anyhow::Error::from)?
    }

    fn wire(&self) -> &RetryingClient {
        &self.service.wire
    }
}

impl GitHub {
    /// Opens the cache service. `version` is the layout of the entries, 64 hex digits; entries of other layouts are
    /// never seen.
    ///
    /// # Errors
    /// If the environment names no service.
    pub fn new(run: &RunContext, options: &GitHubService, version: &str) -> Result<Self> {
        let wire = Arc::new(RetryingClient::new(
            run,
            "the cache service",
            options.token.clone(),
            options.timeouts,
        )?);
        let rest = Rest::new(Arc::clone(&wire), options.rest.clone(), Asker::Step);
        let service = Service::new(options, wire, version)?;
        let hub = Arc::new(Hub { service, ahead: ByteSemaphore::new(Traffic::default().ahead) });
        Ok(GitHub {
            rest,
            hub,
            access: Access::from_token(&options.mode, &options.token),
            found: Mutex::default(),
            before: Mutex::default(),
            listed: Mutex::default(),
            traffic: Traffic::default(),
        })
    }

    /// Sets the size of upload blocks.
    pub fn with_blocks_of(mut self, bytes: usize) -> Self {
        self.traffic.block = bytes.max(1);
        self
    }

    /// Limits the memory for uploads and downloads.
    pub fn within(mut self, traffic: Traffic) -> Self {
        self.traffic = traffic;
        self.hub.ahead.becomes(traffic.ahead);
        self
    }

    /// Makes one lookup.
    fn look(&self, rungs: &[Rung]) -> Result<Option<Match>, BackendError> {
        self.ask(rungs.iter().map(asked).collect())
    }

    /// Returns the newest entry of the first prefix that has an entry.
    fn ask(&self, mut prefixes: Vec<String>) -> Result<Option<Match>, BackendError> {
        // Some servers treat the first key as exact, and only the others as prefixes.
        prefixes.insert(0, prefixes[0].clone());
        let found = self.hub.wait(self.hub.service.lookup(&prefixes))?;
        debug!(
            prefixes = prefixes[1..].join(","),
            found = found.as_ref().map(|found| &*found.key),
            "looked up entries in the cache service"
        );
        Ok(found)
    }

    /// Returns the newest entry of the same key that is older than `name` and not in `passed`. The service has no
    /// list, so this takes several lookups, of prefixes that share ever fewer digits of the generation and continue
    /// with a smaller digit.
    fn older(
        &self,
        mut name: EntryName,
        passed: &[EntryName],
    ) -> Result<Option<(EntryName, Option<Secret>)>, BackendError> {
        let known = || self.before.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(next) = known().get(&name).cloned() {
                if !passed.contains(&next) {
                    return Ok(Some((next, None)));
                }
                name = next;
                continue;
            }
            let prefixes = before(&name);
            let mut found = None;
            for some in prefixes.chunks(KEYS - 1) {
                found = self.ask(some.to_vec())?;
                if found.is_some() {
                    break;
                }
            }
            let Some(Match { key, url }) = found else { return Ok(None) };
            match named(&key) {
                Some(next) if next.key == name.key && next.generation < name.generation => {
                    known().insert(name, next.clone());
                    if !passed.contains(&next) {
                        return Ok(Some((next, Some(url))));
                    }
                    name = next;
                }
                _ => return Ok(None),
            }
        }
    }

    /// Returns whether the cache service has exactly this entry.
    fn has(&self, name: &EntryName) -> Result<bool> {
        self.can_read()?;
        let key = name.to_string();
        let keys = [key.clone(), key.clone()];
        let found = self.hub.wait(self.hub.service.lookup(&keys))?;
        Ok(found.is_some_and(|found| same(&found.key, &key)))
    }

    fn can_read(&self) -> Result<(), Refused> {
        self.access.no_read.clone().map_or(Ok(()), |why| Err(Refused::Read(why)))
    }

    fn can_write(&self) -> Result<(), Refused> {
        self.access.no_write.clone().map_or(Ok(()), |why| Err(Refused::Write(why)))
    }

    /// Identifies the service, without its host: the URL of a runner's own service changes with its port.
    fn place(&self) -> String {
        let repository = self.rest.repository().unwrap_or_default();
        format!("github:{repository}:{}", self.hub.service.version)
    }

    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the entry name in a key of the service. Some servers write keys in lower case.
fn named(key: &str) -> Option<EntryName> {
    let dot = key.rmatch_indices('.').nth(1)?.0;
    let (key, generation) = key.split_at(dot);
    EntryName::parse(&format!("{key}{}", generation.to_ascii_uppercase()))
}

/// Returns the prefixes of all names that have the key of this name and an older generation of the same century,
/// nearest first.
fn before(name: &EntryName) -> Vec<String> {
    let generation = name.generation.to_string();
    let mut prefixes = Vec::new();
    for (at, byte) in generation.bytes().enumerate().skip(CENTURY.len() - 1).rev() {
        for digit in (b'0'..byte).rev().filter(|_| byte.is_ascii_digit()) {
            prefixes.push(format!("{}.{}{}", name.key, &generation[..at], digit as char));
        }
    }
    prefixes
}

/// Compares two keys of the service, which ignores case.
fn same(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

/// Returns the prefix to look up for the entries of a rung. The results may include others.
fn asked(rung: &Rung) -> String {
    match rung {
        Rung::Exact(key) => format!("{key}{CENTURY}"),
        Rung::Prefix(prefix) => prefix.clone(),
    }
}

impl Backend for GitHub {
    fn examine(&self) -> Result<Health> {
        self.can_read()?;
        // A reservation without an upload never becomes an entry.
        self.look(&[Rung::Exact(TRIAL.into())])?;
        let reserve = || -> Result<(), BackendError> {
            self.can_write()?;
            self.hub.wait(self.hub.service.reserve(&EntryName::new(TRIAL))).map(drop)
        };
        let unwritable = reserve().err();
        let found = match unwritable {
            None => "answers a lookup and accepts a reservation",
            Some(_) => "answers a lookup",
        };
        Ok(Health { found: found.into(), unwritable, ahead: self.hub.wire().ahead() })
    }

    fn describe(&self) -> String {
        self.hub.service.describe()
    }

    fn find(
        &self,
        rungs: &[Rung],
        passed: &[EntryName],
    ) -> Result<(Option<FoundEntry>, Notes), BackendError> {
        self.can_read()?;
        let mut first = 0;
        while first < rungs.len() {
            // The first key is sent twice.
            let end = rungs.len().min(first + KEYS - 1);
            let Some(found) = self.look(&rungs[first..end])? else {
                first = end;
                continue;
            };
            let key = found.key.to_lowercase();
            let for_it = |number: &usize| key.starts_with(&asked(&rungs[*number]).to_lowercase());
            let number = (first..end).find(for_it).unwrap_or(first);
            let named = named(&found.key).filter(|name| rungs[number].holds(&name.key));
            let usable = match named {
                Some(name) if passed.contains(&name) => self.older(name, passed)?,
                other => other.map(|name| (name, Some(found.url))),
            };
            match usable {
                Some((name, url)) => {
                    let mut names = self.found.lock().unwrap_or_else(PoisonError::into_inner);
                    names.extend(url.map(|url| (name.clone(), url)));
                    return Ok((Some(FoundEntry { name, rung: number }), Notes::default()));
                }
                // A longer key, or an entry in `passed`, hides the entries of the next rungs.
                None => first = number + 1,
            }
        }
        Ok((None, Notes::default()))
    }

    fn open(&self, name: &EntryName) -> Result<Box<dyn ReadAt>, BackendError> {
        self.can_read()?;
        let known = self.found.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        let url = match known {
            Some(url) => url,
            None => {
                let key = name.to_string();
                let found = self.hub.wait(self.hub.service.lookup(&[key.clone(), key.clone()]))?;
                let found = found.filter(|found| same(&found.key, &key));
                found.ok_or(Gone::new(name))?.url
            }
        };
        let probe = Blob::probe(Arc::clone(&self.hub), name.clone(), url, HEAD);
        let probed = self.hub.wire().wait(probe).map_err(anyhow::Error::from)?;
        let reader = match probed.with_context(|| format!("open {name}"))? {
            Probed::Ranges(source, head) => Reader::ranges(source, head, self.traffic.range),
            Probed::Whole(source, all) => Reader::whole(source, all, self.traffic.range),
        };
        Ok(Box::new(reader))
    }

    fn create(&self, name: &EntryName) -> Result<Box<dyn EntryWriter>, BackendError> {
        self.can_write()?;
        let mut name = name.clone();
        let reserve = |name: &EntryName| self.hub.wait(self.hub.service.reserve(name));
        let mut reserved = reserve(&name)?;
        let mut lost = 0;
        while matches!(reserved, Reserved::Taken { repeated: true }) && lost < REQUEST_TRIES {
            // An earlier try of this run seems to have reserved it, and the URL was in the answer that was lost.
            lost += 1;
            name = EntryName::after(&name.key, &[name.clone()]);
            reserved = reserve(&name)?;
        }
        match reserved {
            Reserved::Here(upload) => {
                self.listed().ours.insert(name.clone());
                let hub = Arc::clone(&self.hub);
                Ok(Box::new(upload::Writer::new(hub, name, upload, self.traffic)))
            }
            Reserved::Taken { .. } => Err(Refused::Taken(name.to_string()).into()),
        }
    }

    fn for_save(self: Arc<Self>) -> Result<(Arc<dyn Backend>, Vec<String>), BackendError> {
        self.can_write()?;
        Ok((self, Vec::new()))
    }

    fn try_writing(&self) -> Result<(), BackendError> {
        self.can_write()?;
        match self.find(&[Rung::Exact(TRIAL.into())], &[]) {
            // A run may be allowed to write but not to read.
            Ok(_) | Err(BackendError::Refused(_)) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// GitHub keeps the case of a key. The servers of `act` and of the runners of Gitea and Forgejo speak the same
    /// protocol and write every key in lower case (`nektos/act:pkg/artifactcache/handler.go`).
    fn lowers_case(&self, _: &EntryName) -> bool {
        true
    }
}

impl EntryList for GitHub {
    /// Uses the list of GitHub's REST API, because the cache service itself has no list.
    fn entries(&self, rung: &Rung) -> Result<(Vec<Entry>, Notes), BackendError> {
        let list = async { Ok(self.rest.list(&asked(rung)).await?) };
        let caches = self.hub.wait(list)?;
        let mut listed = self.listed();
        let mut entries = Vec::new();
        for cache in caches {
            // The API lists entries of any layout, including those of other tools.
            let name = named(&cache.key).filter(|name| rung.holds(&name.key));
            let Some(name) = name.filter(|_| cache.version == self.hub.service.version) else {
                continue;
            };
            listed.of_this_service |= listed.ours.contains(&name);
            listed.numbers.insert(name.clone(), cache.id);
            entries.push(Entry { name, size: cache.size_in_bytes.try_into().unwrap_or_default() });
        }
        entries.sort_by(|a, b| b.name.generation.cmp(&a.name.generation));
        Ok((entries, Notes::default()))
    }

    fn delete(&self, entry: &Entry) -> Result<()> {
        let name = &entry.name;
        let (number, proven) = {
            let listed = self.listed();
            (listed.numbers.get(name).copied(), listed.of_this_service)
        };
        let number = number.with_context(|| format!("delete {name}: it was not listed before"))?;
        if !proven {
            // A name is never used twice, so an entry in both proves that they belong together.
            if !self.has(name)? {
                bail!(
                    "{} lists {name}, which {} does not have: they belong to different services",
                    self.rest.describe(),
                    self.describe()
                );
            }
            self.listed().of_this_service = true;
        }
        self.hub.wire().wait(self.rest.delete(number))??;
        Ok(())
    }
}

/// The service has no quarantine: a run cannot rename an entry, and other runs do not see a note about it.
impl QuarantineList for GitHub {
    fn is_at(&self, place: &str) -> bool {
        place == self.place()
    }

    fn quarantined(&self) -> Result<Vec<Quarantined>> {
        Ok(Vec::new())
    }
}

impl Quarantine for GitHub {
    /// No name is used twice.
    fn identify(&self, _: &EntryName) -> EntryIdentity {
        EntryIdentity { place: self.place(), version: String::new() }
    }

    fn set_aside(&self, _: &EntryName, _: &Quarantined) -> Result<Option<PathBuf>> {
        Ok(None)
    }

    fn sweep(&self, _: Duration) -> Result<()> {
        Ok(())
    }
}
