//! Comparison of storecache with its peers. `scripts/bench` installs what it needs and starts it.
//!
//! ```text
//! scripts/bench [PART...] [--rounds N] [--write | --busy] [--list]
//! ```
//!
//! PART is a prefix of names: `unpack` selects all parts that begin with it. With `--write`, the results replace
//! those of the same parts in `docs/bench.json`, and update `docs/bench.svg` and the tables in `docs/benchmarks.md` and
//! the README.

#[path = "peers/mod.rs"]
mod peers;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Error, Result, bail};
use peers::record::Record;
use peers::{Bench, PARTS, Part, files, machine, plot, table};
use support::idle_machine;

/// The parsed command line.
struct Asked {
    parts: Vec<&'static Part>,
    rounds: usize,
    write: bool,
    busy: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match &words[..] {
        [first, rest @ ..] if first == files::OPTION => files::run(rest),
        _ => measure(words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(words: Vec<String>) -> Result<()> {
    let Some(asked) = asked(words.into_iter())? else {
        print!("{}", table::parts());
        return Ok(());
    };
    let started = Instant::now();
    let bench = Bench::new(asked.rounds)?;
    let mut record = Record { machine: machine(), rounds: asked.rounds, ..Record::default() };
    let mut failed = Vec::new();
    for part in asked.parts {
        println!("{}: {}", part.name, part.about);
        let idle = if asked.busy { Ok(()) } else { idle_machine::require() };
        match idle.map_err(Error::msg).and_then(|()| bench.run(part)) {
            Ok(work) => {
                println!("{}", table::text(&work));
                record.works.push(work);
            }
            // Continue, because other parts may have taken an hour.
            Err(error) => {
                eprintln!("bench: {error:#}");
                failed.push(part.name);
            }
        }
    }
    for work in &record.works {
        print!("{}", table::text(work));
    }
    println!("bench: {} s", started.elapsed().as_secs());
    if asked.write {
        write(record)?;
    }
    if !failed.is_empty() {
        bail!("not measured: {}", failed.join(", "));
    }
    Ok(())
}

/// Parses the command line. Returns `None` if it asks for the list.
fn asked(words: impl Iterator<Item = String>) -> Result<Option<Asked>> {
    let mut asked = Asked { parts: Vec::new(), rounds: 5, write: false, busy: false };
    let mut words = words;
    while let Some(word) = words.next() {
        match word.as_str() {
            "--list" => return Ok(None),
            "--write" => asked.write = true,
            "--busy" => asked.busy = true,
            "--rounds" => {
                let number = words.next().context("--rounds takes a number")?;
                asked.rounds = number.parse().context("--rounds takes a number")?;
            }
            // `cargo bench` adds this.
            "--bench" => {}
            flag if flag.starts_with('-') => bail!("unknown flag {flag}"),
            name => {
                let before = asked.parts.len();
                asked.parts.extend(PARTS.iter().filter(|part| part.name.starts_with(name)));
                if asked.parts.len() == before {
                    bail!("no part begins with {name}; there are\n{}", table::parts());
                }
            }
        }
    }
    if asked.write && asked.busy {
        bail!("--write records figures of an idle machine only: leave out --busy");
    }
    if asked.parts.is_empty() {
        asked.parts.extend(&PARTS);
    }
    Ok(Some(asked))
}

/// Replaces paths of this machine, which must not be published.
fn without_places(text: &str) -> String {
    let cache = support::fixture_cache::directory();
    let this = std::env::current_exe().unwrap_or_default();
    text.replace(env!("CARGO_BIN_EXE_storecache"), "storecache")
        .replace(&*this.to_string_lossy(), "bench")
        .replace(&*cache.to_string_lossy(), "$STORECACHE_TEST_CACHE")
}

/// Writes the results to the files in the work tree.
fn write(newer: Record) -> Result<()> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kept = top.join("docs/bench.json");
    let mut record = match fs::read_to_string(&kept) {
        Ok(text) => Record::parse(&text)?,
        Err(_) => Record::default(),
    };
    record.update(newer, &PARTS.map(|part| part.name));
    fs::create_dir_all(top.join("docs"))?;
    let plot = top.join("docs/bench.svg");
    fs::write(&kept, without_places(&serde_json::to_string_pretty(&record)?) + "\n")?;
    fs::write(&plot, plot::svg(&record))?;
    for (name, rows) in table::pages(&record) {
        let page = top.join(name);
        let text = table::in_page(&fs::read_to_string(&page)?, &rows).context(name)?;
        fs::write(page, text)?;
    }
    // The bench runs as root, and the work tree may belong to another user.
    let owner = fs::metadata(top.join("README.md"))?;
    for path in [top.join("docs"), kept, plot] {
        chown(path, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}
