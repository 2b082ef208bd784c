//! The usual way to keep a Guix store between jobs: a cache action and two shell steps. storecache is meant
//! to replace this recipe, so it is kept here unchanged, with its faults.

use std::fs;

use super::invocation::Output;
use super::programs;
use super::world::World;

/// Archives store and database while the daemon runs.
const SAVE: &str = "
sudo tar --create --zstd --file=/cache/recipe.tzst -C / gnu/store var/guix/db
";

/// Unpacks the archive over the files of the installer.
const RESTORE: &str = "
sudo systemctl stop guix-daemon.service
sudo tar --extract --zstd --file=/cache/recipe.tzst --no-overwrite-dir -C /
sudo systemctl start guix-daemon.service
";

/// The shell in which a job runs a step.
const SHELL: [&str; 7] = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c"];

impl World {
    /// Runs the save step, in a world with Guix.
    pub fn recipe_save(&self) -> Output {
        self.step(SAVE)
    }

    /// Runs the restore step, with the archive of a world that has the same backend.
    pub fn recipe_restore(&self) -> Output {
        self.step(RESTORE)
    }

    fn step(&self, script: &str) -> Output {
        if !self.is_container() {
            self.install_fake_systemctl();
        }
        self.command(SHELL.into_iter().chain([script])).user("runner").run()
    }

    /// Installs a replacement for the `systemctl` that the recipe calls, in a bare world.
    pub fn install_fake_systemctl(&self) {
        let place = self.host("/usr/sbin/systemctl");
        programs::write(&place, include_str!("systemctl"));
        fs::write(self.host("/etc/bare-guix-daemon"), include_str!("bare-guix-daemon")).unwrap();
    }
}
