//! Whole saves into a directory, compared with other programs that pack, all at level 3 of zstd.

use anyhow::Result;

use super::corpus::Corpus;
use super::ours::{KEY, storecache};
use super::record::{Figure, Quantity, Wanted, Work};
use super::rounds::{Contender, rounds};
use super::shell::has;
use super::{Bench, UNSYNCED, US};

const TAR: &str = "tar | zstd -3 -T0";

pub fn small(bench: &Bench) -> Result<Work> {
    let work = measure(bench, "pack-small", bench.small()?, true)?;
    Ok(Work { title: "save all, many small files".into(), ..work })
}

pub fn big(bench: &Bench) -> Result<Work> {
    let work = measure(bench, "pack-big", bench.big()?, false)?;
    Ok(Work { title: "save all, few big files".into(), ..work })
}

/// Measures saves of a corpus. casync splits everything into chunks, which takes minutes, so it runs for one corpus
/// only, if `chunks` is set.
fn measure(bench: &Bench, name: &str, corpus: &Corpus, chunks: bool) -> Result<Work> {
    let out = bench.ground.directory("out")?;
    let (root, into) = (corpus.root.display(), out.display());
    let of = |name: &str, script: String| {
        Contender::new(name, script).into_fresh(&out).makes_bytes(0).reads(&corpus.root)
    };
    let ours = format!("{} --full --level 3", storecache("save", &corpus.root, &out, KEY));
    let mut contenders = vec![
        of(US, ours.clone()),
        of(UNSYNCED, format!("{ours} --sync never")),
        of(TAR, format!("tar -c -C {root} nix | zstd -3 -T0 -q -o {into}/tar.zst")),
    ];
    if has("bsdtar") {
        let options = "--zstd --options zstd:compression-level=3";
        let script = format!("bsdtar -c {options} -f {into}/tar.zst -C {root} nix");
        contenders.push(of("bsdtar --zstd", script));
    }
    if has("mksquashfs") {
        let options = "-comp zstd -Xcompression-level 3 -no-progress";
        let script = format!("mksquashfs {root}/nix {into}/image.squashfs {options}");
        contenders.push(of("mksquashfs", script));
    }
    if chunks && has("casync") {
        let to = format!("--store={into}/chunks.castr {into}/tree.caidx");
        let script = format!("casync make --compression=zstd {to} {root}/nix");
        contenders.push(of("casync make", script));
    }
    let series = rounds(bench.rounds, &contenders)?;
    let mut figures = Figure::runs_against(TAR, Wanted::AtLeast(1.25));
    figures.push(Figure::ours_against(TAR, Quantity::Bytes, Wanted::Within(0.02)));
    let about = corpus.about.clone();
    Ok(Work { name: name.to_owned(), title: String::new(), about, series, figures })
}
