//! Whole restores from a directory, compared with other programs that unpack.
//!
//! A restore ends when everything is on the disk, unless `--sync never` is given, and its rows are in the database.
//! The peers end when the kernel has taken the last byte. So a restore that does not wait for the disk is compared
//! with a peer as it is, and one that waits is compared with a peer and a sync after it.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::corpus::Corpus;
use super::ground::Disk;
use super::ours::{KEY, install, storecache};
use super::record::{Figure, Wanted, Work};
use super::rounds::{Contender, rounds};
use super::shell::{has, sh};
use super::{Bench, UNSYNCED, US};

/// The peer of the figures.
pub const TAR: &str = "zstd -dc | tar -x";

/// One store as packed by each program.
pub struct Archives {
    directory: PathBuf,
}

impl Archives {
    /// Packs a store with each program. Chunks of casync take a minute and are only made if `chunks` is set.
    ///
    /// # Errors
    /// If a program fails to pack.
    pub fn new(corpus: &Corpus, directory: PathBuf, chunks: bool) -> Result<Archives> {
        let (root, here) = (corpus.root.display(), directory.display());
        sh(&storecache("save", &corpus.root, &directory.join("entries"), KEY))?;
        sh(&format!("tar -c -C {root} nix | zstd -3 -T0 -q -o {here}/tar.zst"))?;
        if has("mksquashfs") {
            let level = "-comp zstd -Xcompression-level 3 -no-progress";
            sh(&format!("mksquashfs {root}/nix {here}/image.squashfs {level}"))?;
        }
        if chunks && has("casync") {
            let to = format!("--store={here}/chunks.castr {here}/tree.caidx");
            sh(&format!("casync make --compression=zstd {to} {root}/nix"))?;
        }
        Ok(Archives { directory })
    }
}

pub fn small(bench: &Bench) -> Result<Work> {
    let disk = bench.ground.disk(bench.small()?.bytes)?;
    let out = (&*disk.out(), Some(&disk));
    let work = measure(bench, "unpack-small", bench.small()?, bench.small_archives()?, out, 2.2)?;
    Ok(Work { title: "restore all, many small files, ext4".into(), ..work })
}

pub fn big(bench: &Bench) -> Result<Work> {
    let disk = bench.ground.disk(bench.big()?.bytes)?;
    let out = (&*disk.out(), Some(&disk));
    let work = measure(bench, "unpack-big", bench.big()?, bench.big_archives()?, out, 1.4)?;
    Ok(Work { title: "restore all, few big files, ext4".into(), ..work })
}

pub fn tmpfs(bench: &Bench) -> Result<Work> {
    let memory = bench.ground.memory()?;
    let (corpus, archives) = (bench.small()?, bench.small_archives()?);
    let out = (&*memory.path().join("out"), None);
    let work = measure(bench, "unpack-tmpfs", corpus, archives, out, 1.9)?;
    Ok(Work { title: "restore all, many small files, tmpfs".into(), ..work })
}

/// Measures restores into a directory, on a disk that is made anew before each run if one is given.
fn measure(
    bench: &Bench,
    name: &str,
    corpus: &Corpus,
    archives: &Archives,
    (out, disk): (&Path, Option<&Disk>),
    wanted: f64,
) -> Result<Work> {
    let (here, into) = (archives.directory.display(), out.display());
    let entries = archives.directory.join("entries");
    let of = |name: &str, script: String, reads: &str| {
        let contender = Contender::new(name, script).into_fresh(out).on_new(disk).makes_bytes(0);
        contender.reads(&archives.directory.join(reads))
    };
    let ours = storecache("restore", out, &entries, KEY);
    let archive = format!("{here}/tar.zst");
    let mut contenders = vec![
        of(US, ours.clone(), "entries").after(|| install(out)),
        of(UNSYNCED, format!("{ours} --sync never"), "entries").after(|| install(out)),
        of(TAR, format!("zstd -dc {archive} | tar -x -C {into}"), "tar.zst"),
    ];
    if has("bsdtar") {
        contenders.push(of("bsdtar -x", format!("bsdtar -x -f {archive} -C {into}"), "tar.zst"));
    }
    if has("unsquashfs") {
        let script = format!("unsquashfs -no-progress -d {into}/nix {here}/image.squashfs");
        contenders.push(of("unsquashfs", script, "image.squashfs"));
    }
    if archives.directory.join("tree.caidx").exists() {
        let script =
            format!("casync extract --store={here}/chunks.castr {here}/tree.caidx {into}/nix");
        contenders.push(of("casync extract", script, "chunks.castr"));
    }
    let series = rounds(bench.rounds, &contenders)?;
    for series in &series {
        for sample in &series.samples {
            // Databases differ a little.
            let bytes = sample.bytes.unwrap_or(0);
            let all = bytes.abs_diff(corpus.bytes) <= corpus.bytes / 50 + 1_000_000;
            ensure!(all, "{} has made {bytes} bytes of {}", series.name, corpus.bytes);
        }
    }
    let figures = Figure::runs_against(TAR, Wanted::AtLeast(wanted));
    let about = corpus.about.clone();
    Ok(Work { name: name.to_owned(), title: String::new(), about, series, figures })
}
