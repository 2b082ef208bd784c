//! Moves staged items into the store by rename, and back.

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, FileType, Mode, RenameFlags, chmodat, renameat_with, statat};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use storecache_runtime::retry::insist;

/// Items that were moved from staging into the store. Dropped before [`Placement::keep`], it moves all of them
/// back, and the files that they replaced too.
#[derive(Default)]
pub struct Placement {
    moved: Vec<Moved>,
}

struct Moved {
    staging: Arc<OwnedFd>,
    place: Arc<OwnedFd>,
    name: String,
    exchanged: bool,
}

impl Placement {
    /// Moves `name` from the directory `staging` into the directory `place`. A file with this name in `place`
    /// moves to `staging` in the same atomic exchange.
    pub fn place(
        &mut self,
        staging: &Arc<OwnedFd>,
        place: &Arc<OwnedFd>,
        name: &str,
    ) -> Result<()> {
        let exchanged = swap(staging, place, name).with_context(|| format!("place {name}"))?;
        self.moved.push(Moved {
            staging: Arc::clone(staging),
            place: Arc::clone(place),
            name: name.to_owned(),
            exchanged,
        });
        Ok(())
    }

    /// Leaves everything where it is now.
    pub fn keep(mut self) {
        self.moved.clear();
    }
}

impl Drop for Placement {
    fn drop(&mut self) {
        for moved in self.moved.drain(..).rev() {
            let flags =
                if moved.exchanged { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
            let name = moved.name.as_str();
            // None of these items is valid yet: the daemon treats an item that cannot be moved back as garbage.
            let _ = insist(|| rename(&moved.place, &moved.staging, name, flags));
        }
    }
}

/// Renames `name` into `place`. Returns true if a file with this name was there and is now in `staging`.
fn swap(staging: &OwnedFd, place: &OwnedFd, name: &str) -> Result<bool> {
    match rename(staging, place, name, RenameFlags::NOREPLACE) {
        Ok(()) => return Ok(false),
        Err(Errno::EXIST) => {}
        Err(e) => return Err(e.into()),
    }
    match renameat_with(staging, name, place, name, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        // Some layered file systems cannot rename a file of a lower layer, but can remove it.
        Err(Errno::XDEV | Errno::INVAL) => {
            remove(place, name)?;
            renameat_with(staging, name, place, name, RenameFlags::NOREPLACE)?;
            Ok(false)
        }
        Err(e) => Err(e.into()),
    }
}

/// Renames `name` from one directory into another. Without root's rights, this requires write permission on a
/// directory that is moved, and items are read-only.
pub(super) fn rename(
    from: impl AsFd,
    to: impl AsFd,
    name: &str,
    flags: RenameFlags,
) -> rustix::io::Result<()> {
    let once = || renameat_with(&from, name, &to, name, flags);
    let refused = match once() {
        Err(Errno::ACCESS) => Errno::ACCESS,
        other => return other,
    };
    let found = statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
        return Err(refused);
    }
    let mode = Mode::from_raw_mode(found.st_mode);
    chmodat(&from, name, mode | Mode::WUSR, AtFlags::empty())?;
    let renamed = once();
    let place = if renamed.is_ok() { to.as_fd() } else { from.as_fd() };
    chmodat(place, name, mode, AtFlags::empty())?;
    renamed
}

fn remove(place: &OwnedFd, name: &str) -> Result<()> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}/{name}", place.as_raw_fd());
    let stat = statat(place, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        std::fs::remove_dir_all(Path::new(&path))?;
    } else {
        std::fs::remove_file(Path::new(&path))?;
    }
    Ok(())
}
