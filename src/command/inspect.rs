//! `inspect`: what a snapshot is and holds, from its two ends alone.

use super::{Ending, lookup, or_json};
use crate::backend::ReadAt;
use crate::options::Look;
use crate::report;
use crate::snapshot::Opened;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Prints head and index.
pub fn inspect(options: &Look) -> Result<Ending> {
    or_json(&options.output, run(options))
}

fn run(options: &Look) -> Result<Ending> {
    let (name, opened, _) = open(options)?;
    let Opened { head, index, length, .. } = &opened;
    let raw: u64 = index.frames.iter().map(|f| f.raw).sum();
    let files: u64 = index.items.iter().map(|i| i.files).sum();
    if options.output.json {
        let mut object = json!({
            "snapshot": name,
            "format": head.format,
            "head": head,
            "cache_version": head.cache_version(),
            "archive": index.archive,
            "items": index.items.len(),
            "files": files,
            "frames": index.frames.len(),
            "bytes": { "snapshot": length, "packed": raw, "unpacked": disk(&opened) },
        });
        if options.items {
            object["item_list"] = serde_json::to_value(&index.items)?;
        }
        report::answer(object)?;
        return Ok(Ending::Done);
    }
    let store = &head.store;
    let mut rows = vec![
        ("snapshot", name),
        ("format", format!("{}, by {}", head.format, head.tool)),
        ("store", format!("{} {} for {}", store.kind, store.version, store.system)),
        ("directory", store.store_dir.clone()),
        ("key", head.key.clone()),
        ("created", head.created.clone()),
        ("items", format!("{} with {}", index.items.len(), report::plural(files, "file"))),
        ("size", format!("{} packed into {}", report::bytes(raw), report::bytes(*length))),
        ("frames", index.frames.len().to_string()),
        ("content", index.archive.to_string()),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    report::answer(report::table(&rows).trim_end())?;
    if options.items {
        for item in &index.items {
            let size = report::bytes(item.nar_size.unwrap_or(item.disk));
            report::answer(format!("{size:>9}  {}", item.name))?;
        }
    }
    Ok(Ending::Done)
}

fn disk(opened: &Opened) -> u64 {
    opened.index.items.iter().map(|item| item.disk).sum()
}

/// Opens the snapshot that is meant: a file, or what the ladder finds.
pub fn open(options: &Look) -> Result<(String, Opened, Box<dyn ReadAt>)> {
    let (name, mut reader): (String, Box<dyn ReadAt>) = match &options.file {
        Some(path) => {
            let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                bail!("{} is no file", path.display());
            }
            let size = metadata.len();
            (path.display().to_string(), Box::new(OpenFile { file, size }))
        }
        None => {
            let kind = lookup::kind(&options.store)?;
            let key = lookup::key(&options.store, &options.key, kind, None)?;
            let backend = lookup::backend(&options.backend, kind)?;
            let Some((name, _)) = lookup::find(backend.as_ref(), &key.ladder)? else {
                bail!("no entry for {} in {}", key.text, backend.describe());
            };
            (name.to_string(), backend.open(&name)?)
        }
    };
    let opened =
        lookup::open(reader.as_mut(), &mut 0).with_context(|| format!("{name} cannot be used"))?;
    Ok((name, opened, reader))
}

struct OpenFile {
    file: File,
    size: u64,
}

impl ReadAt for OpenFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}
