//! A model of the GitHub Actions cache of one repository; each rule is one function.
//!
//! Sources: github/docs `content/actions/reference/workflows-and-actions/dependency-caching.md` (scopes,
//! order of matching, eviction), GitHub's changelog of 2025-11-20 (limits, eviction every hour).

use super::super::history::Scope;
use std::collections::{BTreeSet, HashMap};

/// Interval of evictions, in seconds. Source: GitHub's changelog of 2025-11-20.
pub const SWEEP: i64 = 3600;

/// Size and age limits of a cache.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub bytes: u64,
    /// Seconds without use after which an entry is deleted.
    pub idle: i64,
}

/// Index of an entry, in the order of saving.
pub type EntryId = usize;

#[derive(Debug, Clone)]
pub struct Entry {
    pub scope: Scope,
    pub key: u128,
    /// The state of the files that the saved store was built for.
    pub content: usize,
    pub bytes: u64,
    /// The entry that a delta needs.
    pub base: Option<EntryId>,
    used: i64,
    there: bool,
}

/// An entry to save.
#[derive(Debug, Clone, Copy)]
pub struct New {
    pub scope: Scope,
    pub key: u128,
    pub content: usize,
    pub bytes: u64,
    pub base: Option<EntryId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheHit {
    pub entry: EntryId,
    /// Whether the key is the requested one, and not only one with the same prefix.
    pub exact: bool,
}

pub struct Cache {
    limits: Limits,
    now: i64,
    entries: Vec<Entry>,
    /// Existing entries of each ref, oldest first.
    scopes: HashMap<Scope, Vec<EntryId>>,
    /// Existing entries, by last use.
    uses: BTreeSet<(i64, EntryId)>,
    pub bytes: u64,
    /// Integral of the size over time, in byte-seconds.
    pub byte_seconds: u128,
    /// Number of entries that were deleted because of the size limit, least recently used first.
    pub evicted: u64,
    /// Number of entries that were deleted because they were unused for too long.
    pub expired: u64,
}

impl Cache {
    /// Returns an empty cache.
    pub fn new(limits: Limits, now: i64) -> Self {
        Cache {
            limits,
            now,
            entries: Vec::new(),
            scopes: HashMap::new(),
            uses: BTreeSet::new(),
            bytes: 0,
            byte_seconds: 0,
            evicted: 0,
            expired: 0,
        }
    }

    pub fn entry(&self, id: EntryId) -> &Entry {
        &self.entries[id]
    }

    /// Advances the time to `now`, with a sweep at every full hour at which an entry is deleted.
    pub fn advance(&mut self, now: i64) {
        while let Some(sweep) = self.next_sweep().filter(|sweep| *sweep <= now) {
            self.pass(sweep);
            self.expire();
            self.evict();
        }
        self.pass(now);
    }

    fn pass(&mut self, now: i64) {
        let seconds = now.saturating_sub(self.now).max(0);
        self.byte_seconds += u128::from(self.bytes) * seconds as u128;
        self.now = self.now.max(now);
    }

    /// Returns the next full hour at which a sweep would delete an entry.
    fn next_sweep(&self) -> Option<i64> {
        let following = |time: i64| time.div_euclid(SWEEP).saturating_add(1).saturating_mul(SWEEP);
        let (oldest, _) = self.uses.first()?;
        // The first full hour after the moment at which the oldest entry has been unused for exactly the
        // limit.
        let expiry = following(oldest.saturating_add(self.limits.idle));
        let next = following(self.now);
        Some(if self.bytes > self.limits.bytes { next } else { expiry.max(next) })
    }

    /// Deletes entries that were unused for longer than the limit.
    fn expire(&mut self) {
        while let Some(&(used, entry)) = self.uses.first() {
            if self.now - used <= self.limits.idle {
                break;
            }
            self.remove(entry);
            self.expired += 1;
        }
    }

    /// Deletes the least recently used entries until the size is within the limit.
    fn evict(&mut self) {
        while self.bytes > self.limits.bytes {
            let Some(&(_, entry)) = self.uses.first() else { break };
            self.remove(entry);
            self.evicted += 1;
        }
    }

    fn remove(&mut self, id: EntryId) {
        let entry = &mut self.entries[id];
        entry.there = false;
        self.uses.remove(&(entry.used, id));
        self.bytes -= entry.bytes;
        if let Some(scope) = self.scopes.get_mut(&entry.scope) {
            scope.retain(|other| *other != id);
        }
    }

    /// Looks up a key. The exact key and the prefix are both tried in the first ref before the next ref: a
    /// prefix match in the own ref wins over the exact key in the default branch. Within a ref, the exact key
    /// wins, and of several entries the newest.
    pub fn find(&self, readable: impl Iterator<Item = Scope>, key: u128) -> Option<CacheHit> {
        for scope in readable {
            let Some(entries) = self.scopes.get(&scope) else { continue };
            let usable = || entries.iter().rev().copied().filter(|entry| self.is_usable(*entry));
            let exact = usable().find(|entry| self.entries[*entry].key == key);
            if let Some(entry) = exact {
                return Some(CacheHit { entry, exact: true });
            }
            if let Some(entry) = usable().next() {
                return Some(CacheHit { entry, exact: false });
            }
        }
        None
    }

    /// Returns whether the entry can be restored. A delta without its base counts as absent, and the lookup
    /// continues.
    fn is_usable(&self, entry: EntryId) -> bool {
        self.entries[entry].base.is_none_or(|base| self.entries[base].there)
    }

    /// Records a use: a restore reads the entry and its base.
    pub fn touch(&mut self, id: EntryId) {
        for id in [Some(id), self.entries[id].base].into_iter().flatten() {
            let entry = &mut self.entries[id];
            if entry.there {
                self.uses.remove(&(entry.used, id));
                entry.used = self.now;
                self.uses.insert((self.now, id));
            }
        }
    }

    /// Saves an entry under the ref of the run. Existing entries stay: if the key exists, the new entry is
    /// its next generation.
    pub fn save(&mut self, new: New) -> EntryId {
        let New { scope, key, content, bytes, base } = new;
        let id = self.entries.len();
        self.entries.push(Entry { scope, key, content, bytes, base, used: self.now, there: true });
        self.scopes.entry(scope).or_default().push(id);
        self.uses.insert((self.now, id));
        self.bytes += bytes;
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;
    const OWN: Scope = Scope(7);
    const SIBLING: Scope = Scope(8);

    fn cache(bytes: u64) -> Cache {
        Cache::new(Limits { bytes, idle: 7 * DAY }, 0)
    }

    fn full(scope: Scope, key: u128) -> New {
        New { scope, key, content: 0, bytes: 10, base: None }
    }

    fn found(cache: &Cache, key: u128) -> Option<(EntryId, bool)> {
        let found = cache.find([OWN, Scope::DEFAULT].into_iter(), key);
        found.map(|it| (it.entry, it.exact))
    }

    #[test]
    fn lookup_sees_its_own_ref_and_the_default_branch_only() {
        let mut cache = cache(1000);
        cache.save(full(SIBLING, 1));
        assert_eq!(found(&cache, 1), None);
        cache.save(full(Scope::DEFAULT, 1));
        assert_eq!(found(&cache, 1), Some((1, true)));
        cache.save(full(OWN, 1));
        assert_eq!(found(&cache, 1), Some((2, true)));
    }

    #[test]
    fn own_prefix_hit_wins_over_default_branch_exact_hit() {
        let mut cache = cache(1000);
        cache.save(full(Scope::DEFAULT, 1));
        cache.save(full(OWN, 2));
        assert_eq!(found(&cache, 1), Some((1, false)));
    }

    #[test]
    fn lookup_prefers_the_exact_key_then_the_newest_entry() {
        let mut cache = cache(1000);
        for key in [1, 1, 2, 3] {
            cache.save(full(OWN, key));
        }
        assert_eq!(found(&cache, 1), Some((1, true)));
        assert_eq!(found(&cache, 9), Some((3, false)));
    }

    #[test]
    fn unused_entries_expire_at_the_hour_after_seven_days() {
        let mut cache = cache(1000);
        cache.save(full(OWN, 1));
        cache.advance(7 * DAY);
        assert_eq!(found(&cache, 1), Some((0, true)), "seven days are not more than seven");
        cache.advance(7 * DAY + SWEEP - 1);
        assert_eq!(cache.expired, 0);
        cache.advance(7 * DAY + SWEEP);
        assert_eq!((cache.expired, cache.bytes, found(&cache, 1)), (1, 0, None));
    }

    #[test]
    fn hit_extends_an_entry_by_seven_days() {
        let mut cache = cache(1000);
        cache.save(full(OWN, 1));
        cache.advance(6 * DAY);
        cache.touch(0);
        cache.advance(12 * DAY);
        assert_eq!(found(&cache, 1), Some((0, true)));
        cache.advance(14 * DAY);
        assert_eq!(found(&cache, 1), None);
    }

    #[test]
    fn least_recently_used_entry_is_evicted_at_the_full_hour() {
        let mut cache = cache(25);
        cache.advance(10);
        cache.save(full(OWN, 1));
        cache.advance(20);
        cache.save(full(OWN, 2));
        cache.advance(30);
        cache.touch(0);
        cache.save(full(SIBLING, 3));
        cache.advance(SWEEP - 1);
        assert_eq!((cache.bytes, cache.evicted), (30, 0));
        cache.advance(SWEEP);
        assert_eq!((cache.bytes, cache.evicted), (20, 1));
        assert_eq!(found(&cache, 2), Some((0, false)), "the one that was not used is gone");
    }

    #[test]
    fn entry_larger_than_the_limit_is_evicted() {
        let mut cache = cache(5);
        cache.save(full(OWN, 1));
        cache.advance(SWEEP);
        assert_eq!((cache.bytes, cache.evicted, cache.byte_seconds), (0, 1, 36_000));
    }

    #[test]
    fn delta_without_its_base_counts_as_absent() {
        let mut cache = cache(1000);
        cache.save(full(Scope::DEFAULT, 1));
        cache.save(New { base: Some(0), ..full(OWN, 2) });
        assert_eq!(found(&cache, 2), Some((1, true)));
        cache.advance(6 * DAY);
        cache.save(full(Scope::DEFAULT, 1));
        // Simulate that the first entry was not used through the delta.
        cache.uses.remove(&(0, 1));
        cache.uses.insert((cache.now, 1));
        cache.entries[1].used = cache.now;
        cache.advance(8 * DAY);
        assert_eq!(found(&cache, 2), Some((2, false)));
    }

    #[test]
    fn byte_seconds_accumulate_between_events() {
        let mut cache = cache(1000);
        cache.save(full(OWN, 1));
        cache.advance(100);
        cache.save(full(OWN, 2));
        cache.advance(150);
        assert_eq!(cache.byte_seconds, 10 * 100 + 20 * 50);
    }
}
