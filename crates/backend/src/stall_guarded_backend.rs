//! A wrapper for backends whose calls may block for ever, such as a directory on a disk that hangs. It runs each
//! blocking call on a worker thread, in small pieces, so that the caller can check that thread for activity, abort
//! after the stall timeout, and be canceled.

use super::{
    Backend, BackendError, Entry, EntryIdentity, EntryList, EntryName, EntryWriter, Health, Notes,
    Quarantine, QuarantineList, Quarantined, ReadAt, Written,
};
use anyhow::Result;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use storecache_entry::Rung;
use storecache_runtime::RunContext;
use storecache_runtime::liveness::{BlockingWorker, run_blocking};

/// Bytes to read or write at a time. Each piece is copied, and counts as activity.
const PIECE: usize = 1 << 20;

/// A backend whose blocking calls run on worker threads.
pub struct StallGuard<B> {
    run: RunContext,
    backend: Arc<B>,
}

impl<B: Backend + 'static> StallGuard<B> {
    pub fn new(run: &RunContext, backend: B) -> Self {
        StallGuard { run: run.clone(), backend: Arc::new(backend) }
    }

    fn call<T: Send + 'static, E: From<anyhow::Error> + Send + 'static>(
        &self,
        work: impl FnOnce(&B) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let backend = Arc::clone(&self.backend);
        run_blocking(&self.run, self.backend.describe(), move || work(&backend))?
    }
}

impl<B: Backend + 'static> Backend for StallGuard<B> {
    fn describe(&self) -> String {
        self.backend.describe()
    }

    fn open(&self, name: &EntryName) -> Result<Box<dyn ReadAt>, BackendError> {
        let name = name.clone();
        let reader = self.call(move |backend| backend.open(&name))?;
        let (size, who) = (reader.size(), self.describe());
        Ok(Box::new(Reader {
            size,
            run: self.run.clone(),
            inner: BlockingWorker::new(&self.run, who, reader)?,
            read: 0,
        }))
    }

    fn create(&self, name: &EntryName) -> Result<Box<dyn EntryWriter>, BackendError> {
        let name = name.clone();
        let writer = self.call(move |backend| backend.create(&name))?;
        Ok(Box::new(Writer {
            run: self.run.clone(),
            inner: BlockingWorker::new(&self.run, self.describe(), Some(writer))?,
            written: 0,
        }))
    }

    fn for_save(self: Arc<Self>) -> Result<(Arc<dyn Backend>, Vec<String>), BackendError> {
        let (_, warnings) = Arc::clone(&self.backend).for_save()?;
        Ok((self, warnings))
    }

    fn try_writing(&self) -> Result<(), BackendError> {
        self.call(Backend::try_writing)
    }

    fn examine(&self) -> Result<Health> {
        self.call(Backend::examine)
    }

    fn lowers_case(&self, name: &EntryName) -> bool {
        self.backend.lowers_case(name)
    }
}

impl<B: Backend + 'static> EntryList for StallGuard<B> {
    fn entries(&self, rung: &Rung) -> Result<(Vec<Entry>, Notes), BackendError> {
        let rung = rung.clone();
        self.call(move |backend| backend.entries(&rung))
    }

    fn delete(&self, entry: &Entry) -> Result<()> {
        let entry = entry.clone();
        self.call(move |backend| backend.delete(&entry))
    }
}

impl<B: Backend + 'static> QuarantineList for StallGuard<B> {
    fn is_at(&self, place: &str) -> bool {
        self.backend.is_at(place)
    }

    fn quarantined(&self) -> Result<Vec<Quarantined>> {
        self.call(QuarantineList::quarantined)
    }
}

impl<B: Backend + 'static> Quarantine for StallGuard<B> {
    fn identify(&self, name: &EntryName) -> EntryIdentity {
        let (name, place) = (name.clone(), self.describe());
        let identity = self.call(move |backend| Ok::<_, anyhow::Error>(backend.identify(&name)));
        identity.unwrap_or(EntryIdentity { place, version: String::new() })
    }

    fn set_aside(&self, name: &EntryName, note: &Quarantined) -> Result<Option<PathBuf>> {
        let (name, note) = (name.clone(), note.clone());
        self.call(move |backend| backend.set_aside(&name, &note))
    }

    fn sweep(&self, keep: Duration) -> Result<()> {
        self.call(move |backend| backend.sweep(keep))
    }
}

struct Reader {
    run: RunContext,
    size: u64,
    inner: BlockingWorker<Box<dyn ReadAt>>,
    read: u64,
}

impl ReadAt for Reader {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut at = offset;
        for piece in buffer.chunks_mut(PIECE) {
            let (from, length) = (at, piece.len());
            let read = self.inner.run(move |reader| {
                let mut bytes = vec![0; length];
                reader.read_at(from, &mut bytes).map(|()| bytes)
            });
            piece.copy_from_slice(&read.map_err(io::Error::other)??);
            at += length as u64;
            self.read += length as u64;
            self.run.report_progress(format!("{} bytes read of {}", self.read, self.size));
        }
        Ok(())
    }
}

struct Writer {
    run: RunContext,
    /// `None` after [`EntryWriter::finish`].
    inner: BlockingWorker<Option<Box<dyn EntryWriter>>>,
    written: u64,
}

fn finished() -> io::Error {
    io::Error::other("the entry is finished")
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes[..bytes.len().min(PIECE)].to_vec();
        let written =
            self.inner.run(move |writer| writer.as_mut().ok_or_else(finished)?.write(&piece));
        let written = written.map_err(io::Error::other)??;
        self.written += written as u64;
        self.run.report_progress(format!("{} bytes written", self.written));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.run(|writer| writer.as_mut().map_or(Ok(()), Write::flush));
        flushed.map_err(io::Error::other)?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Dropping an unfinished writer removes its file. Wait for that before the caller goes on or the process
        // ends.
        let _ = self.inner.run(|writer| drop(writer.take()));
    }
}

impl EntryWriter for Writer {
    fn finish(self: Box<Self>) -> Result<Written> {
        self.inner.run(|writer| writer.take().ok_or_else(finished)?.finish())?
    }
}
