//! Memory use of a save and a restore of a large store.
//!
//! ```text
//! sudo --preserve-env=PATH,TMPDIR cargo bench --bench memory [-- GIGABYTES]
//! ```
//!
//! Uses 2,000 plain directories, with 10 GB in 200,000 files by default, which compress to about a quarter. This
//! takes one and a half times that size on the disk of `TMPDIR`, and twice the compressed size in memory, because the
//! cache service is the one of the tests. Prints the peak of each process, which the kernel records as `VmHWM`, and
//! their sum. The peaks need not have occurred at the same time.

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::process::Command;

use support::cache_service::{CacheService, TOKEN};
use support::plain_env::{self, PlainEnv};
use support::resource_usage::{memory, run_measured};
use support::world_runs::report;

const DIRECTORIES: u64 = 2000;
const FILES: u64 = 100;
const MIB: u64 = 1 << 20;

fn main() {
    let asked = std::env::args().skip(1).find_map(|word| word.parse::<f64>().ok());
    let bytes = (asked.unwrap_or(10.0) * 1e9) as u64;
    let place = PlainEnv::new();
    fill(&place, bytes);
    println!("{:.1} GB; peaks in MiB", bytes as f64 / 1e9);
    println!("backend   threads  memory  verb     user process  root helper  both  seconds");
    let service = CacheService::start();
    for (threads, given) in [(2, 0), (16, 0), (2, 128)] {
        for (backend, at) in [("directory", None), ("service", Some(&service))] {
            for verb in ["save", "restore"] {
                go(&place, backend, at, threads, given, verb);
            }
            // Delete the entries: they are not needed any more, and the disk cannot hold all of them.
            fs::read_dir(place.entries()).unwrap().for_each(|file| {
                fs::remove_file(file.unwrap().path()).unwrap();
            });
            service.keys().iter().for_each(|key| service.evict(key));
        }
    }
}

fn go(
    place: &PlainEnv,
    backend: &str,
    service: Option<&CacheService>,
    threads: u32,
    given: u64,
    verb: &str,
) {
    let mut command = Command::new(plain_env::binary());
    command.args([verb, "--store", "plain", "--key", "k", "--json", "--quiet", "--root"]);
    command.arg(place.root()).arg(format!("--threads={threads}"));
    if given > 0 {
        command.arg(format!("--memory={given}M"));
    }
    command.args((0..DIRECTORIES).flat_map(|n| ["--path".into(), directory(n)]));
    match service {
        None => command.arg(format!("--backend=dir:{}", place.entries().display())),
        Some(service) => command
            .arg("--backend=github")
            .env("ACTIONS_RESULTS_URL", service.url())
            .env("ACTIONS_RUNTIME_TOKEN", TOKEN)
            .env("ACTIONS_CACHE_SERVICE_V2", "True")
            .env("GITHUB_SERVER_URL", "https://github.com"),
    };
    if verb == "restore" {
        place.remove("/data");
    }
    let (output, takings) = run_measured(&mut command);
    let report = report(&output.ok());
    let peaks: Vec<u64> = takings.iter().map(|taken| taken.memory / MIB).collect();
    println!(
        "{backend:9} {threads:7}  {:>6}  {verb:8} {:12}  {:11}  {:4}  {:7.1}",
        if given > 0 { format!("{given}M") } else { String::new() },
        peaks.first().unwrap(),
        peaks[1..].iter().sum::<u64>(),
        memory(&takings) / MIB,
        report["seconds"]["total"].as_f64().unwrap(),
    );
}

fn directory(number: u64) -> String {
    format!("/data/{number:04}")
}

/// Creates files of random words, most of them some KiB long, some of them some MiB.
fn fill(place: &PlainEnv, bytes: u64) {
    let mut state = 1u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words: Vec<[u8; 8]> =
        (0..4096).map(|_| random().to_le_bytes().map(|byte| b'a' + byte % 26)).collect();
    // One file in a hundred is as large as all others together.
    let average = bytes / DIRECTORIES / FILES;
    for number in 0..DIRECTORIES {
        let top = place.host(&directory(number));
        for file in 0..FILES {
            let size =
                if file == 0 { average * FILES / 2 } else { average * FILES / 2 / (FILES - 1) };
            let below = top.join(format!("part-{}", file / 10));
            fs::create_dir_all(&below).unwrap();
            let out = File::create(below.join(format!("file-{file}"))).unwrap();
            let mut out = BufWriter::with_capacity(1 << 20, out);
            for _ in 0..size / 8 {
                out.write_all(&words[(random() >> 20) as usize % words.len()]).unwrap();
            }
        }
    }
}
