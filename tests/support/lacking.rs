//! A store that is missing one item of its snapshot, so that a restore reaches its commit quickly.

use std::time::Duration;

use super::runs::{Picture, assert_same, picture, save, staging};
use super::{Fixture, Role, World, poll, procfs};

const SOON: Duration = Duration::from_secs(60);

/// A world whose snapshot has one item more than its store.
pub struct Lacking {
    pub world: World,
    whole: Picture,
    now: Picture,
}

impl Lacking {
    #[track_caller]
    pub fn of(world: World) -> Lacking {
        world.start_daemon();
        save(&world);
        let whole = picture(&world);
        let top = world.sh("readlink /nix/var/nix/gcroots/fixture").stdout;
        world.sh("rm /nix/var/nix/gcroots/fixture");
        world.nix(["nix-store", "--delete", top.trim()]).ok();
        let now = picture(&world);
        assert!(now != whole);
        Lacking { world, whole, now }
    }

    #[track_caller]
    pub fn bare(role: Role) -> Lacking {
        Self::of(World::with_fixture(role, Fixture::Small))
    }

    #[track_caller]
    pub fn assert_nothing_is_left(&self) {
        assert_eq!(staging(&self.world), [""; 0]);
        poll::until("our processes to be gone", SOON, || {
            let left = ours(&self.world);
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }

    #[track_caller]
    pub fn assert_as_it_was(&self) {
        self.assert_sound(&self.now);
    }

    #[track_caller]
    pub fn assert_restored(&self) {
        self.assert_sound(&self.whole);
    }

    #[track_caller]
    fn assert_sound(&self, expected: &Picture) {
        poll::until("the daemon to answer", SOON, || {
            if self.world.daemon_answers() { Ok(()) } else { Err(self.world.daemon_log()) }
        });
        assert_same(expected, &picture(&self.world));
        self.assert_nothing_is_left();
        self.world.verify_store();
    }

    /// Deletes the item from the store again.
    pub fn again(&self) {
        let top =
            self.whole.references.keys().find(|path| !self.now.references.contains_key(*path));
        self.world.sh("rm -f /nix/var/nix/gcroots/storecache/*");
        self.world.nix(["nix-store", "--delete", top.unwrap()]).ok();
    }
}

/// The command lines of the program's processes in a world, and of sudo.
pub fn ours(world: &World) -> Vec<String> {
    let companions = procfs::companions(world.init()).into_iter();
    let commands =
        companions.filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok());
    let is_ours = |command: &String| {
        let program = command.split('\0').next().unwrap_or_default();
        let name = program.rsplit('/').next().unwrap_or_default();
        ["storecache", "storecache-guardian", "storecache-deputy", "sudo"].contains(&name)
    };
    commands.filter(is_ours).collect()
}
