//! The store of a fault campaign: a small store with a part of the items of an entry.

use std::collections::BTreeSet;

use super::fixture_cache::Fixture;
use super::invariants::{Before, Found};
use super::scratch::Scratch;
use super::store_content;
use super::world::{Plan, World};
use super::world_runs::{StoreState, assert_same, record_state};

/// A world whose store has a part of the items of its only entry.
pub struct PartialStore {
    /// Whether a daemon runs.
    daemon: bool,
    pub world: World,
    pub whole: StoreState,
    /// The trees of the store with that part.
    kept: Scratch,
    before: Before,
}

impl PartialStore {
    /// Creates a world whose entry is made by `save`.
    pub fn new(plan: Plan, save: impl FnOnce(&World)) -> PartialStore {
        let (world, whole, leaves) = Self::filled(plan, save);
        store_content::keep_only(&world, &leaves);
        Self::with(world, whole, true)
    }

    /// As [`PartialStore::new`], with a store that has never been used, and without a daemon.
    pub fn fresh(plan: Plan, save: impl FnOnce(&World)) -> PartialStore {
        let (world, whole, _) = Self::filled(plan, save);
        world.stop_daemon();
        world.wipe_store();
        Self::with(world, whole, false)
    }

    /// Also returns the leaves that are in the store besides the items that are to be restored.
    fn filled(plan: Plan, save: impl FnOnce(&World)) -> (World, StoreState, Vec<String>) {
        let world = plan.fixture(Fixture::Small).start();
        world.start_daemon();
        // Few files, but one of each kind, and more than one frame.
        world.sh("mkdir -p /tmp/tree-1/deep/er /tmp/tree-2
             echo text >/tmp/tree-1/deep/er/file
             echo '#!/bin/sh' >/tmp/tree-1/program; chmod +x /tmp/tree-1/program
             ln -s deep/er/file /tmp/tree-1/link
             touch /tmp/tree-1/empty
             head -c 700000 /dev/urandom >/tmp/tree-2/large");
        let added = world.add_files("/tmp/tree-1 /tmp/tree-2");
        let leaves = {
            let mut leaves = store_content::leaves(&world);
            leaves.retain(|path| !added.contains(path));
            let sizes = world.registrations();
            leaves.sort_by_key(|path| (sizes[path].nar_size, path.clone()));
            leaves.truncate(3);
            leaves
        };
        let all = [&leaves[..], &added, &[item_with_smallest_closure(&world)]].concat();
        store_content::keep_only(&world, &all);
        let whole = record_state(&world);
        save(&world);
        (world, whole, leaves)
    }

    /// Records the state that the store is to have before each fault.
    fn with(world: World, whole: StoreState, daemon: bool) -> PartialStore {
        world.stop_daemon();
        world.wait_until_idle();
        let kept = Scratch::new();
        for tree in world.package_manager().trees() {
            kept.copy(&world.host(tree.inside), tree.name);
        }
        if daemon {
            world.start_daemon();
        }
        let before = Before::now(&world);
        PartialStore { daemon, world, whole, kept, before }
    }

    /// Resets the store to the recorded state.
    pub fn reset(&mut self) {
        self.world.refill_store(|tree| self.kept.path().join(tree.name));
        if self.daemon && self.world.daemon_pid().is_none() {
            self.world.start_daemon();
        }
        self.before = Before::now(&self.world);
    }

    /// Whether a daemon runs, which then must answer after each fault.
    pub fn has_daemon(&self) -> bool {
        self.daemon
    }

    /// Panics unless the package manager itself finds the store sound.
    pub fn verify(&self) {
        if !self.daemon {
            self.world.start_daemon();
        }
        self.world.verify_store();
        if !self.daemon {
            self.world.stop_daemon();
        }
    }

    /// Asserts that the store is whole, and expects it to stay so from now on.
    pub fn assert_whole(&mut self) {
        assert_same(&self.whole, &record_state(&self.world));
        self.before = Before::now(&self.world);
    }

    /// Returns whether the store is unchanged or whole.
    ///
    /// # Errors
    /// If it is neither; the error describes the difference.
    pub fn compare(&self) -> Result<Found, String> {
        self.before.compare(&self.world, &self.whole)
    }
}

/// The item with the smallest closure of at least three items.
fn item_with_smallest_closure(world: &World) -> String {
    let references = world.references_of_all();
    let sizes = world.registrations();
    let closure = |path: &String| {
        let mut found = BTreeSet::new();
        let mut pending = vec![path.clone()];
        while let Some(path) = pending.pop() {
            if found.insert(path.clone()) {
                pending.extend(references[&path].iter().cloned());
            }
        }
        found
    };
    let size = |path: &String| -> i64 {
        closure(path).iter().map(|path| sizes[path].nar_size.unwrap()).sum()
    };
    let mut some: Vec<_> = references.keys().filter(|path| closure(path).len() > 2).collect();
    some.sort_by_key(|path| (size(path), *path));
    some[0].clone()
}
