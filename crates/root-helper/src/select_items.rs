//! Narrows the frozen items to those that a save should include, and determines which of the items that this job
//! restored were used.

use super::protocol::{SaveRequest, StoreRequest, Used};
use super::store_context::StoreTarget;
use anyhow::{Context, Result};
use std::collections::HashSet;
use std::time::SystemTime;
use storecache_runtime::RunContext;
use storecache_snapshot::{PackInput, last_read, reading_shows};
use storecache_store::{Candidate, Frozen, ItemName, Layout, beyond, closures_of, live_roots};

/// The result of narrowing.
#[derive(Default)]
pub struct Narrowed {
    /// `None` if access times do not show what was read, or if nothing was restored.
    pub used: Option<Used>,
    /// The number of items outside the requested closures.
    pub outside: u64,
    /// Names of the items that are left out to keep the size limit.
    pub behind: Vec<String>,
}

/// Records when each input was last used, and removes the inputs that the request excludes or that exceed the size
/// limit, from the frozen database too. Plain directories are never removed.
pub fn narrow(
    run: &RunContext,
    store: &StoreRequest,
    inputs: &mut Vec<PackInput>,
    frozen: Option<&mut Frozen>,
    request: &SaveRequest,
) -> Result<Narrowed> {
    let Some(frozen) = frozen else { return Ok(Narrowed::default()) };
    let layout = &StoreTarget::new(run, store)?.layout;
    let mut gone = HashSet::new();
    let outside = outside(&request.roots, inputs, frozen, layout)?;
    drop_from(inputs, &outside, &mut gone);
    let used = note_use(inputs, request)?;
    let behind = match request.max_size {
        Some(limit) => behind(limit, inputs, frozen, layout)?,
        None => Vec::new(),
    };
    let names: Vec<String> = behind.iter().map(ToString::to_string).collect();
    drop_from(inputs, &behind.into_iter().collect(), &mut gone);
    if !gone.is_empty() {
        frozen.forget(&gone, layout)?;
    }
    Ok(Narrowed { used, outside: outside.len() as u64, behind: names })
}

fn drop_from(inputs: &mut Vec<PackInput>, names: &HashSet<ItemName>, gone: &mut HashSet<ItemName>) {
    if !names.is_empty() {
        let texts: HashSet<&str> = names.iter().map(ItemName::as_str).collect();
        inputs.retain(|input| !texts.contains(input.name.as_str()));
        gone.extend(names.iter().cloned());
    }
}

fn name_of(input: &PackInput) -> Result<ItemName> {
    ItemName::parse(&input.name).with_context(|| format!("not a valid item name: {:?}", input.name))
}

/// Returns the inputs outside the closures of `roots`, or none if no closures were requested.
fn outside(
    roots: &[String],
    inputs: &[PackInput],
    frozen: &Frozen,
    layout: &Layout,
) -> Result<HashSet<ItemName>> {
    if roots.is_empty() {
        return Ok(HashSet::new());
    }
    let items: Vec<ItemName> = frozen.items.iter().map(|item| item.name.clone()).collect();
    let closures = closures_of(roots, &items, &frozen.references(layout)?, layout)?;
    let names: Vec<ItemName> = inputs.iter().map(name_of).collect::<Result<_>>()?;
    Ok(names.into_iter().filter(|name| !closures.contains(name)).collect())
}

/// Records in each input when it was last used, as far as that is known. An item that this job restored was last used
/// when it was read since, or else at the time recorded in the snapshot. Any other item was last used when it became
/// valid, or when it was last read. Determining the last read means checking each file, so other items are checked
/// only if their use decides what is left out.
fn note_use(inputs: &mut [PackInput], request: &SaveRequest) -> Result<Option<Used>> {
    let Some(first) = inputs.first() else { return Ok(None) };
    let shows = reading_shows(&first.base)?;
    let mut told = Used::default();
    for input in inputs {
        let restored = request.restored.get(&input.name);
        let look = shows && (restored.is_some() || request.max_size.is_some());
        let read = if look { last_read(&input.base, &input.name)? } else { None };
        let before = restored.map_or(input.used, |known| *known);
        input.used = read.max(before);
        match (restored, read) {
            (Some(_), Some(_)) => told.used += 1,
            (Some(_), None) => {
                told.unused += 1;
                told.unused_bytes += input.nar_size.unwrap_or(0);
            }
            (None, _) => {}
        }
    }
    Ok((shows && told != Used::default()).then_some(told))
}

/// Returns the items that are left out to keep the size limit. An item that a root of another program keeps counts as
/// used now.
fn behind(
    limit: u64,
    inputs: &[PackInput],
    frozen: &Frozen,
    layout: &Layout,
) -> Result<Vec<ItemName>> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_secs());
    // If the clock was set back, the latest use may be later than now.
    let now = inputs.iter().filter_map(|input| input.used).fold(now, u64::max);
    let roots = live_roots(layout)?;
    let candidate = |input: &PackInput| -> Result<Candidate> {
        let name = name_of(input)?;
        let used = if roots.contains(&name) { now } else { input.used.unwrap_or(0) };
        Ok(Candidate { name, size: input.nar_size.unwrap_or(0), used })
    };
    let candidates: Vec<_> = inputs.iter().map(candidate).collect::<Result<_>>()?;
    Ok(beyond(limit, &candidates, &frozen.references(layout)?))
}
