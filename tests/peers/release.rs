//! Tests of the released program itself, which `scripts/build-release` has built; `scripts/test` runs that
//! first. Tests that need a second build only run on request:
//!
//! - `STORECACHE_TEST_REPRODUCE=1`: another build elsewhere has the same bytes (a build).
//! - `STORECACHE_TEST_AARCH64=1`: the program for aarch64, built by Debian's compiler and run by qemu (a build
//!   and 1.7 GB).

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::Output;
use crate::support::plain_env::output;
use crate::support::{fixture_cache, programs};

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn script(name: &str) -> Command {
    Command::new(source("scripts").join(name))
}

fn files() -> PathBuf {
    env::var_os("STORECACHE_RELEASE_FILES")
        .map_or_else(|| source("target/release-files"), PathBuf::from)
}

/// Returns the program for this machine.
#[track_caller]
fn program() -> PathBuf {
    let file = files().join(format!("storecache-{}-unknown-linux-gnu", env::consts::ARCH));
    assert!(file.exists(), "{} is not there: run ./scripts/build-release first", file.display());
    file
}

fn run_check_release(file: &Path) -> Output {
    output(script("check-release").arg(file))
}

fn is_enabled(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0")
}

#[test]
fn release_is_small_and_runs_with_glibc_2_28() {
    let printed = run_check_release(&program()).ok();
    assert!(printed.stdout.contains("saves and restores in Debian 11"), "{printed}");
    assert!(
        printed.stdout.contains("inspects a snapshot, which zstd and tar can read too"),
        "{printed}"
    );
    // Check the same with objdump: no other library is needed, and no symbol is newer.
    let dump = output(Command::new("objdump").arg("-p").arg(program())).ok().stdout;
    let needed = dump.lines().filter_map(|line| line.trim().strip_prefix("NEEDED"));
    let needed: Vec<&str> = needed.map(str::trim).collect();
    assert!(needed.contains(&"libc.so.6"), "{needed:?}");
    assert!(!needed.iter().any(|name| name.contains("gcc") || name.contains("stdc++")));
    let versions = dump.split_whitespace().filter_map(|word| word.strip_prefix("GLIBC_2."));
    let newest = versions.map(|minor| minor.split('.').next().unwrap().parse::<u32>().unwrap());
    let newest = newest.max().unwrap();
    assert!(newest <= 28, "{newest}");
}

#[test]
fn check_release_rejects_unportable_programs() {
    let kept = tempfile::tempdir().unwrap();
    let at = |name: &str| kept.path().join(name);
    let compile = |words: &[&str]| {
        output(Command::new("cc").current_dir(kept.path()).args(words)).ok();
    };
    fs::write(at("main.c"), "int other(void); int main(void) { return other(); }\n").unwrap();
    fs::write(at("other.c"), "int other(void) { return 0; }\n").unwrap();
    compile(&["-shared", "-fPIC", "other.c", "-o", "libother.so"]);
    compile(&["main.c", "-L.", "-lother", "-o", "needing"]);
    compile(&["-static", "main.c", "other.c", "-o", "static"]);
    compile(&["main.c", "other.c", "-o", "newer"]);
    fs::copy(program(), at("large")).unwrap();
    fs::File::options().append(true).open(at("large")).unwrap().set_len(16_000_000).unwrap();
    for (name, why) in [
        ("needing", "needs libother.so, which does not belong to glibc"),
        ("static", "is not linked to glibc at all"),
        ("newer", "but must run with glibc 2.28"),
        ("large", "has 16000000 bytes, which is not under 16 MB"),
    ] {
        let printed = run_check_release(&at(name));
        assert_eq!(printed.code(), 1, "{name}: {printed}");
        assert!(printed.stderr.contains(why), "{name}: {printed}");
    }
}

#[test]
fn build_release_fails_for_a_target_without_its_library() {
    let kept = tempfile::tempdir().unwrap();
    let bin = kept.path().join("bin");
    fs::create_dir(&bin).unwrap();
    // A compiler without a library for any target; nothing must be compiled.
    let rustc = bin.join("rustc");
    programs::write(
        &rustc,
        "#!/bin/sh\ncase \"$*\" in *libdir*) echo /nowhere ;; *) echo rustc 0 ;; esac\n",
    );
    programs::write(&bin.join("cargo"), "#!/bin/sh\necho called; exit 0\n");
    let path = format!("{}:{}", bin.display(), env::var("PATH").unwrap());
    let files = kept.path().join("files");
    let build = |architectures: &[&str]| {
        let mut command = script("build-release");
        command.args(architectures).env("PATH", &path).env("RUSTC", &rustc);
        output(command.env("STORECACHE_RELEASE_FILES", &files))
    };
    for architectures in [["x86_64", "aarch64"].as_slice(), &["aarch64"], &[]] {
        let printed = build(architectures);
        assert_eq!(printed.code(), 1, "{printed}");
        let line = "Rust 0 has no library for";
        assert!(printed.stderr.contains(line), "{printed}");
        assert!(printed.stderr.contains("nothing was built"), "{printed}");
        assert!(!printed.stdout.contains("called"), "{printed}");
        assert!(!files.exists());
    }
    let printed = build(&["riscv64"]);
    assert!(printed.stderr.contains("no release for riscv64: x86_64 or aarch64"), "{printed}");
    assert_eq!(printed.code(), 1);
}

#[test]
fn release_build_is_reproducible() {
    if !is_enabled("STORECACHE_TEST_REPRODUCE") {
        return;
    }
    program();
    let output = output(&mut script("reproduce")).ok();
    assert!(output.stdout.contains("has the same bytes in both builds"), "{output}");
}

#[test]
fn aarch64_release_runs_in_qemu() {
    if !is_enabled("STORECACHE_TEST_AARCH64") {
        return;
    }
    output(script("roots").arg("roots/rust")).ok();
    let root = fixture_cache::directory().join("roots/rust");
    let kept = tempfile::tempdir().unwrap();
    // Keep builds by this compiler apart from releases.
    let mut build = script("build-release");
    build.arg("aarch64").env("RUSTC", root.join("rustc"));
    build.env("CARGO_TARGET_DIR", source("target/debian"));
    output(build.env("STORECACHE_RELEASE_FILES", kept.path())).ok();
    let file = kept.path().join("storecache-aarch64-unknown-linux-gnu");
    let usr = root.join("usr");
    let qemu = format!("{} -L {}", usr.join("bin/qemu-aarch64").display(), usr.display());
    let printed = output(script("check-release").arg(&file).env("QEMU", qemu)).ok();
    assert!(printed.stdout.contains("runs for AArch64"), "{printed}");
    let refused = run_check_release(&file);
    assert!(
        refused.stderr.contains("is for AArch64, and this machine has another processor"),
        "{refused}"
    );
}
