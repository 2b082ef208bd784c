//! Incremental work: a restore onto a store that has most of the items, and a save of new items.

use std::fmt::Write;
use std::fs;

use anyhow::Result;

use super::ours::{KEY, install, save_some, storecache};
use super::record::{Figure, Quantity, Wanted, Work};
use super::rounds::{Contender, bytes_below, rounds};
use super::shell::{has, sh};
use super::{Bench, US};

const ALL: &str = "storecache, all of it";

/// Measures a restore if 90 % of the items, by number and by size, are present and valid.
pub fn partial(bench: &Bench) -> Result<Work> {
    let corpus = bench.small()?;
    let (gone, present) = corpus.split(10);
    let entries = bench.ground.directory("partial")?;
    let disk = bench.ground.disk(corpus.bytes)?;
    let out = disk.out();
    save_some(&corpus.root, &entries, "most", &present)?;
    sh(&storecache("save", &corpus.root, &entries, KEY))?;
    let script = storecache("restore", &out, &entries, KEY);
    let of = |name| {
        let contender = Contender::new(name, &script).into_fresh(&out).on_new(Some(&disk));
        contender.reads(&entries).tells_bytes()
    };
    let contenders = [
        of(US).after(|| {
            install(&out)?;
            sh(&storecache("restore", &out, &entries, "most")).map(drop)
        }),
        of(ALL).after(|| install(&out)),
    ];
    let series = rounds(bench.rounds, &contenders)?;
    fs::remove_dir_all(&entries)?;
    Ok(Work {
        name: "partial".into(),
        title: "restore, 90 % present".into(),
        about: format!("{}; {} items are missing", corpus.about, gone.len() + 1),
        series,
        figures: vec![
            Figure::ours_against(ALL, Quantity::Seconds, Wanted::AtLeast(8.0)),
            Figure::ours_against(ALL, Quantity::Bytes, Wanted::Nothing),
        ],
    })
}

/// Measures a save if 3 % of the items are new since the last snapshot. Each peer has its own snapshot of the same
/// state, and sees the old files unchanged, with the same inodes.
pub fn delta(bench: &Bench) -> Result<Work> {
    let corpus = bench.small()?;
    let (new, old) = corpus.split(33);
    let (base, out) = (bench.ground.directory("base")?, bench.ground.directory("out")?);
    let (root, into) = (corpus.root.display(), out.display());
    save_some(&corpus.root, &base.join("entries"), KEY, &old)?;
    let mut excluded = String::new();
    for item in new.iter().copied().chain([corpus.top.as_str()]) {
        writeln!(excluded, "{root}/nix/store/{item}")?;
    }
    fs::write(base.join("excluded"), excluded)?;

    // The existing snapshot is copied as hard links, so it has the same inodes in each run, and is never written to.
    let of = |name: &str, script: String, there: &str| -> Result<Contender> {
        let there = base.join(there);
        let copy = format!("cp -al {}/. {into}", there.display());
        let contender = Contender::new(name, script).into_fresh(&out).reads(&corpus.root);
        let contender = contender.makes_bytes(bytes_below(&there)?);
        Ok(contender.after(move || sh(&copy).map(drop)))
    };
    let ours = storecache("save", &corpus.root, &out, KEY);
    let mut contenders =
        vec![of(US, ours.clone(), "entries")?, of(ALL, format!("{ours} --full"), "entries")?];
    if has("restic") {
        let with = format!(
            "RESTIC_PASSWORD=bench restic --quiet --cache-dir {}/restic-cache --repo",
            base.display()
        );
        let here = base.display();
        let backup = format!("backup {root}/nix/store");
        sh(&format!(
            "{with} {here}/restic init && {with} {here}/restic {backup} --exclude-file {here}/excluded"
        ))?;
        contenders.push(of("restic backup", format!("{with} {into} {backup}"), "restic")?);
    }
    if has("casync") {
        let make = |to: &str, name: &str| {
            let store = corpus.store();
            let to = format!("--store={to}/chunks.castr {to}/{name}.caidx {}", store.display());
            format!("casync make --compression=zstd {to}")
        };
        let here = base.join("casync");
        fs::create_dir_all(&here)?;
        let hidden = corpus.store().join(".caexclude");
        let names: Vec<_> = new.iter().copied().chain([corpus.top.as_str()]).collect();
        fs::write(&hidden, names.join("\n"))?;
        let made = sh(&make(&here.display().to_string(), "old"));
        fs::remove_file(hidden)?;
        made?;
        contenders.push(of("casync make", make(&into.to_string(), "new"), "casync")?);
    }
    let series = rounds(bench.rounds, &contenders)?;
    fs::remove_dir_all(&base)?;
    Ok(Work {
        name: "delta".into(),
        title: "save, 3 % of the items new".into(),
        about: format!("{}; {} of them are new", corpus.about, new.len() + 1),
        series,
        figures: vec![
            Figure::ours_against(ALL, Quantity::Seconds, Wanted::AtLeast(10.0)),
            Figure::ours_against(ALL, Quantity::Bytes, Wanted::AtLeast(10.0)),
            Figure::ours_against("restic backup", Quantity::Seconds, Wanted::Nothing),
            Figure::ours_against("restic backup", Quantity::Bytes, Wanted::Nothing),
        ],
    })
}
