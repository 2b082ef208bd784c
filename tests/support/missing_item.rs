//! A store that is missing one item of its snapshot, so that a restore reaches its commit quickly.

use std::time::Duration;

use super::world_runs::{StoreState, assert_same, record_state, save, staging};
use super::{Fixture, Role, World, poll, procfs};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A world whose snapshot has one item more than its store.
pub struct MissingItemWorld {
    pub world: World,
    whole: StoreState,
    now: StoreState,
}

impl MissingItemWorld {
    #[track_caller]
    pub fn new(world: World) -> MissingItemWorld {
        world.start_daemon();
        save(&world);
        let whole = record_state(&world);
        let top = world.sh("readlink /nix/var/nix/gcroots/fixture").stdout;
        world.sh("rm /nix/var/nix/gcroots/fixture");
        world.nix(["nix-store", "--delete", top.trim()]).ok();
        let now = record_state(&world);
        assert!(now != whole);
        MissingItemWorld { world, whole, now }
    }

    #[track_caller]
    pub fn bare(role: Role) -> MissingItemWorld {
        Self::new(World::with_fixture(role, Fixture::Small))
    }

    #[track_caller]
    pub fn assert_no_leftovers(&self) {
        assert_eq!(staging(&self.world), [""; 0]);
        poll::until("our processes to end", TIMEOUT, || {
            let left = storecache_processes(&self.world);
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }

    #[track_caller]
    pub fn assert_unchanged(&self) {
        self.assert_sound(&self.now);
    }

    #[track_caller]
    pub fn assert_restored(&self) {
        self.assert_sound(&self.whole);
    }

    #[track_caller]
    fn assert_sound(&self, expected: &StoreState) {
        poll::until("the daemon to answer", TIMEOUT, || {
            if self.world.daemon_answers() { Ok(()) } else { Err(self.world.daemon_log()) }
        });
        assert_same(expected, &record_state(&self.world));
        self.assert_no_leftovers();
        self.world.verify_store();
    }

    /// Deletes the item from the store again.
    pub fn delete_item_again(&self) {
        let top =
            self.whole.references.keys().find(|path| !self.now.references.contains_key(*path));
        self.world.sh("rm -f /nix/var/nix/gcroots/storecache/*");
        self.world.nix(["nix-store", "--delete", top.unwrap()]).ok();
    }
}

/// The command lines of the program's processes in a world, and of sudo.
pub fn storecache_processes(world: &World) -> Vec<String> {
    let processes_in_namespace = procfs::processes_in_namespace(world.init()).into_iter();
    let commands = processes_in_namespace
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok());
    let is_ours = |command: &String| {
        let program = command.split('\0').next().unwrap_or_default();
        let name = program.rsplit('/').next().unwrap_or_default();
        ["storecache", "storecache-guardian", "storecache-backup-guardian", "sudo"].contains(&name)
    };
    commands.filter(is_ours).collect()
}
