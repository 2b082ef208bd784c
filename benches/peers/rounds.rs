//! Runs programs in turn at one piece of work, in several rounds.
//!
//! Before each run, its output is removed or its file system replaced by a new one, so that no program is slowed down
//! by the files of another one, and the input is read once, so that it is in the page cache. Each round begins with
//! another program.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::ground::Disk;
use super::record::{Sample, Series};
use super::shell::{command, run, sh};

/// A program and how to run it.
pub struct Contender<'a> {
    name: String,
    script: String,
    room: Vec<String>,
    environment: Vec<(String, String)>,
    reads: Vec<PathBuf>,
    fresh: Option<PathBuf>,
    disk: Option<&'a Disk>,
    before: Box<dyn Fn() -> Result<()> + 'a>,
    lands_on: Option<PathBuf>,
    size: Size,
}

/// How the bytes that a run makes or moves are counted.
enum Size {
    None,
    /// All files in the fresh directory, minus the bytes that were put there before.
    Made {
        less: u64,
    },
    Known(u64),
    /// As stated in the program's own report.
    Downloaded,
}

impl<'a> Contender<'a> {
    /// Creates a contender that runs a shell script. `name` is its name in tables.
    pub fn new(name: &str, script: impl Into<String>) -> Contender<'a> {
        Contender {
            name: name.to_owned(),
            script: script.into(),
            room: Vec::new(),
            environment: Vec::new(),
            reads: Vec::new(),
            fresh: None,
            disk: None,
            before: Box::new(|| Ok(())),
            lands_on: None,
            size: Size::None,
        }
    }

    /// Runs with this directory empty, and writes nowhere else.
    pub fn into_fresh(mut self, directory: &Path) -> Self {
        self.fresh = Some(directory.to_owned());
        self.lands_on = Some(directory.to_owned());
        self
    }

    /// Replaces the file system of its directory by a new one before each run. `None` leaves it as it is.
    pub fn on_new(mut self, disk: Option<&'a Disk>) -> Self {
        self.disk = disk;
        self
    }

    /// Writes to the file system of this path.
    pub fn lands_on(mut self, path: &Path) -> Self {
        self.lands_on = Some(path.to_owned());
        self
    }

    /// Runs `before` ahead of each run, without measuring it.
    pub fn after(mut self, before: impl Fn() -> Result<()> + 'a) -> Self {
        self.before = Box::new(before);
        self
    }

    /// Adds files that are read once before each run.
    pub fn reads(mut self, path: &Path) -> Self {
        self.reads.push(path.to_owned());
        self
    }

    /// Sets the words in front of the shell, such as those that enter a namespace.
    pub fn in_room(mut self, words: &[String]) -> Self {
        self.room = words.to_vec();
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Counts the bytes in its directory afterwards, minus `less` bytes from before.
    pub fn makes_bytes(mut self, less: u64) -> Self {
        self.size = Size::Made { less };
        self
    }

    /// Sets the number of bytes that it moves.
    pub fn moves_bytes(mut self, bytes: u64) -> Self {
        self.size = Size::Known(bytes);
        self
    }

    /// Takes the number of downloaded bytes from its report.
    pub fn tells_bytes(mut self) -> Self {
        self.size = Size::Downloaded;
        self
    }

    fn once(&self) -> Result<Sample> {
        self.clear()?;
        (self.before)().with_context(|| format!("prepare {}", self.name))?;
        if let Some(place) = &self.lands_on {
            put_to_rest(place)?;
        }
        for path in &self.reads {
            warm(path)?;
        }
        let mut shell = command(&self.room, &self.script);
        shell.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // The bench may itself run in a job.
        shell.env_remove("GITHUB_EVENT_PATH");
        let used = processor_seconds()?;
        let started = Instant::now();
        let said = run(&mut shell, &self.script)?;
        let seconds = started.elapsed().as_secs_f64();
        let processor = processor_seconds()? - used;
        if let Some(place) = &self.lands_on {
            sh(&format!("sync -f {}", place.display()))?;
        }
        let on_disk = started.elapsed().as_secs_f64();
        let report: Value = serde_json::from_str(&said).unwrap_or_default();
        let bytes = match self.size {
            Size::None => None,
            Size::Made { less } => Some(size_of(self.fresh.as_deref())?.saturating_sub(less)),
            Size::Known(bytes) => Some(bytes),
            Size::Downloaded => report["bytes"]["downloaded"].as_u64(),
        };
        let phases = report["seconds"].as_object().into_iter().flatten();
        let phases = phases.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?)));
        let phases: BTreeMap<_, _> = phases.filter(|(_, seconds)| *seconds > 0.0).collect();
        self.clear()?;
        Ok(Sample { seconds, on_disk, processor, bytes, phases })
    }

    fn clear(&self) -> Result<()> {
        let Some(directory) = &self.fresh else { return Ok(()) };
        let path = directory.display();
        if let Some(disk) = self.disk {
            disk.renew()?;
            return sh(&format!("mkdir {path}")).map(drop);
        }
        sh(&format!("rm -rf {path} && mkdir -p {path} && sync -f {path}")).map(drop)
    }
}

/// Runs all contenders in each of `count` rounds.
///
/// # Errors
/// If one of them fails: a table with a gap would not be a comparison.
pub fn rounds(count: usize, contenders: &[Contender]) -> Result<Vec<Series>> {
    ensure!(count > 0, "no rounds");
    let mut series: Vec<Series> = contenders
        .iter()
        .map(|one| Series { name: one.name.clone(), script: one.script.clone(), samples: vec![] })
        .collect();
    for round in 0..count {
        for turn in 0..contenders.len() {
            let at = (round + turn) % contenders.len();
            let sample = contenders[at].once()?;
            print!("  {}/{count} {}: {:.2} s", round + 1, contenders[at].name, sample.seconds);
            if sample.on_disk - sample.seconds > 0.05 {
                print!(", {:.2} s until it is on the disk", sample.on_disk);
            }
            println!("{}", sample.bytes.map_or(String::new(), |b| format!(", {:.1} MB", mb(b))));
            series[at].samples.push(sample);
        }
    }
    Ok(series)
}

/// Returns the processor seconds of all ended children of this process, and of theirs; source: proc_pid_stat(5).
fn processor_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // After the name, which may contain anything.
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(13).take(2).map(str::parse::<u32>);
    let ticks: u32 = ticks.collect::<Result<Vec<_>, _>>()?.into_iter().sum();
    // Every Linux has a hundred ticks per second.
    Ok(f64::from(ticks) / 100.0)
}

#[allow(clippy::cast_precision_loss)]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Flushes a file system to its disk and removes its inode tables from memory. As long as they are in memory, earlier
/// deletions slow down ext4, as [`Disk`] explains.
fn put_to_rest(place: &Path) -> Result<()> {
    let place = place.display();
    sh(&format!(
        "sync -f {place}
         disk=$(findmnt -n -o SOURCE --target {place})
         if [ -b \"$disk\" ]; then
             blockdev --flushbufs \"$disk\" 2>/dev/null || echo 1 >/proc/sys/vm/drop_caches || true
         fi"
    ))
    .map(drop)
}

/// Reads all files below a path.
///
/// # Errors
/// If a file cannot be read.
fn warm(path: &Path) -> Result<()> {
    // Through a pipe, because GNU tar does not read the files if it writes to /dev/null.
    sh(&format!("tar -cf - --absolute-names {} | cat >/dev/null", path.display())).map(drop)
}

/// Returns the bytes of all files in a directory.
fn size_of(directory: Option<&Path>) -> Result<u64> {
    let mut bytes = 0;
    let mut left: Vec<PathBuf> = directory.map(Path::to_owned).into_iter().collect();
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                left.push(entry.path());
            } else if metadata.is_file() {
                bytes += metadata.len();
            }
        }
    }
    Ok(bytes)
}

/// Returns the bytes of all files below an existing path.
///
/// # Errors
/// If a directory cannot be listed.
pub fn bytes_below(path: &Path) -> Result<u64> {
    if path.is_dir() { size_of(Some(path)) } else { Ok(fs::metadata(path)?.len()) }
}
