//! Deltas: snapshots that hold only new items, and list the items that another snapshot, their base, holds.
//!
//! Head and index of a delta are of format 2, so that a reader that does not know bases refuses the delta by
//! its format, instead of restoring only a part of the items. A base is a full snapshot: chains are one deep.

use super::bounded_list;
use super::{Digest, Index, SnapshotError};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// The base of a delta, and the items that the delta takes from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Name of the base's entry. The head has it too.
    pub entry: String,
    /// Digest of the body of the base's index, see [`Index::identity`].
    pub index: Digest,
    #[serde(deserialize_with = "bounded_list::list")]
    pub items: Vec<BaseItem>,
}

/// An item that the base holds and the delta does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseItem {
    pub name: String,
    /// NAR hash in the databases of both snapshots.
    pub nar_hash: String,
    /// See [`super::ItemEntry::used`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
}

/// Returns, for each item that `delta` takes from its base, the position in `base.items`. `base_bytes` is the
/// content of the base's index frame.
///
/// # Errors
/// If `delta` is not a delta, if `base` is not its base or not a full snapshot, or if the base holds less than
/// the delta lists.
pub fn inherited<'d>(
    delta: &'d Index,
    base: &Index,
    base_bytes: &[u8],
) -> Result<HashMap<&'d str, usize>, SnapshotError> {
    let wrong = |what: String| Err(SnapshotError::WrongBase(what));
    let Some(reference) = &delta.base else {
        return wrong("the index names no base".into());
    };
    if Index::identity(base_bytes)? != reference.index {
        return wrong(format!("{} is not the snapshot that the delta refers to", reference.entry));
    }
    if base.base.is_some() {
        return wrong(format!("{} has a base itself", reference.entry));
    }
    if base.items_under != delta.items_under {
        return wrong(format!("{} holds items of another directory", reference.entry));
    }
    let mut there: HashMap<(&str, &str), usize> = HashMap::with_capacity(base.items.len());
    for (at, item) in base.items.iter().enumerate() {
        if let Some(hash) = &item.nar_hash
            && there.insert((&item.name, hash), at).is_some()
        {
            return wrong(format!("{} lists {} twice", reference.entry, item.name));
        }
    }
    let mut found = HashMap::with_capacity(reference.items.len());
    for BaseItem { name, nar_hash, .. } in &reference.items {
        let Some(&at) = there.get(&(name.as_str(), nar_hash.as_str())) else {
            return wrong(format!(
                "{} does not contain {name} with NAR hash {nar_hash}",
                reference.entry
            ));
        };
        found.insert(name.as_str(), at);
    }
    Ok(found)
}

/// Checks the parts of an index that depend on whether it has a base.
pub(super) fn check(index: &Index) -> Result<(), SnapshotError> {
    let Some(base) = &index.base else {
        return match index.format {
            super::FULL => Ok(()),
            other => {
                Err(SnapshotError::damaged(format!("an index of format {other} must have a base")))
            }
        };
    };
    if index.format == super::FULL {
        return Err(SnapshotError::damaged("an index of format 1 must not have a base"));
    }
    let own = index.items.iter().map(|item| item.name.as_str());
    let mut names = HashSet::with_capacity(index.items.len() + base.items.len());
    for name in own.chain(base.items.iter().map(|item| item.name.as_str())) {
        if !names.insert(name) {
            return Err(SnapshotError::damaged(format!("the item {name} is listed twice")));
        }
    }
    Ok(())
}
