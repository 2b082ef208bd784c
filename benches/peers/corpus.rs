//! The stores that are packed and unpacked: Nix stores made from Debian packages, once, and kept in `bench/` below
//! the cache directory of `scripts/roots`.
//!
//! A package becomes an item. A package with many files is split into items of [`CUT`] files, so that the ratio of
//! items to files is that of typical stores. Nix itself registers the items, and sets their modes and times as in any
//! store. One more item refers to all others.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use super::shell::sh;
use crate::support::{Role, World, fixture_cache};

/// Maximum number of files of an item.
const CUT: usize = 100;

/// Version of the procedure, for the stamp. A store with another stamp is made again.
const RECIPE: &str = "1";

const SMALL: [&str; 41] = [
    "ansible-core",
    "cmake-data",
    "coreutils",
    "elixir",
    "emacs-common",
    "erlang-base",
    "fonts-noto-core",
    "gimp-data",
    "git",
    "golang-1.19-src",
    "libboost1.74-dev",
    "libc6-dev",
    "libglib2.0-dev",
    "libgtk-3-dev",
    "libpython3.11-stdlib",
    "libruby3.1",
    "libssl-dev",
    "libstdc++-12-dev",
    "locales",
    "manpages-dev",
    "mercurial-common",
    "meson",
    "node-typescript",
    "npm",
    "octave-common",
    "perl-modules-5.36",
    "postgresql-15",
    "python3-django",
    "python3-numpy",
    "python3-pip",
    "python3-scipy",
    "python3-sphinx",
    "python3-sympy",
    "qt6-base-dev",
    "qtbase5-dev",
    "r-base-core",
    "subversion",
    "texlive-base",
    "texlive-latex-base",
    "tzdata",
    "vim-runtime",
];

const BIG: [&str; 9] = [
    "chromium",
    "cpp-12",
    "firefox-esr",
    "libclang-cpp14",
    "libllvm15",
    "libqt5webenginecore5",
    "libreoffice-core",
    "libwebkit2gtk-4.1-0",
    "qemu-system-x86",
];

/// A Nix store on the disk.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// The directory that contains `nix/store` and `nix/var/nix`, as for `--root`.
    pub root: PathBuf,
    /// A description: numbers of items, files and bytes.
    pub about: String,
    /// Names of all items except the one that refers to all others, largest first.
    pub items: Vec<String>,
    /// The item that refers to all others.
    pub top: String,
    /// Sizes of all files, in bytes.
    pub bytes: u64,
}

impl Corpus {
    /// Returns a store of many small files.
    ///
    /// # Errors
    /// If apt has none of the packages, or Nix does not accept them.
    pub fn small() -> Result<Corpus> {
        made_of_packages("small", &SMALL)
    }

    /// Returns a store of few big files.
    ///
    /// # Errors
    /// As for [`Corpus::small`].
    pub fn big() -> Result<Corpus> {
        made_of_packages("big", &BIG)
    }

    /// Makes a store below `root` from the directories in `trees`, which are moved there.
    ///
    /// # Errors
    /// If Nix does not accept them.
    pub fn of_trees(root: &Path, trees: &Path) -> Result<Corpus> {
        let world = World::new(Role::New);
        let store = world.host("/nix/store");
        fs::create_dir_all(&store)?;
        let mut names = Vec::new();
        for tree in listed(trees)? {
            let name = item_name(&file_name(&tree));
            sh(&format!("mv {} {}", tree.display(), store.join(&name).display()))?;
            names.push(name);
        }
        ensure!(!names.is_empty(), "there are no packages for a store");
        let top = item_name("top");
        let paths: Vec<String> = names.iter().map(|name| format!("/nix/store/{name}")).collect();
        fs::write(store.join(&top), paths.join("\n"))?;
        // Path, no deriver, number of references, references; source: `nix-store --register-validity`.
        let mut rows: String = paths.iter().map(|path| format!("{path}\n\n0\n")).collect();
        rows += &format!("/nix/store/{top}\n\n{}\n{}\n", paths.len(), paths.join("\n"));
        let register = ["nix-store", "--register-validity", "--reregister"];
        world.command(register).input(rows).timeout(Duration::from_secs(600)).ok();
        world.wait_until_idle();
        fs::create_dir_all(root)?;
        sh(&format!("cp -a {} {}/nix", world.host("/nix").display(), root.display()))?;
        // Space that Nix reserves for a full disk. Nix creates the file again, so it need not be copied.
        let _ = fs::remove_file(root.join("nix/var/nix/db/reserved"));
        Corpus::open(root)
    }

    fn open(root: &Path) -> Result<Corpus> {
        let store = root.join("nix/store");
        let top = item_name("top");
        let mut sizes = Vec::new();
        let (mut files, mut bytes) = (0, 0);
        for item in listed(&store)? {
            let name = file_name(&item);
            if name.starts_with('.') {
                continue;
            }
            let mine = files_below(&item)?;
            let size: u64 = mine.iter().map(|(_, size)| size).sum();
            (files, bytes) = (files + mine.len(), bytes + size);
            if name != top {
                sizes.push((std::cmp::Reverse(size), name));
            }
        }
        sizes.sort();
        let items: Vec<String> = sizes.into_iter().map(|(_, name)| name).collect();
        let megabytes = bytes / 1_000_000;
        let about = format!("{} items, {files} files, {megabytes} MB", items.len() + 1);
        Ok(Corpus { root: root.to_owned(), about, items, top, bytes })
    }

    /// Returns the directory of the items.
    pub fn store(&self) -> PathBuf {
        self.root.join("nix/store")
    }

    /// Returns one of every `nth` items in order of size, so that their part of the size is about their part of the
    /// number, and all other items, without the one that refers to all.
    pub fn split(&self, nth: usize) -> (Vec<&str>, Vec<&str>) {
        let numbered = self.items.iter().map(String::as_str).enumerate();
        let (some, rest): (Vec<_>, Vec<_>) =
            numbered.partition(|(number, _)| number % nth == nth / 2);
        let names = |list: Vec<(usize, _)>| list.into_iter().map(|(_, name)| name).collect();
        (names(some), names(rest))
    }
}

/// Returns the directory in which corpora and packages are kept.
fn shelf() -> PathBuf {
    fixture_cache::directory().join("bench")
}

fn made_of_packages(name: &str, packages: &[&str]) -> Result<Corpus> {
    let root = shelf().join(name);
    let stamp = root.join("stamp");
    let recipe = format!("{RECIPE} {CUT} {}", packages.join(" "));
    if fs::read_to_string(&stamp).is_ok_and(|text| text == recipe) {
        return Corpus::open(&root);
    }
    check_tools()?;
    println!("bench: makes the store \"{name}\" of {} Debian packages", packages.len());
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    let trees = shelf().join(format!("{name}.trees"));
    if trees.exists() {
        fs::remove_dir_all(&trees)?;
    }
    fs::create_dir_all(&trees)?;
    let mut gone = Vec::new();
    for package in packages {
        match fetched(package)? {
            Some(file) => unpack(&file, package, &trees)?,
            None => gone.push(*package),
        }
    }
    if !gone.is_empty() {
        println!("bench: apt has no more {}; continues without", gone.join(", "));
    }
    ensure!(gone.len() < packages.len(), "apt does not have any of the packages");
    let corpus = Corpus::of_trees(&root, &trees)?;
    fs::remove_dir_all(&trees)?;
    fs::write(stamp, recipe)?;
    Ok(corpus)
}

/// Returns the file of a package, which is downloaded once, or `None` if there is no such package any more.
fn fetched(package: &str) -> Result<Option<PathBuf>> {
    let directory = shelf().join("debs");
    fs::create_dir_all(&directory)?;
    let here = || -> Result<Option<PathBuf>> {
        let prefix = format!("{package}_");
        Ok(listed(&directory)?.into_iter().find(|path| file_name(path).starts_with(&prefix)))
    };
    if here()?.is_none() {
        // As root, because apt's own user may not write here.
        let get = "apt-get download -q -o APT::Sandbox::User=root";
        if let Err(error) = sh(&format!("cd {} && {get} {package}", directory.display())) {
            println!("bench: {error:#}");
        }
    }
    here()
}

/// Makes items from a package, in `trees`.
fn unpack(file: &Path, package: &str, trees: &Path) -> Result<()> {
    let whole = trees.join(package);
    sh(&format!("dpkg-deb -x '{}' {}", file.display(), whole.display()))?;
    let files = files_below(&whole)?;
    if files.len() <= CUT {
        return Ok(());
    }
    for (number, files) in files.chunks(CUT).enumerate() {
        let item = trees.join(format!("{package}-{number}"));
        for (path, _) in files {
            let below = path.strip_prefix(&whole)?;
            let target = item.join(below);
            fs::create_dir_all(target.parent().context("a file has a parent")?)?;
            if fs::symlink_metadata(path)?.nlink() > 1 {
                // Copy the file, because items must not share files here.
                fs::copy(path, target)?;
            } else {
                fs::rename(path, target)?;
            }
        }
    }
    Ok(fs::remove_dir_all(whole)?)
}

/// Returns the files and links below a directory, in order, with their sizes.
fn files_below(top: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let metadata = fs::symlink_metadata(top)?;
    if !metadata.is_dir() {
        let size = if metadata.is_file() { metadata.len() } else { 0 };
        return Ok(vec![(top.to_owned(), size)]);
    }
    let mut found = Vec::new();
    for path in listed(top)? {
        found.extend(files_below(&path)?);
    }
    Ok(found)
}

fn listed(directory: &Path) -> Result<BTreeSet<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns a name as Nix makes them, with a hash of the name instead of the content.
fn item_name(name: &str) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
    let hash = Sha256::digest(name);
    let digits: String = hash.iter().map(|byte| DIGITS[usize::from(*byte) % 32] as char).collect();
    format!("{digits}-{}", name.replace("~", "-"))
}

/// Checks that the programs that make corpora are installed.
///
/// # Errors
/// Names the first missing program.
fn check_tools() -> Result<()> {
    for tool in ["apt-get", "dpkg-deb"] {
        if sh(&format!("command -v {tool}")).is_err() {
            bail!("corpora are made of Debian packages, and this machine has no {tool}");
        }
    }
    Ok(())
}
