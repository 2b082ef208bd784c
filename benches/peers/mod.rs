//! Comparison of storecache and its peers: the measured work, and its data.

// The bench and its test each use only a part of this module.
#![allow(dead_code)]

mod change;
mod corpus;
pub mod files;
mod ground;
mod link;
mod nix;
mod ours;
mod pack;
pub mod plot;
pub mod record;
mod rounds;
mod service;
mod shell;
pub mod table;
mod unpack;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::Path;

use ::nix::sched::{CloneFlags, unshare};
use anyhow::{Context, Result};

pub use corpus::Corpus;
use ground::Ground;
use record::Work;
use shell::sh;
use unpack::Archives;

/// Name of the program under test in tables.
pub const US: &str = "storecache";

/// Name of the program under test if it does not wait for the disk, as on GitHub's own runners.
pub const UNSYNCED: &str = "storecache --sync never";

/// A piece of work that can be selected by name.
pub struct Part {
    pub name: &'static str,
    pub about: &'static str,
    run: fn(&Bench) -> Result<Work>,
}

/// All pieces of work, in the order in which they are shown.
pub const PARTS: [Part; 12] = [
    Part { name: "unpack-small", about: "restore many small files on ext4", run: unpack::small },
    Part { name: "unpack-big", about: "restore few big files on ext4", run: unpack::big },
    Part { name: "unpack-tmpfs", about: "restore many small files on tmpfs", run: unpack::tmpfs },
    Part { name: "pack-small", about: "save many small files", run: pack::small },
    Part { name: "pack-big", about: "save few big files", run: pack::big },
    Part { name: "service-200", about: "through the service, 200 Mbit/s", run: service::slow },
    Part { name: "service-1000", about: "through the service, 1 Gbit/s", run: service::usual },
    Part {
        name: "service-unshaped",
        about: "through the service, unshaped",
        run: service::unshaped,
    },
    Part { name: "partial", about: "restore with 90 % present", run: change::partial },
    Part { name: "delta", about: "save with 3 % new", run: change::delta },
    Part { name: "nix", about: "restore beside nix copy", run: nix::newest },
    Part { name: "nix-debian", about: "the same with Nix 2.26", run: nix::of_debian },
];

/// State that all parts share. Corpora and archives are made when a part first needs them.
pub struct Bench {
    rounds: usize,
    ground: Ground,
    small: OnceCell<Corpus>,
    big: OnceCell<Corpus>,
    small_archives: OnceCell<Archives>,
    big_archives: OnceCell<Archives>,
}

impl Bench {
    /// Moves the process into a mount namespace of its own, so that no mount outlives it.
    ///
    /// # Errors
    /// If the process does not run as root.
    pub fn new(rounds: usize) -> Result<Bench> {
        unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace; run it as root")?;
        sh("mount --make-rslave /")?;
        Ok(Bench {
            rounds,
            ground: Ground::new(),
            small: OnceCell::new(),
            big: OnceCell::new(),
            small_archives: OnceCell::new(),
            big_archives: OnceCell::new(),
        })
    }

    /// Creates a bench for tests, with stores of these directories, which are moved, instead of Debian packages.
    ///
    /// # Errors
    /// If there is no Nix to register them.
    pub fn on_trees(rounds: usize, trees: &Path) -> Result<Bench> {
        let bench = Bench::new(rounds)?;
        let corpus = Corpus::of_trees(&bench.ground.directory("store")?, trees)?;
        // Both are set only once.
        let _ = (bench.small.set(corpus.clone()), bench.big.set(corpus));
        Ok(bench)
    }

    /// Measures one part.
    ///
    /// # Errors
    /// If a prerequisite is missing, or a program fails.
    pub fn run(&self, part: &Part) -> Result<Work> {
        (part.run)(self).with_context(|| format!("measure {}", part.name))
    }

    fn small(&self) -> Result<&Corpus> {
        made_once(&self.small, Corpus::small)
    }

    fn big(&self) -> Result<&Corpus> {
        made_once(&self.big, Corpus::big)
    }

    fn small_archives(&self) -> Result<&Archives> {
        let make = || Archives::new(self.small()?, self.ground.directory("small")?, true);
        made_once(&self.small_archives, make)
    }

    fn big_archives(&self) -> Result<&Archives> {
        made_once(&self.big_archives, || {
            Archives::new(self.big()?, self.ground.directory("big")?, false)
        })
    }
}

fn made_once<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    if let Some(made) = cell.get() {
        return Ok(made);
    }
    let made = make()?;
    Ok(cell.get_or_init(|| made))
}

/// Returns the properties of the machine and the versions of the programs, by name.
pub fn machine() -> BTreeMap<String, String> {
    let asked = [
        ("processors", "nproc"),
        ("processor", "sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1"),
        ("memory", "awk '/^MemTotal/ { printf \"%.0f GB\", $2 / 1e6 }' /proc/meminfo"),
        ("kernel", "uname -r"),
        ("date", "date -u +%F"),
        ("tar", "tar --version | head -n 1"),
        ("zstd", "zstd --version | grep -o 'v[0-9.]*'"),
        ("bsdtar", "bsdtar --version"),
        ("squashfs-tools", "unsquashfs -version | head -n 1"),
        ("casync", "casync --version | head -n 1"),
        ("restic", "restic version"),
        ("node", "node --version"),
    ];
    // A program that is not installed is left out.
    let answers = asked.into_iter().filter_map(|(name, script)| {
        let answer = sh(&format!("set +o pipefail; {script}")).ok()?;
        Some((name.to_owned(), answer.trim().to_owned()))
    });
    answers.filter(|(_, answer)| !answer.is_empty()).collect()
}
