//! Instants of a restore, defined by the steps that it has completed, and the phases of a restore.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc::{self, c_long};

use super::kill_target::{Kind, processes};
use super::store::CampaignStore;
use crate::support::rng::Rng;
use crate::support::{Running, procfs};

/// Upper limits for the random delay between a moment and the fault.
const MAX_DELAYS: [Duration; 2] = [Duration::from_micros(200), Duration::from_millis(4)];

/// Phases in which a fault may land, in their order.
pub const PHASES: [&str; 8] =
    ["start", "plan", "unpack", "prepare", "stopped", "place", "start again", "end"];

#[derive(Clone, Copy, Debug)]
pub enum Trigger {
    /// A fraction of the duration of a whole run, in thousandths.
    Part(usize),
    User,
    Root,
    Staging,
    /// More than this many items are in staging.
    Staged(usize),
    /// The list of the items to be placed is written.
    Planned,
    Guarded,
    Stopped,
    /// All items are placed, and the guardian is about to start the daemon.
    Starting,
    Unstaged,
    /// The root helper is about to make a call of this kind for this many times.
    Call(Call, usize),
}

/// Kinds of calls that change something.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    Link,
    Rename,
    Lock,
    Write,
    Sync,
    Unlink,
}

impl Call {
    pub fn numbers(self) -> &'static [c_long] {
        match self {
            Call::Link => &[libc::SYS_symlink, libc::SYS_symlinkat],
            Call::Rename => &[libc::SYS_renameat2],
            Call::Lock => &[libc::SYS_flock, libc::SYS_fcntl],
            Call::Write => &[libc::SYS_pwrite64],
            Call::Sync => &[libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_syncfs],
            Call::Unlink => &[libc::SYS_unlink, libc::SYS_unlinkat],
        }
    }
}

impl Trigger {
    /// A moment that is likely to be in that phase of a restore of this many items.
    pub fn in_phase(phase: &str, dice: &mut Rng, items: usize) -> Trigger {
        let few = 1 + dice.below(4);
        let some = 1 + dice.below(items);
        let choices: &[Trigger] = match phase {
            "start" => &[Trigger::User],
            "plan" => &[Trigger::Root, Trigger::Call(Call::Lock, some), Trigger::Guarded],
            "unpack" => &[
                Trigger::Staging,
                Trigger::Staged(some - 1),
                Trigger::Call(Call::Sync, few),
                Trigger::Part(200 + dice.below(600)),
            ],
            "prepare" => &[Trigger::Planned, Trigger::Call(Call::Link, some.div_ceil(2))],
            "stopped" => &[Trigger::Stopped],
            "place" => &[Trigger::Call(Call::Rename, 1 + some)],
            "start again" => &[Trigger::Starting, Trigger::Call(Call::Write, some)],
            _ => &[Trigger::Unstaged, Trigger::Call(Call::Unlink, some)],
        };
        dice.choose(choices)
    }
}

/// The state of a restore as visible from outside.
pub struct RestoreView {
    daemon: u32,
    places: Vec<PathBuf>,
    items: Vec<PathBuf>,
}

impl RestoreView {
    pub fn new(scene: &CampaignStore, daemon: u32) -> RestoreView {
        let world = &scene.world;
        let store = Path::new(world.store());
        let places = [store, store.parent().unwrap(), Path::new(world.state())];
        RestoreView {
            daemon,
            places: places.map(|place| world.host(place)).into(),
            items: scene.new_items().map(|path| world.host(path)).collect(),
        }
    }

    fn staging(&self) -> Option<PathBuf> {
        let entries = self.places.iter().filter_map(|place| place.read_dir().ok()).flatten();
        let mut paths = entries.flatten().map(|entry| entry.path());
        paths.find(|path| {
            path.file_name().is_some_and(|it| it.as_encoded_bytes().starts_with(b".storecache"))
        })
    }

    fn placed(&self) -> usize {
        self.items.iter().filter(|item| fs::symlink_metadata(item).is_ok()).count()
    }

    fn is_stopped(&self) -> bool {
        !procfs::is_alive(self.daemon)
    }

    fn is_reached(&self, moment: Trigger, run: &Running, begun: Instant, whole: Duration) -> bool {
        let one = |wanted: Kind| processes(run).into_iter().find(|(_, kind)| *kind == wanted);
        match moment {
            Trigger::Part(part) => begun.elapsed() >= whole * part as u32 / 1000,
            Trigger::User => one(Kind::User).is_some(),
            // The root helper must be running before it can make a call.
            Trigger::Root | Trigger::Call(..) => one(Kind::Root).is_some(),
            Trigger::Staging => self.staging().is_some(),
            Trigger::Staged(count) => {
                let entries = self.staging().and_then(|staging| staging.read_dir().ok());
                entries.is_some_and(|entries| entries.count() > count)
            }
            Trigger::Planned => self.staging().is_some_and(|it| it.join(".placing").exists()),
            Trigger::Guarded => one(Kind::Guardian).is_some(),
            Trigger::Stopped => self.is_stopped(),
            Trigger::Starting => self.is_stopped() && self.placed() == self.items.len(),
            Trigger::Unstaged => self.is_stopped() && self.staging().is_none(),
        }
    }

    /// Waits for the moment and a random time more. Returns `false` if the run ended before.
    pub fn wait(
        &self,
        moment: Trigger,
        run: &mut Running,
        begun: Instant,
        whole: Duration,
        dice: &mut Rng,
    ) -> bool {
        while !self.is_reached(moment, run, begun, whole) {
            if !run.is_running() {
                return false;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        if matches!(moment, Trigger::Call(..)) {
            return true;
        }
        let end =
            Instant::now() + dice.choose(&MAX_DELAYS).mul_f64(dice.below(1000) as f64 / 1000.0);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        run.is_running()
    }

    /// The phase that the run is in right now.
    pub fn phase(&self, processes: &[(u32, Kind)]) -> &'static str {
        let has = |wanted: Kind| processes.iter().any(|(_, kind)| *kind == wanted);
        let staging = self.staging();
        let placed = self.placed();
        match (self.is_stopped(), staging) {
            (true, Some(_)) if placed == 0 => "stopped",
            (true, Some(_)) if placed < self.items.len() => "place",
            (true, Some(_)) => "start again",
            (true, None) => "end",
            (false, Some(_)) if placed > 0 => "place",
            (false, Some(staging)) if staging.join(".placing").exists() => "prepare",
            (false, Some(_)) => "unpack",
            (false, None) if has(Kind::Root) => "plan",
            (false, None) => "start",
        }
    }
}
