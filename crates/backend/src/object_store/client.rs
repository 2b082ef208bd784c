//! The client of an object store: what readers, writers and lists share, and the retries of requests.

use super::credentials::Store;
use super::error::ObjectError;
use crate::http_client::RetryingClient;
use object_store::list::PaginatedListOptions;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, PutMode, PutOptions, PutPayload};
use std::future::Future;
use std::sync::Arc;
use storecache_runtime::memory::ByteSemaphore;
use tokio::time::timeout;

pub struct ObjectClient {
    pub store: Arc<dyn Store>,
    pub wire: Arc<RetryingClient>,
    /// The bytes that all readers may fetch ahead together.
    pub ahead: ByteSemaphore,
    /// Prefix of the keys of all objects of this layout, with a slash at the end.
    pub base: String,
}

impl ObjectClient {
    /// Returns the path of an object below the base. Its parts were validated when they were parsed.
    pub fn path(&self, below: &str) -> Result<Path, ObjectError> {
        let key = format!("{}{below}", self.base);
        Path::parse(&key)
            .map_err(|e| ObjectError::Permanent(format!("not a valid object name: {key}: {e}")))
    }

    /// Waits for a request, unless the run is canceled.
    pub fn wait<T>(
        &self,
        future: impl Future<Output = Result<T, ObjectError>>,
    ) -> Result<T, ObjectError> {
        self.wire.wait(future)?
    }

    /// As [`ObjectClient::wait`], for clean-up: also after the run was canceled, and for the stall timeout at most.
    pub fn tidy(&self, future: impl Future<Output = Result<(), ObjectError>>) {
        let limit = self.wire.timeouts.stall;
        // Objects that stay behind do no harm; see docs/object-stores.md.
        let _ = self.wire.runtime().block_on(async { timeout(limit, future).await });
    }

    /// Makes a request, and retries it after temporary failures. The request must be idempotent.
    pub async fn insist<T, F>(&self, request: impl Fn() -> F) -> Result<T, ObjectError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let mut failures = 0;
        loop {
            let trouble = match request().await {
                Ok(done) => return Ok(done),
                Err(error) => ObjectError::from_library(&error),
            };
            self.pause(trouble, &mut failures).await?;
        }
    }

    /// Waits until a retry makes sense.
    ///
    /// # Errors
    /// If no retry makes sense: `trouble`, with the reason.
    pub async fn pause(&self, trouble: ObjectError, failures: &mut u32) -> Result<(), ObjectError> {
        let ObjectError::Temporary { what, wait } = trouble else { return Err(trouble) };
        self.wire.before_retry(failures, what, wait).await.map_err(ObjectError::Permanent)
    }

    /// Returns every object whose key begins with the base and `prefix`. Objects behind further slashes are included
    /// if `deep` is set.
    pub async fn list(&self, prefix: &str, deep: bool) -> Result<Vec<ObjectMeta>, ObjectError> {
        self.list_all(&format!("{}{prefix}", self.base), deep).await
    }

    /// As [`ObjectClient::list`], for keys that begin with `start`.
    pub async fn list_all(&self, start: &str, deep: bool) -> Result<Vec<ObjectMeta>, ObjectError> {
        let mut found = Vec::new();
        let mut page = None;
        loop {
            let options = || PaginatedListOptions {
                delimiter: (!deep).then_some("/".into()),
                page_token: page.clone(),
                ..PaginatedListOptions::default()
            };
            let listed = self.insist(|| self.store.list_paginated(Some(start), options())).await?;
            found.extend(listed.result.objects);
            match listed.page_token {
                Some(next) => page = Some(next),
                None => return Ok(found),
            }
        }
    }

    /// Downloads a small object.
    pub async fn get(&self, path: &Path) -> Result<Vec<u8>, ObjectError> {
        let get =
            || async { self.store.get_opts(path, GetOptions::default()).await?.bytes().await };
        Ok(self.insist(get).await?.to_vec())
    }

    /// Returns the metadata of an object, or `None` if it does not exist.
    pub async fn head(&self, path: &Path) -> Result<Option<ObjectMeta>, ObjectError> {
        let options = || GetOptions { head: true, ..GetOptions::default() };
        let head = || async { Ok(self.store.get_opts(path, options()).await?.meta) };
        match self.insist(head).await {
            Err(ObjectError::Missing) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Writes a small object, and replaces any existing one.
    pub async fn put(&self, path: &Path, bytes: impl Into<PutPayload>) -> Result<(), ObjectError> {
        let bytes: PutPayload = bytes.into();
        let put = || self.store.put_opts(path, bytes.clone(), PutOptions::default());
        self.insist(put).await.map(drop)
    }

    /// Writes a small object if it does not exist. It is not retried, because after a lost answer it is unknown
    /// whether the object was written.
    pub async fn put_new(&self, path: &Path, bytes: &str) -> Result<(), ObjectError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let payload = PutPayload::from(bytes.as_bytes().to_vec());
        let put = self.store.put_opts(path, payload, options).await;
        put.map(drop).map_err(|e| ObjectError::from_library(&e))
    }

    /// Deletes an object. An object that is already gone is not an error. Returns whether it existed, if the service
    /// reports that.
    pub async fn delete(&self, path: &Path) -> Result<bool, ObjectError> {
        let delete = || object_store::ObjectStoreExt::delete(&self.store, path);
        match self.insist(delete).await {
            Err(ObjectError::Missing) => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// Returns the options that request a range, and only of the object with this entity tag.
    pub fn range(start: u64, end: u64, etag: Option<&String>) -> GetOptions {
        GetOptions {
            range: Some(GetRange::Bounded(start..end)),
            if_match: etag.cloned(),
            ..GetOptions::default()
        }
    }
}
