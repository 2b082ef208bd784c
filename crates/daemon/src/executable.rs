//! The executable of a daemon: the file that it runs, held open, and whether this is still the file on the
//! disk.
//!
//! They differ if a package manager was upgraded and its daemon was not restarted.

use super::procfs;
use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2, statat};
use std::ffi::{CString, OsString};
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use storecache_programs::Exec;
use storecache_runtime::disclosure;
use storecache_runtime::path_audit::Suspects;

/// The suffix that the kernel adds to the name of a file that was removed or replaced.
const DELETED: &[u8] = b" (deleted)";
const ELF: &[u8; 4] = b"\x7fELF";

/// A daemon whose file on disk is no longer the one that it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    pub pid: u32,
    /// The file on the disk now, or the path that it had.
    pub file: PathBuf,
    /// Whether a start by storecache runs the old program again.
    pub old_runs_again: bool,
}

impl fmt::Display for Replaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pid, file) = (self.pid, disclosure::program(self.pid, &self.file));
        write!(
            f,
            "the program of the daemon, process {pid}, was replaced on disk since it started: {file}"
        )?;
        match self.old_runs_again {
            true => f.write_str("; a restore starts the old program again, so restart the daemon"),
            false => f.write_str("; the new one runs from now on"),
        }
    }
}

/// The file that a process runs, held open, so that a start runs this very file, whatever file has its path by
/// then.
#[derive(Debug, Clone)]
pub struct Executable {
    /// The current or former path of the file, as the process itself would name it.
    pub path: PathBuf,
    file: Arc<OwnedFd>,
    identity: (u64, u64),
    /// A directory and name that still lead to the file.
    place: Option<DirectoryEntry>,
}

/// An open directory, and the name of a file in it.
#[derive(Debug, Clone)]
struct DirectoryEntry {
    directory: Arc<OwnedFd>,
    name: OsString,
}

impl Executable {
    /// Opens the file that `pid` runs, which is to be started as `uid`.
    ///
    /// # Errors
    /// If users other than root and `uid` can write to the file, or to a directory on the way to it.
    pub fn open(pid: u32, uid: u32) -> Result<Self> {
        let about = || format!("examine the program of the daemon, process {pid}");
        let disk = Disk::open(pid)?;
        let file = procfs::open_link(pid, "exe", OFlags::PATH)?;
        let at = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let found = std::fs::metadata(&at).with_context(about)?;
        let identity = (found.dev(), found.ino());
        let others = Suspects::EverybodyBut(uid);
        let by_file = others.can_write(&at, &disk.known, &found)?;
        let reason = match by_file {
            Some(reason) => Some(reason),
            None => disk.swappable(&others).with_context(about)?,
        };
        if let Some(reason) = reason {
            bail!(
                "the daemon, {}, is not stopped, because starting its program again is not safe: \
                 {reason}; let only root write there, and try again",
                procfs::describe(pid)
            );
        }
        let named = match disk.is_ours {
            true => named_safely(pid, &others, identity)?,
            false => None,
        };
        let place = named.or_else(|| disk.place_of(identity));
        Ok(Executable { path: disk.known, file: Arc::new(file), identity, place })
    }

    /// Opens the file that `pid` runs, without checking who could have written it.
    ///
    /// # Errors
    /// If the process cannot be examined.
    pub fn look(pid: u32) -> Result<Self> {
        let disk = Disk::open(pid)?;
        let file = procfs::open_link(pid, "exe", OFlags::PATH)?;
        let place = disk.place_of(disk.running);
        Ok(Executable { identity: disk.running, path: disk.known, file: Arc::new(file), place })
    }

    /// Returns a report if the file does not have its path any more.
    pub fn replaced(&self, pid: u32) -> Option<Replaced> {
        let file = self.path.clone();
        self.place.is_none().then_some(Replaced { pid, file, old_runs_again: true })
    }

    /// Prepares the execution of this file with these arguments and this environment.
    ///
    /// # Errors
    /// If an argument or a variable contains a zero byte, which no process has.
    pub fn exec(
        self,
        arguments: &[OsString],
        environment: &[(OsString, OsString)],
    ) -> Result<Exec> {
        let word =
            |bytes: &[u8]| CString::new(bytes).context("an argument or a variable has a zero byte");
        let variables = environment
            .iter()
            .map(|(name, value)| word(&[name.as_bytes(), b"=", value.as_bytes()].concat()));
        let place = self.place.map(|DirectoryEntry { directory, name }| -> Result<_> {
            Ok((directory, word(name.as_bytes())?))
        });
        Ok(Exec {
            place: place.transpose()?,
            file: self.file,
            identity: self.identity,
            arguments: arguments.iter().map(|it| word(it.as_bytes())).collect::<Result<_>>()?,
            environment: variables.collect::<Result<_>>()?,
        })
    }
}

/// The file from which a service manager starts a daemon.
pub struct Program {
    path: PathBuf,
    /// Whether it differs from the file that runs.
    replaced: bool,
}

impl Program {
    /// Finds the file for a process whose service manager does not show the file that it starts: the file that
    /// its first argument names, or else the path that the kernel knows.
    ///
    /// # Errors
    /// If no such program exists any more. The process must not be stopped then, since it could not be started
    /// again.
    pub fn open(pid: u32) -> Result<Self> {
        let disk = Disk::open(pid)?;
        let arguments = procfs::words(pid, "cmdline")?;
        let environment = procfs::environment(pid)?;
        let named = named(&arguments, &environment);
        let runs = |path: &PathBuf| disk.is_running(path);
        let is_program = |path: &PathBuf| disk.look(path).is_some();
        // A script may have executed the running program, but an ELF file that is not running is a newer
        // version.
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
                "process {pid} runs {}, which is no longer on disk, so it could not be started \
                 again; restart it and try again",
                disclosure::program(pid, &disk.known)
            )
        })
    }

    /// Finds the file for a process that a service manager starts from the file `path`.
    ///
    /// # Errors
    /// If the program at `path` no longer exists.
    pub fn of_service(pid: u32, path: &Path) -> Result<Self> {
        let disk = Disk::open(pid)?;
        let Some(found) = disk.look(path) else {
            bail!(
                "the daemon is started from {}, which is no longer on disk, so it could not be \
                 started again; reinstall it and try again",
                path.display()
            );
        };
        // A script runs as its interpreter, or executes another program: compare the running program with its own file.
        let replaced = match found.is_elf {
            true => !disk.is_running(path),
            false => !disk.is_running(&disk.known),
        };
        Ok(Program { path: path.to_owned(), replaced })
    }

    /// Returns a report if the file differs from the one that runs.
    pub fn report(self, pid: u32) -> Option<Replaced> {
        let Program { path: file, replaced } = self;
        replaced.then_some(Replaced { pid, file, old_runs_again: false })
    }
}

/// Returns the absolute paths that the first argument may stand for.
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

/// Returns the name that the process was started by, if it leads to the program. It may be a symbolic link such
/// as `nix-daemon`: run by this name, the process has the same name again. Names are used only if no suspect
/// could change where they lead.
fn named_safely(
    pid: u32,
    others: &Suspects,
    identity: (u64, u64),
) -> Result<Option<DirectoryEntry>> {
    let (arguments, environment) = (procfs::words(pid, "cmdline")?, procfs::environment(pid)?);
    for path in named(&arguments, &environment) {
        let Ok(Ok(real)) = others.follow(&path) else { continue };
        let found = std::fs::metadata(&real).map(|found| (found.dev(), found.ino()));
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
        if found.is_ok_and(|found| found == identity) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = Arc::new(open(parent, flags, Mode::empty())?);
            return Ok(Some(DirectoryEntry { directory, name: name.to_owned() }));
        }
    }
    Ok(None)
}

/// The file system as a process sees it, and the program that it runs.
struct Disk {
    root: OwnedFd,
    /// Whether its root is that of this process too. The mounts may differ: a Nix daemon has some of its own.
    is_ours: bool,
    running: (u64, u64),
    /// The current or former path of its program, as the kernel knows it.
    known: PathBuf,
}

struct ProgramFile {
    identity: (u64, u64),
    is_elf: bool,
}

impl Disk {
    fn open(pid: u32) -> Result<Self> {
        let root = procfs::open_link(pid, "root", OFlags::PATH | OFlags::DIRECTORY)?;
        let exe = procfs::directory(pid).join("exe");
        let about = || format!("examine the program of the daemon, process {pid}");
        let running = std::fs::metadata(&exe).with_context(about)?;
        let known = std::fs::read_link(&exe).with_context(about)?.into_os_string().into_vec();
        let known = known.strip_suffix(DELETED).unwrap_or(&known).to_vec();
        let identity = |path: &Path| std::fs::metadata(path).map(|it| (it.dev(), it.ino()));
        let proc = procfs::directory(pid);
        let is_ours = identity(&proc.join("root"))? == identity(Path::new("/"))?;
        Ok(Disk {
            is_ours,
            root,
            running: (running.dev(), running.ino()),
            known: OsString::from_vec(known).into(),
        })
    }

    /// Returns the reason why other users could replace the program; `None` if they cannot.
    fn swappable(&self, others: &Suspects) -> Result<Option<String>> {
        if !self.known.is_absolute() {
            bail!("{} is not in the root directory of the process", self.known.display());
        }
        others.walk(&self.root, &self.known)
    }

    /// Returns the location of the program, if it still has the path that the kernel knows.
    fn place_of(&self, identity: (u64, u64)) -> Option<DirectoryEntry> {
        let (parent, name) = (self.known.parent()?, self.known.file_name()?);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let below = parent.strip_prefix("/").unwrap_or(parent);
        let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let directory = openat2(&self.root, below, flags, Mode::empty(), resolve).ok()?;
        let found = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_it = (found.st_dev, found.st_ino) == identity;
        is_it.then(|| DirectoryEntry { directory: Arc::new(directory), name: name.to_owned() })
    }

    /// Examines the file that the process would find at a path, with links resolved inside its own root. `None`
    /// if it is not a program.
    fn look(&self, path: &Path) -> Option<ProgramFile> {
        let below = path.strip_prefix("/").unwrap_or(path);
        // Opening a device can have side effects, so only a regular file is opened for reading.
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let found = openat2(&self.root, below, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
        let status = fstat(&found).ok()?;
        let is_file = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile;
        if !is_file || status.st_mode & 0o111 == 0 {
            return None;
        }
        let path = format!("/proc/self/fd/{}", found.as_raw_fd());
        let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut magic = [0; ELF.len()];
        let is_elf = rustix::io::read(&file, &mut magic).is_ok_and(|n| magic[..n] == ELF[..]);
        Some(ProgramFile { identity: (status.st_dev, status.st_ino), is_elf })
    }

    fn is_running(&self, path: &Path) -> bool {
        self.look(path).is_some_and(|found| found.identity == self.running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::process::{Command, Stdio};

    /// Copies a program in a process of its own. If this process wrote the file, another thread could fork
    /// meanwhile, and the kernel executes no file that is open for writing (`man 2 execve`).
    fn copy(from: &str, to: &Path) {
        assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
    }

    /// A copy of `sleep` that only root can write to, and a link to it.
    fn program() -> (tempfile::TempDir, PathBuf) {
        let place = tempfile::tempdir_in("/root").unwrap();
        copy("/bin/sleep", &place.path().join("sleep"));
        let link = place.path().join("nap");
        symlink("sleep", &link).unwrap();
        (place, link)
    }

    fn start(executable: Executable) -> std::process::Child {
        let mut command = Command::new("/no");
        let words = ["nap", "100"].map(OsString::from);
        let variables = [("KEPT".into(), "x".into())];
        executable.exec(&words, &variables).unwrap().apply(&mut command);
        command.stdin(Stdio::null()).spawn().unwrap()
    }

    fn comm(pid: u32) -> String {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim().to_owned()
    }

    /// Waits until a process sleeps: the kernel lets its parent continue before the process has its name, its
    /// arguments and its environment.
    fn until_it_sleeps(child: std::process::Child) -> std::process::Child {
        while !procfs::words(child.id(), "cmdline").is_ok_and(|words| words.len() == 2)
            || procfs::is_at_work(child.id())
        {
            std::thread::yield_now();
        }
        child
    }

    #[test]
    fn program_restarts_under_its_original_name() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (place, link) = program();
        let mut first = until_it_sleeps(Command::new(&link).arg("100").spawn().unwrap());
        let executable = Executable::open(first.id(), 0).unwrap();
        assert!(executable.replaced(first.id()).is_none());
        let mut second = until_it_sleeps(start(executable.clone()));
        assert_eq!(comm(second.id()), "nap");
        let variables = procfs::environment(second.id()).unwrap();
        assert_eq!(variables, [("KEPT".into(), "x".into())]);

        // A start does not run the file that has the path by now.
        copy("/bin/cat", &place.path().join("new"));
        std::fs::rename(place.path().join("new"), place.path().join("sleep")).unwrap();
        let mut third = until_it_sleeps(start(executable));
        let identity = |pid: u32| {
            let found = std::fs::metadata(format!("/proc/{pid}/exe")).unwrap();
            (found.dev(), found.ino())
        };
        assert_eq!(identity(third.id()), identity(first.id()));
        assert!(Executable::open(first.id(), 0).unwrap().replaced(first.id()).is_some());
        for child in [&mut first, &mut second, &mut third] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn program_writable_by_others_is_not_started() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (place, link) = program();
        let mut child = until_it_sleeps(Command::new(&link).arg("100").spawn().unwrap());
        let set = |path: &Path, mode: u32| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(path, mode).unwrap();
        };
        assert!(Executable::open(child.id(), 0).is_ok());
        set(place.path(), 0o777);
        assert!(Executable::open(child.id(), 0).is_err(), "its directory");
        set(place.path(), 0o755);
        set(&place.path().join("sleep"), 0o775);
        assert!(Executable::open(child.id(), 0).is_err(), "itself");
        set(&place.path().join("sleep"), 0o755);
        std::os::unix::fs::chown(place.path().join("sleep"), Some(1234), None).unwrap();
        assert!(Executable::open(child.id(), 0).is_err(), "its owner");
        assert!(Executable::open(child.id(), 1234).is_ok(), "it would run as that user");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
