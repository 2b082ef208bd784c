//! The record of a stopped daemon, for the next restore, in case every process of this restore is killed while the
//! daemon is stopped.
//!
//! It lies in a directory that only root writes to, and never in a store, because users choose what is in a store. It
//! can only name things of a closed list, so even an attacker who could write a record could not start anything else.

use super::super::store_context::StoreTarget;
use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, mkdir, open, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use storecache_daemon::Daemon;
use storecache_runtime::advice::in_one_line;
use storecache_runtime::path_audit::Suspects;

/// The directories for root's records: the first usable one is used.
const PLACES: [&str; 2] = ["/run/storecache", "/var/lib/storecache"];
/// Larger than any record, in bytes.
const SIZE_LIMIT: u64 = 4 << 10;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The stopped daemon. This contains only names of a closed list, and no command, user or path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoppedDaemon {
    /// Units of [`StoreTarget::units`].
    Units(Vec<String>),
    /// The service of the store's daemon in a shepherd. The shepherd is searched for again.
    ShepherdService,
    /// The bare process that was found. How it was started is known only while it runs.
    BareProcess,
    /// A daemon that the user stops and starts with their own commands, which are not recorded.
    UserCommand,
}

impl StoppedDaemon {
    /// Returns what is recorded about a daemon, or `None` if the store has no daemon to stop.
    fn from_daemon(daemon: &Daemon) -> Option<Self> {
        match daemon {
            Daemon::Systemd { units } => Some(StoppedDaemon::Units(units.clone())),
            Daemon::Shepherd { .. } => Some(StoppedDaemon::ShepherdService),
            Daemon::Process { .. } => Some(StoppedDaemon::BareProcess),
            Daemon::Command { .. } => Some(StoppedDaemon::UserCommand),
            Daemon::None => None,
        }
    }
}

/// A record, as stored in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopRecord {
    /// The kernel's ID of the boot in which it was written: after another boot, the record is void.
    boot_id: String,
    /// Device and inode of the store directory.
    store: (u64, u64),
    pub stopped: StoppedDaemon,
    /// Whether the unit that mounts the store read-only was stopped too.
    pub mount: bool,
}

impl StopRecord {
    /// Parses a record and checks it against the closed list.
    ///
    /// # Errors
    /// If it is not a record, or names a unit that is not among `units`.
    pub fn parse(text: &[u8], units: &[&str]) -> Result<Self> {
        let record: StopRecord =
            serde_json::from_slice(text).context("not a record of a stopped daemon")?;
        let named: &[String] = match &record.stopped {
            StoppedDaemon::Units(named) => named,
            StoppedDaemon::ShepherdService
            | StoppedDaemon::BareProcess
            | StoppedDaemon::UserCommand => &[],
        };
        if let Some(unit) = named.iter().find(|unit| !units.contains(&unit.as_str())) {
            bail!("{unit:?} is not a unit of the daemon");
        }
        Ok(record)
    }

    /// Records that the daemon of a store is stopped. Call this before the daemon stops.
    ///
    /// # Errors
    /// If no directory for records can be used, or writing fails.
    pub fn write(target: &StoreTarget, daemon: &Daemon, mount: bool) -> Result<()> {
        let Some(stopped) = StoppedDaemon::from_daemon(daemon) else { return Ok(()) };
        let record = StopRecord { boot_id: boot_id()?, store: identity(target)?, stopped, mount };
        RecordDirectory::open_or_make()?.write(&file_name(target)?, &serde_json::to_vec(&record)?)
    }

    /// Reads the record of a store's daemon in this boot. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// If there is a file that is not such a record.
    pub fn read(target: &StoreTarget) -> Result<Option<Self>> {
        let name = file_name(target)?;
        for directory in RecordDirectory::all() {
            let Some(text) = directory.read(&name)? else { continue };
            let record = Self::parse(&text, target.units())
                .with_context(|| format!("read {}", directory.path.join(&name).display()))?;
            if record.boot_id == boot_id()? && record.store == identity(target)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Removes the record of a store's daemon, which is running again.
    pub fn remove(target: &StoreTarget) -> Result<()> {
        let name = file_name(target)?;
        RecordDirectory::all().iter().try_for_each(|directory| directory.remove(&name))
    }
}

/// Returns the directory that a record would be written to, for messages.
///
/// # Errors
/// If there is no such directory: the reason.
pub fn place_of_records() -> Result<PathBuf> {
    RecordDirectory::open_or_make().map(|directory| directory.path)
}

fn boot_id() -> Result<String> {
    let id = std::fs::read_to_string(BOOT_ID).with_context(|| format!("read {BOOT_ID}"))?;
    Ok(id.trim().to_owned())
}

fn identity(target: &StoreTarget) -> Result<(u64, u64)> {
    let store = target.layout.store();
    let found = std::fs::metadata(&store).with_context(|| store.display().to_string())?;
    Ok((found.dev(), found.ino()))
}

fn file_name(target: &StoreTarget) -> Result<String> {
    let (device, inode) = identity(target)?;
    Ok(format!("{}-{device:x}-{inode:x}.json", target.layout.kind))
}

/// A directory that only this user writes to.
struct RecordDirectory {
    path: PathBuf,
    directory: OwnedFd,
}

impl RecordDirectory {
    /// Returns the directories that this user may use for records.
    fn places() -> Vec<PathBuf> {
        match geteuid() {
            root if root.is_root() => PLACES.map(PathBuf::from).into(),
            user => vec![format!("/run/user/{}/storecache", user.as_raw()).into()],
        }
    }

    /// Opens the directories that exist and are safe.
    fn all() -> Vec<Self> {
        Self::places().into_iter().filter_map(|path| Self::open(path).ok()).collect()
    }

    /// Opens the first directory that can be used. Creates it if it does not exist.
    fn open_or_make() -> Result<Self> {
        let mut causes = Vec::new();
        for path in Self::places() {
            let made = match mkdir(&path, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => Self::open(path.clone()),
                Err(e) => Err(e.into()),
            };
            match made {
                Ok(directory) => return Ok(directory),
                Err(e) => causes.push(format!("{}: {}", path.display(), in_one_line(e.as_ref()))),
            }
        }
        bail!("no directory for the record of a stopped daemon ({})", causes.join("; "))
    }

    /// Opens a directory for records.
    ///
    /// # Errors
    /// If another account could have created or changed it.
    fn open(path: PathBuf) -> Result<Self> {
        let user = geteuid().as_raw();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = open(&path, flags, Mode::empty())?;
        let found = fstat(&directory)?;
        if found.st_uid != user || found.st_mode & 0o022 != 0 {
            bail!("another user owns it or can write to it");
        }
        match Suspects::EverybodyBut(user).follow(&path)? {
            Ok(real) if real == path => Ok(RecordDirectory { path, directory }),
            Ok(real) => bail!("its real path is {}", real.display()),
            Err(reason) => bail!(reason),
        }
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let about = || format!("write {}", self.path.join(name).display());
        let unfinished = format!(".{name}");
        self.remove(&unfinished)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(&self.directory, &unfinished, flags | OFlags::CLOEXEC, mode);
        let mut file = File::from(file.with_context(about)?);
        file.write_all(content).and_then(|()| file.sync_all()).with_context(about)?;
        renameat(&self.directory, &unfinished, &self.directory, name).with_context(about)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let about = || format!("read {}", self.path.join(name).display());
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.directory, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.with_context(about)?,
        };
        let found = fstat(&file).with_context(about)?;
        let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
        if !is_file || found.st_uid != geteuid().as_raw() {
            bail!("{} is not a file of this user", self.path.join(name).display());
        }
        let mut content = Vec::new();
        File::from(file).take(SIZE_LIMIT).read_to_end(&mut content).with_context(about)?;
        Ok(Some(content))
    }

    fn remove(&self, name: &str) -> Result<()> {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e).with_context(|| format!("remove {}", self.path.join(name).display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNITS: [&str; 2] = ["nix-daemon.socket", "nix-daemon.service"];

    fn record(stopped: StoppedDaemon) -> StopRecord {
        StopRecord { boot_id: "b".into(), store: (1, 2), stopped, mount: false }
    }

    #[test]
    fn record_with_an_unknown_unit_or_command_is_refused() {
        for stopped in [
            StoppedDaemon::Units(UNITS.map(str::to_owned).into()),
            StoppedDaemon::ShepherdService,
            StoppedDaemon::BareProcess,
            StoppedDaemon::UserCommand,
        ] {
            let text = serde_json::to_vec(&record(stopped.clone())).unwrap();
            assert_eq!(StopRecord::parse(&text, &UNITS).unwrap().stopped, stopped);
        }
        let other = StoppedDaemon::Units(vec!["nix-daemon.socket".into(), "sshd.service".into()]);
        let text = serde_json::to_vec(&record(other)).unwrap();
        let error = StopRecord::parse(&text, &UNITS).unwrap_err().to_string();
        assert!(error.contains("sshd.service"), "{error}");
        for text in [
            "",
            "{}",
            r#"{"daemon":{"command":{"stop":"true","start":"id","run_as":null}},"mount":null}"#,
            r#"{"boot_id":"b","store":[1,2],"stopped":{"command":"id"},"mount":false}"#,
            r#"{"boot_id":"b","store":[1,2],"stopped":"bare-process","mount":false,"start":"id"}"#,
            r#"{"boot_id":"b","store":[1,2],"stopped":"bare-process","mount":"/etc"}"#,
        ] {
            assert!(StopRecord::parse(text.as_bytes(), &UNITS).is_err(), "{text}");
        }
    }

    #[test]
    fn record_directory_writable_by_others_is_refused() {
        if !geteuid().is_root() {
            return;
        }
        let place = tempfile::tempdir_in("/root").unwrap();
        let directory = |name: &str, mode: u32, owner: u32| {
            let path = place.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode))
                .unwrap();
            std::os::unix::fs::lchown(&path, Some(owner), None).unwrap();
            path
        };
        assert!(RecordDirectory::open(directory("good", 0o700, 0)).is_ok());
        assert!(RecordDirectory::open(directory("open", 0o777, 0)).is_err());
        assert!(RecordDirectory::open(directory("sticky", 0o1777, 0)).is_err());
        assert!(RecordDirectory::open(directory("theirs", 0o700, 1234)).is_err());
        let link = place.path().join("link");
        std::os::unix::fs::symlink(place.path().join("good"), &link).unwrap();
        assert!(RecordDirectory::open(link).is_err());

        let good = RecordDirectory::open(place.path().join("good")).unwrap();
        good.write("a.json", b"text").unwrap();
        good.write("a.json", b"other").unwrap();
        assert_eq!(good.read("a.json").unwrap().as_deref(), Some(&b"other"[..]));
        assert_eq!(good.read("b.json").unwrap(), None);
        std::os::unix::fs::symlink("/etc/passwd", good.path.join("c.json")).unwrap();
        assert!(good.read("c.json").is_err());
        good.remove("a.json").unwrap();
        good.remove("a.json").unwrap();
        assert_eq!(good.read("a.json").unwrap(), None);
    }
}
