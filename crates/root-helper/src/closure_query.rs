//! Answers whether the store contains the items that a job needs.

use super::connection::Conversation;
use super::protocol::{Reply, Required, StoreRequest};
use super::store_context::{StoreTarget, is_there};
use anyhow::Result;
use storecache_store::{Contents, ItemPattern, LiveDatabase, Rows};

/// Checks the closures of the items that match each of `patterns`. With `coming`, checks them as they would be after
/// these rows are added.
pub fn check(
    talk: &Conversation,
    store: &StoreRequest,
    patterns: &[String],
    coming: Option<&Rows>,
) -> Result<()> {
    let target = StoreTarget::new(&talk.run, store)?;
    let mut contents = Contents::read(&target.layout)?;
    contents.add(coming.into_iter().flat_map(Rows::references));
    let look = |text: &String| -> Result<Required> {
        let found = contents.completeness(&ItemPattern::parse(text)?);
        Ok(Required {
            pattern: text.clone(),
            complete: found.items > 0 && found.missing.is_empty(),
            items: found.items,
            closure: found.closure,
            missing: found.missing.iter().map(ToString::to_string).collect(),
        })
    };
    talk.reply(&Reply::Checked(patterns.iter().map(look).collect::<Result<_>>()?))
}

/// Lists the valid items. A plain store, and a store without a database, have no valid items.
pub fn valid(talk: &Conversation, store: &StoreRequest) -> Result<()> {
    if !store.kind.has_database() {
        return talk.reply(&Reply::Valid(Vec::new()));
    }
    let layout = StoreTarget::new(&talk.run, store)?.layout;
    let mut names: Vec<String> = match is_there(&layout.database())? {
        true => {
            let valid = LiveDatabase::open(&layout)?.valid(&layout)?;
            valid.iter().map(ToString::to_string).collect()
        }
        false => Vec::new(),
    };
    names.sort_unstable();
    talk.reply(&Reply::Valid(names))
}
