//! Chooses the base of a save: decides whether the save is a delta, and reports the reason if it is not.

use super::job_state::State;
use super::open_entry::{OpenEntry, same_store};
use super::open_error::OpenError;
use crate::config::{Delta, Trust};
use crate::report::BaseUse;
use anyhow::{Context, Result, anyhow, ensure};
use storecache_backend::{Backend, EntryName};
use storecache_entry::Digest;
use storecache_root_helper::protocol::Growth;
use storecache_snapshot::{Base, BaseItem, Head, Index};

/// The full snapshot that a save may become a delta on.
pub struct DeltaBase {
    name: String,
    head: Head,
    /// Identity of its index.
    identity: Digest,
    pub items: Vec<BaseItem>,
    /// Sum of the NAR sizes in bytes, if they are known.
    nar_bytes: Option<u64>,
}

impl DeltaBase {
    /// Returns the full snapshot behind the newest entry of the key, or, if the key has no entry, behind the
    /// entry that this job has restored. Entries in `bad` are never used.
    ///
    /// # Errors
    /// If there is no such snapshot: the reason, for the report.
    pub fn find(
        backend: &dyn Backend,
        newest: Option<(EntryName, Result<OpenEntry, OpenError>)>,
        (bad, trust): (&[EntryName], &Trust),
        state: Option<&State>,
    ) -> Result<Self> {
        let restored = state.map(|state| &state.restore).filter(|restore| restore.entry.is_some());
        let failed = restored.filter(|restore| restore.failed).and_then(|r| r.entry.as_deref());
        let found = match newest {
            Some((name, _)) if failed.is_some_and(|failed| failed == name.to_string()) => {
                Err(anyhow!("the restore of this job could not use {name}"))
            }
            Some((name, opened)) => opened.with_context(|| format!("{name} cannot be read")),
            None => match restored.filter(|restore| !restore.failed) {
                None => Err(anyhow!("there is no snapshot to build on")),
                Some(restore) => {
                    let name = restore.entry.as_deref().unwrap_or_default();
                    EntryName::parse(name)
                        .context("not a valid entry name")
                        .and_then(|name| Ok(OpenEntry::open(backend, &name, (bad, trust), &mut 0)?))
                        .with_context(|| format!("{name} cannot be used"))
                }
            },
        };
        found.and_then(Self::behind)
    }

    fn behind(entry: OpenEntry) -> Result<Self> {
        let OpenEntry { name, opened, base, .. } = entry;
        let (name, opened) = base.map_or((name, opened), |base| (base.name, base.opened));
        let identity = Index::identity(&opened.index_bytes)?;
        let items = opened.index.items;
        let nar_bytes = items.iter().map(|item| item.nar_size).sum();
        let known = items.into_iter().filter_map(|item| {
            Some(BaseItem { name: item.name, nar_hash: item.nar_hash?, used: item.used })
        });
        let items: Vec<BaseItem> = known.collect();
        ensure!(!items.is_empty(), "{name} has no hashes of its items");
        Ok(DeltaBase { name, head: opened.head, identity, items, nar_bytes })
    }

    /// Decides whether the save becomes a delta, which would contain `own` itself.
    pub fn decide(&self, delta: &Delta, own: Option<Growth>, head: &Head) -> BaseUse {
        let bytes = own.and_then(|own| own.nar_bytes).zip(self.nar_bytes);
        let share = bytes.filter(|(_, base)| *base > 0).map(|(own, base)| own as f64 / base as f64);
        let reason = match share {
            _ if !same_store(&self.head, head) => Some("its store is a different one".to_owned()),
            None => Some("the sizes of its items are not known".to_owned()),
            Some(share) if share > delta.rebase_at => Some(format!(
                "the new items have {:.0} % of its size, more than {:.0} %",
                share * 100.0,
                delta.rebase_at * 100.0
            )),
            Some(_) => None,
        };
        BaseUse { entry: Some(self.name.clone()), share, reason }
    }

    /// The reference to this base that a delta contains.
    pub fn named(&self, inherited: Vec<BaseItem>) -> Base {
        Base { entry: self.name.clone(), index: self.identity, items: inherited }
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}
