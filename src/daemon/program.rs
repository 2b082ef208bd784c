//! The program of a daemon: the file that it runs, and the file that a start would run.
//!
//! They differ once a package manager was upgraded under a daemon that nobody restarted.

use super::procfs;
use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use std::ffi::OsString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the kernel adds to the name of a file that was removed or replaced.
const DELETED: &[u8] = b" (deleted)";
const ELF: &[u8; 4] = b"\x7fELF";

/// A daemon whose file on disk is no longer the one that it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    pub pid: u32,
    /// What a start would run.
    pub file: PathBuf,
}

impl fmt::Display for Replaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the daemon, process {}, was started from an older file than {} is now",
            self.pid,
            self.file.display()
        )
    }
}

/// The file to run so that a process is there again.
pub struct Program {
    /// As the process itself would name it.
    pub path: PathBuf,
    /// Whether it is another file than the one that runs.
    pub replaced: bool,
}

impl Program {
    /// Of a process that is started by its own first argument: the name that it was started by, so
    /// that it is called the same again, or else the path that the kernel knows.
    ///
    /// # Errors
    /// When no program is there any more: then the process must not be stopped, since it could not
    /// be started again.
    pub fn of(pid: u32) -> Result<Self> {
        let disk = Disk::of(pid)?;
        let arguments = procfs::words(pid, "cmdline")?;
        let environment = procfs::environment(pid)?;
        let named = named(&arguments, &environment);
        let runs = |path: &PathBuf| disk.is_running(path);
        let is_program = |path: &PathBuf| disk.look(path).is_some();
        // A script may have become the running program; a program that it is not is a newer one.
        let is_newer = |path: &PathBuf| disk.look(path).is_some_and(|found| found.is_elf);
        let same = |path: &PathBuf| Program { path: path.clone(), replaced: false };
        let other = |path: &PathBuf| Program { path: path.clone(), replaced: true };
        let kernel = [disk.known.clone()];
        let found = named.iter().find(|path| runs(path)).map(same);
        let found = found.or_else(|| named.iter().find(|path| is_newer(path)).map(other));
        let found = found.or_else(|| kernel.iter().find(|path| runs(path)).map(same));
        let rest = || named.iter().chain(&kernel).find(|path| is_program(path)).map(other);
        found.or_else(rest).with_context(|| {
            format!(
                "process {pid} runs {}, which is not on disk any more, so that it could not be \
                 started again; restart it yourself and try again",
                disk.known.display()
            )
        })
    }

    /// Of a process that a service manager starts from the file `path`.
    ///
    /// # Errors
    /// When nothing is there any more.
    pub fn of_service(pid: u32, path: &Path) -> Result<Self> {
        let disk = Disk::of(pid)?;
        let Some(found) = disk.look(path) else {
            bail!(
                "the daemon is started from {}, which is not on disk any more, so that it could \
                 not be started again; install it again and try again",
                path.display()
            );
        };
        // Where the file is a script, the running program is what that came to.
        let replaced = match found.is_elf {
            true => !disk.is_running(path),
            false => !disk.is_running(&disk.known),
        };
        Ok(Program { path: path.to_owned(), replaced })
    }

    pub fn report(self, pid: u32) -> Option<Replaced> {
        self.replaced.then_some(Replaced { pid, file: self.path })
    }
}

/// The absolute paths that the first argument may stand for.
fn named(arguments: &[OsString], environment: &[(OsString, OsString)]) -> Vec<PathBuf> {
    let name = arguments.first().map(Path::new).filter(|name| !name.as_os_str().is_empty());
    let search = environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value);
    let paths: Vec<PathBuf> = match name {
        Some(name) if name.is_absolute() => vec![name.to_owned()],
        Some(name) if name.components().count() == 1 => {
            let directories = search.map(std::env::split_paths).into_iter().flatten();
            directories.map(|directory| directory.join(name)).collect()
        }
        _ => Vec::new(),
    };
    paths.into_iter().filter(|path| path.is_absolute()).collect()
}

/// The file system as a process sees it, and what it runs of that.
struct Disk {
    root: OwnedFd,
    running: (u64, u64),
    /// Where its program is or was, as the kernel knows it.
    known: PathBuf,
}

struct Found {
    identity: (u64, u64),
    is_elf: bool,
}

impl Disk {
    fn of(pid: u32) -> Result<Self> {
        let root = procfs::open_link(pid, "root", OFlags::PATH | OFlags::DIRECTORY)?;
        let exe = procfs::directory(pid).join("exe");
        let about = || format!("look at the program of the daemon, process {pid}");
        let running = std::fs::metadata(&exe).with_context(about)?;
        let known = std::fs::read_link(&exe).with_context(about)?.into_os_string().into_vec();
        let known = known.strip_suffix(DELETED).unwrap_or(&known).to_vec();
        Ok(Disk {
            root,
            running: (running.dev(), running.ino()),
            known: OsString::from_vec(known).into(),
        })
    }

    /// Looks at what the process would find, links leading to where they lead in its own root;
    /// nothing when that is no program.
    fn look(&self, path: &Path) -> Option<Found> {
        let below = path.strip_prefix("/").unwrap_or(path);
        // Without waiting for the other end of a fifo.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat2(&self.root, below, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
        let status = fstat(&file).ok()?;
        let is_file = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile;
        if !is_file || status.st_mode & 0o111 == 0 {
            return None;
        }
        let mut magic = [0; ELF.len()];
        let is_elf = rustix::io::read(&file, &mut magic).is_ok_and(|n| magic[..n] == ELF[..]);
        Some(Found { identity: (status.st_dev, status.st_ino), is_elf })
    }

    fn is_running(&self, path: &Path) -> bool {
        self.look(path).is_some_and(|found| found.identity == self.running)
    }
}
