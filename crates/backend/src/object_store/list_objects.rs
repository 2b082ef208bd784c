//! The list of all objects below a prefix, of every layout.

use super::Objects;
use super::object_reader::Object;
use super::quarantine_note::NOTES;
use super::write_lock::CLAIMS;
use crate::prefetch::Reader;
use crate::{Deleted, Directory, EntryName, Inventory, InventoryError, ReadAt, Record};
use anyhow::{Context, Result, anyhow};
use jiff::Timestamp;
use object_store::ObjectMeta;
use object_store::path::Path;
use std::collections::HashSet;
use std::sync::Arc;
use storecache_runtime::advice::WithAdvice;

/// Bytes to read from the beginning of an entry that is only inspected.
const HEAD: u64 = 64 << 10;

impl Inventory for Objects {
    fn describe(&self) -> String {
        self.told.clone()
    }

    fn evicts(&self) -> bool {
        false
    }

    fn records(&self) -> Result<Vec<Record>> {
        let hub = &self.hub;
        let base = self.address.base();
        let all = hub.wait(hub.list_all(&base, true)).context("list the entries")?;
        let below =
            |object: &ObjectMeta| Some(object.location.as_ref().strip_prefix(&base)?.to_owned());
        let keys: Vec<_> = all.iter().filter_map(|it| Some((below(it)?, it))).collect();
        let aside: HashSet<String> = keys
            .iter()
            .filter_map(|(key, _)| {
                let (layout, note) = key.split_once('/')?;
                let file = note.strip_prefix(NOTES)?.strip_suffix(".json")?;
                Some(format!("{layout}/{file}"))
            })
            .collect();
        let ours = keys.into_iter().filter(|(key, _)| {
            let inside = key.split_once('/').map_or("", |(_, inside)| inside);
            let kept = inside.starts_with(NOTES) || inside.starts_with(CLAIMS);
            !kept && !key.starts_with(super::TRIAL) && !aside.contains(key)
        });
        Ok(ours.map(|(key, object)| record(key, object)).collect())
    }

    fn look(&self, record: &Record) -> Option<Result<Box<dyn ReadAt>>> {
        let open = || -> Result<Box<dyn ReadAt>> {
            let hub = Arc::clone(&self.hub);
            let path = self.of_record(record)?;
            let (object, head) = self.hub.wait(Object::probe(hub, path, HEAD))?;
            Ok(Box::new(Reader::ranges(object, head, self.traffic.range)))
        };
        Some(open())
    }

    fn default_branch(&self) -> Result<Option<String>> {
        Ok(None)
    }

    fn is_open(&self, _: u64) -> Result<Option<bool>> {
        Ok(None)
    }

    fn delete(&self, record: &Record) -> Result<Deleted, InventoryError> {
        if record.name.is_none() {
            // Its owner and purpose are unknown.
            let what = format!("{}/{} is not a storecache object", self.address, record.id);
            return Err(anyhow!("{what}").hint("delete it by hand").into());
        }
        let path = self.of_record(record)?;
        let there = self.hub.wait(self.hub.delete(&path));
        match there.with_context(|| format!("delete {}", record.id))? {
            true => Ok(Deleted::Now),
            false => Ok(Deleted::Before),
        }
    }
}

impl Objects {
    fn of_record(&self, record: &Record) -> Result<Path> {
        let key = format!("{}{}", self.address.base(), record.id);
        Path::parse(&key).with_context(|| format!("not a valid object name: {key}"))
    }
}

/// Describes an object. `key` is its key below the prefix.
fn record(key: String, object: &ObjectMeta) -> Record {
    let (layout, file) = key.split_once('/').unwrap_or(("", &key));
    let digits = |c: char| c.is_ascii_hexdigit() && !c.is_ascii_uppercase();
    let layout = Some(layout).filter(|layout| layout.len() == 64 && layout.chars().all(digits));
    let name: Option<EntryName> = layout.and_then(|_| Directory::entry_of(file));
    let changed = Timestamp::from_second(object.last_modified.timestamp()).ok();
    let damage = name.is_none().then(|| "its name is not an entry name".to_owned());
    Record {
        key: name.as_ref().map_or_else(|| key.clone(), ToString::to_string),
        reference: None,
        version: layout.map(str::to_owned).filter(|_| name.is_some()),
        size: object.size,
        created: name.as_ref().and_then(|name| name.generation.time()).or(changed),
        used: changed,
        damage,
        name,
        id: key,
    }
}
