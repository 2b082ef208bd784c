//! Cost and result of each compression level, and the best level for a link.
//!
//! ```text
//! sudo --preserve-env=PATH cargo bench --bench levels -- DIRECTORY...
//! ```
//!
//! Packs the directories at each level, on two threads, without writing anything. Each of five rounds runs every
//! level once. Prints medians. Speeds are those of two processors without other load: the processor time of both
//! processes is counted, not the elapsed time, so that other load on the machine does not matter. The last columns
//! are the time of a save, and of the transfer for a restore, over a link of 1 Gbit/s, per GB of the store. Packing
//! and sending overlap, so the slower one counts.

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;

use support::plain_env::storecache;
use support::world_runs::report;

const ROUNDS: usize = 5;
/// Bytes per second.
const LINK: f64 = 125e6;
const PROCESSORS: f64 = 2.0;

const KINDS: [&[&str]; 11] = [
    &["--level=1"],
    &["--level=2"],
    &["--level=3"],
    &["--level=4"],
    &["--level=5"],
    &["--level=6"],
    &["--level=7"],
    &["--level=9"],
    &["--level=12"],
    &["--level=1", "--long"],
    &["--level=3", "--long"],
];

fn main() {
    let directories: Vec<String> =
        std::env::args().skip(1).filter(|word| Path::new(word).is_dir()).collect();
    assert!(!directories.is_empty(), "name directories to pack");
    let mut rounds = vec![Vec::new(); KINDS.len()];
    for _ in 0..ROUNDS {
        for (kind, times) in KINDS.iter().zip(&mut rounds) {
            times.push(pack(&directories, kind));
        }
    }
    println!("flags              ratio  packs MB/s  makes MB/s  save s/GB  restore s/GB");
    for (kind, mut times) in KINDS.iter().zip(rounds) {
        times.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let Packed { raw, size, seconds } = times[times.len() / 2];
        println!(
            "{:17} {:6.3}  {:10.0}  {:10.0}  {:9.2}  {:12.2}",
            kind.join(" "),
            raw / size,
            raw / seconds / 1e6,
            size / seconds / 1e6,
            seconds.max(size / LINK) / raw * 1e9,
            size / LINK / raw * 1e9,
        );
    }
}

#[derive(Clone, Copy)]
struct Packed {
    /// Bytes of the archive before and after compression.
    raw: f64,
    size: f64,
    seconds: f64,
}

fn pack(directories: &[String], more: &[&str]) -> Packed {
    let scratch = tempfile::tempdir().unwrap();
    let backend = format!("--backend=dir:{}", scratch.path().display());
    let mut words = vec!["save", "--store=plain", "--dry-run", "--key=k", "--json", "--quiet"];
    words.extend(["--threads=2", &backend]);
    words.extend(more);
    words.extend(directories.iter().flat_map(|directory| ["--path", directory]));
    let before = children_seconds();
    let report = report(&storecache(words).ok());
    let seconds = (children_seconds() - before) / PROCESSORS;
    let number = |group: &str, name: &str| report[group][name].as_f64().unwrap();
    Packed { raw: number("bytes", "packed"), size: number("bytes", "snapshot"), seconds }
}

/// Returns the processor time of all ended child processes.
fn children_seconds() -> f64 {
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    // Fields 16 and 17 of the file are fields 14 and 15 after the name.
    fields.skip(13).take(2).map(|field| field.parse::<f64>().unwrap() / TICKS).sum()
}
