//! Where a fault campaign happens: a small store that has a part of what an entry has.

use std::collections::BTreeSet;

use super::cache::Fixture;
use super::corpus;
use super::invariants::{Before, Found};
use super::runs::{Picture, assert_same, picture};
use super::scratch::Scratch;
use super::world::{Plan, World};

/// A world whose store has a part of what its one entry has.
pub struct Site {
    pub world: World,
    pub whole: Picture,
    /// The trees of the store with that part.
    kept: Scratch,
    before: Before,
}

impl Site {
    /// `save` makes the entry.
    pub fn new(plan: Plan, save: impl FnOnce(&World)) -> Site {
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
            let mut leaves = corpus::leaves(&world);
            leaves.retain(|path| !added.contains(path));
            let sizes = world.registrations();
            leaves.sort_by_key(|path| (sizes[path].nar_size, path.clone()));
            leaves.truncate(3);
            leaves
        };
        let all = [&leaves[..], &added, &[needy(&world)]].concat();
        corpus::keep_only(&world, &all);
        let whole = picture(&world);
        save(&world);
        corpus::keep_only(&world, &leaves);
        world.stop_daemon();
        world.wait_until_idle();
        let kept = Scratch::new();
        for tree in world.flavour().trees() {
            kept.copy(&world.host(tree.inside), tree.name);
        }
        world.start_daemon();
        let before = Before::now(&world);
        Site { world, whole, kept, before }
    }

    /// The store has the part again.
    pub fn reset(&mut self) {
        if self.world.daemon_pid().is_none() {
            self.world.start_daemon();
        }
        self.world.refill_store(|tree| self.kept.path().join(tree.name));
        self.before = Before::now(&self.world);
    }

    /// The store is taken to be whole, and to stay so.
    pub fn is_whole(&mut self) {
        assert_same(&self.whole, &picture(&self.world));
        self.before = Before::now(&self.world);
    }

    /// Whether the store is as it was or whole.
    ///
    /// # Errors
    /// When it is neither: what is wrong.
    pub fn compare(&self) -> Result<Found, String> {
        self.before.compare(&self.world, &self.whole)
    }
}

/// An item that needs some others, the smallest.
fn needy(world: &World) -> String {
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

/// Numbers that are the same in every run.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}
