//! The usual way to keep a Guix store from one job to the next: a cache action, and two steps in the
//! shell. This is what storecache is to replace, so it is kept here as it is, faults and all.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::invocation::Output;
use super::world::World;

/// Archives store and database while the daemon runs.
const SAVE: &str = "
sudo tar --create --zstd --file=/cache/recipe.tzst -C / gnu/store var/guix/db
";

/// Unpacks the archive over what the installer has made.
const RESTORE: &str = "
sudo systemctl stop guix-daemon.service
sudo tar --extract --zstd --file=/cache/recipe.tzst --no-overwrite-dir -C /
sudo systemctl start guix-daemon.service
";

/// The shell in which a job runs a step.
const SHELL: [&str; 7] = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c"];

impl World {
    /// The step that saves, in a world with Guix.
    pub fn recipe_save(&self) -> Output {
        self.step(SAVE)
    }

    /// The step that restores what was saved in a world with the same backend.
    pub fn recipe_restore(&self) -> Output {
        self.step(RESTORE)
    }

    fn step(&self, script: &str) -> Output {
        if !self.is_container() {
            self.pretend_systemctl();
        }
        self.command(SHELL.into_iter().chain([script])).user("runner").run()
    }

    /// Gives a bare world what the recipe calls to stop and start the daemon.
    pub fn pretend_systemctl(&self) {
        let place = self.host("/usr/sbin/systemctl");
        fs::write(&place, include_str!("systemctl")).unwrap();
        fs::set_permissions(&place, Permissions::from_mode(0o755)).unwrap();
        fs::write(self.host("/etc/bare-guix-daemon"), include_str!("bare-guix-daemon")).unwrap();
    }
}
