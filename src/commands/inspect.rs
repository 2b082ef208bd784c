//! `inspect`: shows what a snapshot is and contains, from its head and index alone.

use super::open_entry::OpenEntry;
use super::size_report::Blame;
use super::{Conclusion, html_file, or_json, resolve, size_report, trust};
use crate::config::Look;
use crate::report;
use crate::report::html::Page;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use storecache_backend::{Backend, BackendError, Directory, ReadAt};
use storecache_runtime::RunContext;
use storecache_runtime::files::{OpenDir, kind_in, open_named};
use storecache_runtime::memory::Traffic;
use storecache_runtime::untrusted_text::Untrusted;
use storecache_snapshot::{Index, Opened};

/// Prints head and index.
pub fn inspect(context: &RunContext, options: &Look) -> Result<Conclusion> {
    or_json(&options.output, run(context, options))
}

fn run(context: &RunContext, options: &Look) -> Result<Conclusion> {
    let mut entry = open(context, options)?;
    let blame = match options.blame || options.html.is_some() {
        true => Some(
            size_report::measure(&mut entry).with_context(|| format!("blame {}", entry.name))?,
        ),
        false => None,
    };
    if let (Some(blame), Some(path)) = (&blame, &options.html) {
        html_file::write(&page_of(&entry, blame), path)?;
        report::status(format!("the page is in {}", path.display()));
    }
    let Opened { head, index, length, index_bytes } = &entry.opened;
    let name = entry.name.clone();
    let signatures = trust::shown(&entry.opened, &options.trust.keys)
        .with_context(|| format!("{name} is damaged"))?;
    let raw: u64 = index.frames.iter().map(|f| f.raw).sum();
    let files: u64 = index.items.iter().map(|i| i.files).sum();
    if options.output.json {
        let mut object = json!({
            "snapshot": name,
            "format": head.format,
            "head": head,
            "cache_version": head.cache_version(),
            "archive": index.archive,
            "index": Index::identity(index_bytes)?,
            "items": index.items.len(),
            "files": files,
            "frames": index.frames.len(),
            "bytes": { "snapshot": length, "packed": raw, "unpacked": disk(&entry.opened) },
        });
        if !signatures.is_empty() {
            object["signatures"] = trust::as_json(&signatures);
        }
        if let Some(base) = &index.base {
            let there = entry.base.is_some();
            let items = base.items.len();
            object["base"] =
                json!({ "entry": base.entry, "index": base.index, "items": items, "there": there });
        }
        if options.items {
            object["item_list"] = serde_json::to_value(&index.items)?;
            if let Some(base) = &index.base {
                object["base"]["item_list"] = serde_json::to_value(&base.items)?;
            }
        }
        if let Some(blame) = blame {
            object["blame"] = serde_json::to_value(blame)?;
        }
        report::answer_json(&object)?;
        return Ok(Conclusion::Done);
    }
    let store = &head.store;
    let mut rows = vec![
        ("snapshot", name),
        ("format", format!("{}, by {}", head.format, head.tool)),
        ("store", format!("{} {} for {}", store.kind, store.version, store.system)),
        ("directory", store.store_dir.to_string()),
        ("key", head.key.to_string()),
        ("created", head.created.to_string()),
        ("signed by", trust::in_words(&signatures)),
        ("items", format!("{} with {}", index.items.len(), report::plural(files, "file"))),
        ("size", format!("{} packed into {}", report::bytes(raw), report::bytes(*length))),
        ("frames", index.frames.len().to_string()),
        ("content", index.archive.to_string()),
        ("base", index.base.as_ref().map(|base| base.entry.clone()).unwrap_or_default()),
        ("inherited", inherited(&entry)),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    report::table(&rows).iter().try_for_each(report::answer)?;
    if options.items {
        for item in &index.items {
            let size = report::bytes(item.nar_size.unwrap_or(item.disk));
            report::answer(format!("{size:>9}  {}", item.name))?;
        }
        for name in index.inherited() {
            report::answer(format!("{:>9}  {name}", "in base"))?;
        }
    }
    for line in blame.iter().filter(|_| options.blame).flat_map(Blame::lines) {
        report::answer(line)?;
    }
    Ok(Conclusion::Done)
}

/// A page about the contents of the snapshot.
fn page_of(entry: &OpenEntry, blame: &Blame) -> Page {
    let head = &entry.opened.head;
    let origin = &head.origin;
    let facts = [&head.key, &origin.repository, &origin.reference, &head.created];
    let facts: Vec<_> =
        facts.into_iter().filter(|fact| !fact.is_empty()).map(Untrusted::to_string).collect();
    Page {
        title: format!("Contents of {}", entry.name),
        subtitle: facts.join(" · "),
        sections: blame.sections(),
    }
}

/// The text about the base, besides its name.
fn inherited(entry: &OpenEntry) -> String {
    let Some(base) = &entry.opened.index.base else { return String::new() };
    let items = report::plural(base.items.len() as u64, "item");
    match &entry.base {
        Some(_) => format!("{items} in the base, which exists"),
        None => format!("{items} in the base, which is missing: the snapshot cannot be restored"),
    }
}

fn disk(opened: &Opened) -> u64 {
    opened.index.items.iter().map(|item| item.disk).sum()
}

/// Opens the snapshot that the options name: a file, or the entry that the ladder finds. Also opens its base
/// if that is found next to the file or in the backend of the entry.
pub fn open(context: &RunContext, options: &Look) -> Result<OpenEntry> {
    open_found(context, options).map(|(entry, _)| entry)
}

/// As [`open`], also with the backend that has the entry.
pub fn open_found(
    context: &RunContext,
    options: &Look,
) -> Result<(OpenEntry, Option<Arc<dyn Backend>>)> {
    let Some(path) = &options.file else {
        let kind = resolve::kind(&options.store)?;
        let key = resolve::key(&options.store, &options.key, kind, None)?;
        let (backend, warnings) =
            resolve::backend(context, &options.backends, kind, Traffic::default())?;
        resolve::print_warnings(&warnings);
        let (found, notes) = resolve::find(backend.as_ref(), &key.ladder, &[])?;
        resolve::print_notes(&notes);
        let Some((name, _)) = found else {
            bail!("no entry for {} in {}", key.text, backend.describe());
        };
        let mut entry = OpenEntry::read(name.to_string(), backend.open(&name)?, &mut 0)?;
        if let Some(base) = entry.base_name()? {
            match backend.open(&base) {
                Err(BackendError::Gone(_)) => {}
                reader => entry.put_on(OpenEntry::read(base.to_string(), reader?, &mut 0)?)?,
            }
        }
        return Ok((entry, Some(backend)));
    };
    let mut entry = OpenEntry::read(path.display().to_string(), OpenFile::boxed(path)?, &mut 0)?;
    if let Some(base) = entry.base_name()?
        && let Some((name, base)) = beside(path, &Directory::file_name(&base)?)?
    {
        entry.put_on(OpenEntry::read(name, base, &mut 0)?)?;
    }
    Ok((entry, None))
}

/// Opens the file with this name in the directory of a snapshot. Returns `None` if it does not exist, or is
/// not a regular file: other users may have put something else there.
fn beside(path: &Path, name: &str) -> Result<Option<(String, Box<dyn ReadAt>)>> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let shown = directory.join(name).display().to_string();
    match OpenDir::open(directory).and_then(|directory| directory.open_file(name)) {
        Ok(file) => Ok(Some((shown, OpenFile::from_file(file)?))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => match kind_in(&e) {
            Some(kind) => {
                let warning = format!("{shown} is {kind}, not a snapshot, and is skipped");
                report::print_warning(warning);
                Ok(None)
            }
            None => Err(e).with_context(|| format!("open {shown}")),
        },
    }
}

/// A file that is read in ranges.
pub struct OpenFile {
    file: File,
    size: u64,
}

impl OpenFile {
    /// Opens a file that the user has named.
    ///
    /// # Errors
    /// If it cannot be opened, or is a directory, a FIFO or anything else that is not a regular file. Does
    /// not block on such files.
    pub fn boxed(path: &Path) -> Result<Box<dyn ReadAt>> {
        match open_named(path) {
            Ok(file) => Self::from_file(file),
            Err(e) => match kind_in(&e) {
                Some(kind) => bail!("{} is {kind}, not a snapshot", path.display()),
                None => Err(e).with_context(|| format!("open {}", path.display())),
            },
        }
    }

    fn from_file(file: File) -> Result<Box<dyn ReadAt>> {
        let size = file.metadata()?.len();
        Ok(Box::new(OpenFile { file, size }))
    }
}

impl ReadAt for OpenFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}
