//! Instants of a restore, chosen by what has happened until then, and the phase that it is in.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::dice::Dice;
use super::scene::Scene;
use super::victim::{Kind, children, processes};
use crate::support::{Running, procfs};

/// How long after a moment the fault comes at most.
const AFTER: Duration = Duration::from_millis(4);

/// Phases that a fault may land in, in their order.
pub const PHASES: [&str; 8] =
    ["start", "plan", "unpack", "prepare", "stopped", "place", "start again", "end"];

#[derive(Clone, Copy, Debug)]
pub enum Moment {
    /// A part of the time that a whole run takes, in thousandths.
    Part(usize),
    Root,
    Staging,
    /// So many items are in staging.
    Staged(usize),
    /// What is to be placed is on record.
    Planned,
    Rooted,
    Guarded,
    Stopped,
    /// So many items are in their place.
    Placed(usize),
    /// The guardian starts the daemon.
    Starting,
    Unstaged,
}

impl Moment {
    pub fn random(dice: &mut Dice, items: usize) -> Moment {
        match dice.below(14) {
            0 | 1 => Moment::Part(dice.below(1000)),
            2 => Moment::Root,
            3 => Moment::Staging,
            4 => Moment::Staged(dice.below(items)),
            5 => Moment::Planned,
            6 => Moment::Rooted,
            7 => Moment::Guarded,
            8 | 9 => Moment::Stopped,
            10 | 11 => Moment::Placed(1 + dice.below(items)),
            12 => Moment::Starting,
            _ => Moment::Unstaged,
        }
    }
}

/// What can be seen of a restore from outside.
pub struct View<'a> {
    pub scene: &'a Scene,
    daemon: u32,
    places: Vec<PathBuf>,
    items: Vec<PathBuf>,
}

impl<'a> View<'a> {
    pub fn new(scene: &'a Scene, daemon: u32) -> View<'a> {
        let world = &scene.world;
        let store = Path::new(world.store());
        let places = [store, store.parent().unwrap(), Path::new(world.state())];
        View {
            scene,
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

    fn is_rooted(&self) -> bool {
        fs::read_dir(self.scene.our_roots()).is_ok_and(|mut roots| roots.next().is_some())
    }

    fn is_stopped(&self) -> bool {
        !procfs::is_alive(self.daemon)
    }

    fn has_come(&self, moment: Moment, run: &Running, begun: Instant, whole: Duration) -> bool {
        let one = |wanted: Kind| processes(run).into_iter().find(|(_, kind)| *kind == wanted);
        match moment {
            Moment::Part(part) => begun.elapsed() >= whole * part as u32 / 1000,
            Moment::Root => one(Kind::Root).is_some(),
            Moment::Staging => self.staging().is_some(),
            Moment::Staged(count) => {
                let entries = self.staging().and_then(|staging| staging.read_dir().ok());
                entries.is_some_and(|entries| entries.count() > count)
            }
            Moment::Planned => self.staging().is_some_and(|it| it.join(".placing").exists()),
            Moment::Rooted => self.is_rooted(),
            Moment::Guarded => one(Kind::Guardian).is_some(),
            Moment::Stopped => self.is_stopped(),
            Moment::Placed(count) => self.placed() >= count,
            Moment::Starting => {
                self.is_stopped()
                    && one(Kind::Guardian).is_some_and(|(pid, _)| !children(pid).is_empty())
            }
            Moment::Unstaged => self.is_stopped() && self.staging().is_none(),
        }
    }

    /// Waits for the moment and a random time more; `false` when the run was over before.
    pub fn wait(
        &self,
        moment: Moment,
        run: &mut Running,
        begun: Instant,
        whole: Duration,
        dice: &mut Dice,
    ) -> bool {
        while !self.has_come(moment, run, begun, whole) {
            if !run.is_running() {
                return false;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        let end = Instant::now() + dice.time(AFTER);
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
