//! Entries as objects of S3, Google Cloud Storage or Azure Blob Storage.
//!
//! `PREFIX/LAYOUT/KEY.GENERATION.tar.zst` is an entry: the plain archive. LAYOUT is the version of the cache, 64 hex
//! digits, so that entries of other systems and kinds of stores are never seen. An object appears when it is
//! complete, and never before; `write_lock.rs` decides which run may complete it. The rest of the crate is synchronous;
//! this part has a thread of its own.
//!
//! No error and no description contains a credential, or any text of a server except its error code.

mod client;
mod credentials;
mod error;
mod list_objects;
mod object_reader;
mod quarantine_note;
mod transport;
mod upload;
mod write_lock;

use super::entry_name::escaped;
use super::http_client::RetryingClient;
use super::options::{Address, ObjectStore as Options, Secret};
use super::prefetch::Reader;
use super::{
    Backend, BackendError, Directory, Entry, EntryList, EntryName, EntryWriter, Gone, Health,
    Notes, ReadAt, Refused,
};
use anyhow::{Context, Error, Result};
use client::ObjectClient;
use error::ObjectError;
use object_reader::Object;
use object_store::path::Path;
use quarantine_note::{asides, is_aside};
use std::path::PathBuf;
use std::sync::Arc;
use storecache_entry::Rung;
use storecache_runtime::RunContext;
use storecache_runtime::memory::{ByteSemaphore, Traffic};
use write_lock::WriteLock;

/// Bytes of the first request for an entry, which usually contain its head.
const HEAD: u64 = 64 << 10;

/// Name of the object that a test writes and deletes, beside the layouts.
const TRIAL: &str = ".storecache-doctor";

pub struct Objects {
    hub: Arc<ObjectClient>,
    address: Address,
    /// Kind and location, for messages.
    told: String,
    /// Requests are not signed, so nothing can be written.
    unsigned: bool,
    traffic: Traffic,
}

impl Objects {
    /// Opens the object store. `version` is the layout of the entries, 64 hex digits; entries of other layouts are
    /// never seen. If it is empty, the result is not usable as a backend, but lists all layouts.
    ///
    /// # Errors
    /// If the environment has no credentials.
    pub fn new(run: &RunContext, options: &Options, version: &str) -> Result<Self> {
        let wire = RetryingClient::new(run, "the object store", Secret::new(""), options.timeouts)?;
        let wire = Arc::new(wire);
        let address = options.address.clone();
        let store = credentials::open(options, &wire).with_context(|| address.to_string())?;
        let told = match options.endpoint() {
            Some(host) => format!("{address} at {host}"),
            None => address.to_string(),
        };
        let unsigned = ["AWS_SKIP_SIGNATURE", "GOOGLE_SKIP_SIGNATURE", "AZURE_SKIP_SIGNATURE"];
        let base = match version {
            "" => address.base(),
            version => format!("{}{version}/", address.base()),
        };
        let ahead = ByteSemaphore::new(Traffic::default().ahead);
        Ok(Objects {
            unsigned: unsigned.iter().any(|name| options.has(name)),
            hub: Arc::new(ObjectClient { store, wire, ahead, base }),
            address,
            told,
            traffic: Traffic::default(),
        })
    }

    /// Limits the memory for uploads and downloads.
    pub fn within(mut self, traffic: Traffic) -> Self {
        self.traffic = traffic;
        self.hub.ahead.becomes(traffic.ahead);
        self
    }

    fn path_of(&self, name: &EntryName) -> Result<Path> {
        Ok(self.hub.path(&Directory::file_name(name)?)?)
    }

    /// Returns the URL of an object, for messages and other tools.
    fn shown(&self, path: &Path) -> PathBuf {
        let Address { service, bucket, .. } = &self.address;
        format!("{}://{bucket}/{path}", service.scheme()).into()
    }

    /// Identifies the place of the entries.
    fn place(&self) -> String {
        format!("{}:{}", self.told, self.hub.base)
    }

    fn has_all_layouts(&self) -> bool {
        self.hub.base == self.address.base()
    }

    fn can_write(&self) -> Result<(), Refused> {
        match self.unsigned {
            true => Err(Refused::Write("its requests are not signed".into())),
            false => Ok(()),
        }
    }
}

impl Backend for Objects {
    fn describe(&self) -> String {
        self.told.clone()
    }

    fn open(&self, name: &EntryName) -> Result<Box<dyn ReadAt>, BackendError> {
        let (file, path) = (Directory::file_name(name)?, self.path_of(name)?);
        let probe = async {
            if is_aside(&self.hub, &file).await? {
                return Err(ObjectError::Missing);
            }
            Object::probe(Arc::clone(&self.hub), path, HEAD).await
        };
        match self.hub.wait(probe) {
            Ok((object, head)) => Ok(Box::new(Reader::ranges(object, head, self.traffic.range))),
            Err(ObjectError::Missing) => Err(Gone::new(name).into()),
            Err(e) => Err(Error::from(e).context(format!("open {name}")).into()),
        }
    }

    fn create(&self, name: &EntryName) -> Result<Box<dyn EntryWriter>, BackendError> {
        self.can_write()?;
        let (file, path) = (Directory::file_name(name)?, self.path_of(name)?);
        let claim = self.hub.wait(WriteLock::take(&self.hub, &file, &path));
        let claim = claim
            .map_err(|e| e.into_write_error().context(|| "lock the name of the entry".into()))?;
        let Some(claim) = claim else { return Err(Refused::Taken(name.to_string()).into()) };
        let hub = Arc::clone(&self.hub);
        Ok(Box::new(upload::Writer::new(hub, name.clone(), path, claim, self.traffic)))
    }

    fn for_save(self: Arc<Self>) -> Result<(Arc<dyn Backend>, Vec<String>), BackendError> {
        self.can_write()?;
        Ok((self, Vec::new()))
    }

    /// Creates and deletes an object.
    fn try_writing(&self) -> Result<(), BackendError> {
        self.can_write()?;
        let hub = &self.hub;
        let key = format!("{}{TRIAL}", self.address.base());
        let path = Path::parse(&key).context(key)?;
        hub.wait(hub.put(&path, Vec::new())).map_err(ObjectError::into_write_error)?;
        // If deleting is not permitted, the object stays, and the next test writes it again.
        let _ = hub.wait(hub.delete(&path));
        Ok(())
    }

    fn examine(&self) -> Result<Health> {
        self.entries(&Rung::Exact(TRIAL.into()))?;
        let unwritable = self.try_writing().err();
        let found =
            if unwritable.is_none() { "can be listed and written" } else { "can be listed" };
        Ok(Health { found: found.into(), unwritable, ahead: self.hub.wire.ahead() })
    }
}

impl EntryList for Objects {
    fn entries(&self, rung: &Rung) -> Result<(Vec<Entry>, Notes), BackendError> {
        let start = match rung {
            Rung::Exact(key) => format!("{}.", escaped(key)),
            Rung::Prefix(prefix) => escaped(prefix),
        };
        let hub = &self.hub;
        let listed = async {
            let found = hub.list(&start, false).await?;
            let aside = asides(hub, &start).await?;
            Ok((found, aside))
        };
        let (found, aside) = hub.wait(listed).context("list the entries")?;
        let named = found.iter().filter_map(|object| {
            let name = Directory::entry_of(object.location.filename()?)?;
            Some(Entry { name, size: object.size })
        });
        let fits = |entry: &Entry| rung.holds(&entry.name.key) && !aside.contains(&entry.name);
        let mut entries: Vec<Entry> = named.filter(fits).collect();
        entries.sort_by(|a, b| b.name.generation.cmp(&a.name.generation));
        Ok((entries, Notes::default()))
    }

    fn delete(&self, entry: &Entry) -> Result<()> {
        let path = self.path_of(&entry.name)?;
        let deleted = self.hub.wait(self.hub.delete(&path));
        deleted.map(drop).with_context(|| format!("delete {}", entry.name))
    }
}
