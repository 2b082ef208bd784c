//! The root helper's part of saving: freezes the database, then reads and compresses the items that it calls valid.
//!
//! The daemon is never stopped. `gc.lock` is held shared from before the freeze until the last byte is read, so all
//! items that the frozen copy calls valid stay on disk. Rows are committed only after their items are complete, so
//! every row has its bytes.

use super::capabilities::Stage;
use super::connection::Conversation;
use super::guardian::{Guardian, GuardianSetup};
use super::protocol::{
    FreezeReport, Growth, KnownItem, PackReport, Phase, Reply, Request, SaveRequest, StoreRequest,
};
use super::select_items::narrow;
use super::store_context::{StoreTarget, directory, is_there};
use super::store_facts::survey;
use anyhow::{Context, Result, anyhow, bail};
use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use storecache_entry::Digest;
use storecache_runtime::RunContext;
use storecache_runtime::advice::WithAdvice;
use storecache_snapshot::{BaseItem, Frame, PackInput, PackOptions, StoreFacts, fingerprint, pack};
use storecache_store::{Frozen, Lock, StoreKind, freeze, in_root};
use tracing::debug;

/// Everything that a save reads, in a fixed state.
struct SaveSource {
    facts: StoreFacts,
    frozen: Option<Frozen>,
    database_archive_path: String,
    items_under: String,
    inputs: Vec<PackInput>,
    /// Keeps collectors from running.
    _gc_lock: Option<Lock>,
    /// Removes the frozen copy if this process dies.
    _guardian: Option<Guardian>,
}

impl SaveSource {
    /// Drops the items of these names. Returns the names that existed.
    fn leave_out(&mut self, names: &[String]) -> Vec<String> {
        let names: HashSet<&str> = names.iter().map(String::as_str).collect();
        let left_out = self.inputs.extract_if(.., |input| names.contains(input.name.as_str()));
        left_out.map(|input| input.name).collect()
    }

    /// Drops the items that a base holds under the same name and hash. Returns them.
    fn inherit(&mut self, base: Vec<BaseItem>) -> Vec<BaseItem> {
        let mut inherited = Vec::new();
        let mut base: HashMap<String, BaseItem> =
            base.into_iter().map(|item| (item.name.clone(), item)).collect();
        self.inputs.retain(|input| match base.remove(&input.name) {
            Some(item) if input.nar_hash.as_ref() == Some(&item.nar_hash) => {
                inherited.push(BaseItem { used: input.used, ..item });
                false
            }
            _ => true,
        });
        inherited
    }
}

/// Returns how much of `inputs` a base does not hold.
fn own(inputs: &[PackInput], base: &[BaseItem]) -> Growth {
    let base: HashMap<&str, &str> =
        base.iter().map(|item| (item.name.as_str(), item.nar_hash.as_str())).collect();
    let own = inputs.iter().filter(|input| {
        let held = base.get(input.name.as_str()).copied();
        held.is_none() || held != input.nar_hash.as_deref()
    });
    let none = Growth { items: 0, nar_bytes: Some(0) };
    own.fold(none, |sum, input| Growth {
        items: sum.items + 1,
        nar_bytes: sum.nar_bytes.zip(input.nar_size).map(|(sum, size)| sum + size),
    })
}

/// Returns how much of `inputs` is not held by an entry with the items `known`.
fn growth(inputs: &[PackInput], known: &[KnownItem]) -> Result<Growth> {
    let known: HashMap<&str, Option<Digest>> =
        known.iter().map(|item| (item.name.as_str(), item.fingerprint)).collect();
    let mut growth = Growth { items: 0, nar_bytes: Some(0) };
    for input in inputs {
        match known.get(input.name.as_str()) {
            // An item of a store never changes; a plain directory may.
            Some(_) if input.nar_hash.is_some() => continue,
            Some(Some(theirs)) => {
                let ours = fingerprint(&input.base, &input.file_name, &input.archive_path)?;
                if ours == Some(*theirs) {
                    continue;
                }
            }
            _ => {}
        }
        growth.items += 1;
        growth.nar_bytes = growth.nar_bytes.zip(input.nar_size).map(|(sum, size)| sum + size);
    }
    Ok(growth)
}

pub fn save(
    talk: &Conversation,
    store: &StoreRequest,
    request: &SaveRequest,
    guardian: Option<Guardian>,
) -> Result<()> {
    talk.enter(Phase::Freeze);
    let mut source = match store.kind {
        StoreKind::Plain => plain_source(&talk.run, store)?,
        StoreKind::Guix | StoreKind::Nix => store_source(talk, store, guardian)?,
    };
    let left_out = source.leave_out(&request.leave_out);
    debug!(items = source.inputs.len(), left_out = left_out.len(), "froze the store");
    let narrowed = narrow(&talk.run, store, &mut source.inputs, source.frozen.as_mut(), request)?;
    let (outside, behind) = (narrowed.outside, narrowed.behind.len());
    debug!(items = source.inputs.len(), outside, behind, "chose the items to save");
    talk.reply(&Reply::Frozen(FreezeReport {
        left_out: left_out.len() as u64,
        used: narrowed.used,
        outside: narrowed.outside,
        behind: narrowed.behind,
        growth: growth(&source.inputs, &request.known)?,
        own: request.base.as_ref().map(|base| own(&source.inputs, base)),
        items: source.inputs.len() as u64,
        nar_bytes: source.inputs.iter().filter_map(|input| input.nar_size).sum(),
        facts: source.facts.clone(),
    }))?;
    let Request::Pack { delta } = talk.receive()?.0 else {
        bail!("protocol error: expected `Pack` or end of input");
    };

    talk.enter(Phase::Pack);
    Stage::Packing.enter()?;
    let base = request.base.clone().filter(|_| delta).unwrap_or_default();
    let inherited = source.inherit(base);
    // The frozen copy exists as long as `source` does.
    let database = match &source.frozen {
        None => None,
        Some(frozen) => Some((
            source.database_archive_path.clone(),
            Arc::new(frozen.directory.try_clone()?),
            frozen.file_name.clone().into_bytes(),
        )),
    };
    let options = PackOptions {
        level: request.level,
        long: request.long,
        canonical: store.kind.has_database(),
        together: 0,
        memory: request.memory,
    };
    let mut sink = |frame: Frame| {
        talk.cancel.check()?;
        let reply = Reply::Frame {
            raw: frame.raw,
            sha256: frame.sha256,
            continues: frame.continues,
            items: frame.progress.items,
            raw_total: frame.progress.raw,
        };
        talk.reply_with(&reply, &frame.bytes)
    };
    let inputs = std::mem::take(&mut source.inputs);
    let packed = pack(&talk.run, database, inputs, &options, &mut sink)?;
    debug!(items = packed.items.len(), missing = packed.missing.len(), "packed the items");
    let mut rows_only = Vec::new();
    if source.frozen.is_some() {
        rows_only = left_out;
        rows_only.extend(packed.missing.iter().cloned());
        rows_only.sort_unstable();
    }
    talk.reply(&Reply::Packed(PackReport {
        items_under: source.items_under,
        items: packed.items,
        inherited,
        database: packed.database,
        missing: packed.missing,
        left_out: packed.left_out,
        rows_only,
    }))
}

fn store_source(
    talk: &Conversation,
    store: &StoreRequest,
    mut guardian: Option<Guardian>,
) -> Result<SaveSource> {
    let target = StoreTarget::new(&talk.run, store)?;
    let layout = &target.layout;
    if !is_there(&layout.database())? {
        bail!(
            anyhow!("the store has no database yet: {} is missing", layout.database().display())
                .hint("add something to the store first")
        );
    }
    let cancelled = || talk.cancel.check();
    let gc_lock = target.gc_lock(&cancelled)?;
    talk.holds_locks();
    let setup = GuardianSetup::new(&target, false);
    guardian.as_mut().map(|guardian| guardian.watch(&setup)).transpose()?;
    let frozen = freeze(layout)?;
    let base = Arc::new(directory(&layout.store())?);
    let inputs = frozen.items.iter().map(|item| PackInput {
        name: item.name.to_string(),
        archive_path: format!("{}/{}", layout.items_under(), item.name),
        base: Arc::clone(&base),
        file_name: item.name.as_str().as_bytes().to_vec(),
        nar_size: item.nar_size,
        nar_hash: Some(item.nar_hash.clone()),
        used: Some(item.registered),
    });
    let migrations = frozen.migrations.iter().map(|name| name.as_str().into()).collect();
    let facts = StoreFacts { migrations, ..survey(&talk.run, store, true)? };
    Ok(SaveSource {
        facts,
        inputs: inputs.collect(),
        database_archive_path: layout.database_archive_path(),
        items_under: layout.items_under().to_owned(),
        frozen: Some(frozen),
        _gc_lock: Some(gc_lock),
        _guardian: guardian,
    })
}

fn plain_source(run: &RunContext, store: &StoreRequest) -> Result<SaveSource> {
    let mut inputs = Vec::new();
    for path in &store.paths {
        let inside = path.strip_prefix("/").unwrap_or(path);
        let on_disk = in_root(&store.root, inside)?;
        if on_disk.is_symlink() {
            bail!(anyhow!("{} is a symbolic link", on_disk.display()).hint("pass its target"));
        }
        if !on_disk.is_dir() {
            bail!(
                anyhow!("{} is not a directory", on_disk.display())
                    .hint("pass a directory with --path")
            );
        }
        let (Some(parent), Some(name)) = (on_disk.parent(), on_disk.file_name()) else {
            bail!(
                anyhow!("the path {} cannot be saved", path.display())
                    .hint("pass a directory in it")
            );
        };
        let archive_path = inside.to_str().with_context(|| {
            format!("the path {} is not UTF-8, so a snapshot cannot contain it", path.display())
        })?;
        inputs.push(PackInput {
            name: archive_path.to_owned(),
            archive_path: archive_path.to_owned(),
            base: Arc::new(directory(parent)?),
            file_name: name.as_bytes().to_vec(),
            nar_size: None,
            nar_hash: None,
            used: None,
        });
    }
    inputs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(SaveSource {
        facts: survey(run, store, true)?,
        frozen: None,
        database_archive_path: String::new(),
        items_under: String::new(),
        inputs,
        _gc_lock: None,
        _guardian: None,
    })
}
