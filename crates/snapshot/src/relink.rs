//! Restoring the hard links between items. Equal files that are next to each other in a shared frame are
//! written once, and the others become links to the first, as in the store that was saved.

use super::confined_fs::{Name, link};
use super::hardlink_groups::LEAST;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// A file with all its content and attributes.
pub struct Twin<'a> {
    pub content: &'a [u8],
    pub mode: u32,
    pub parent: Arc<OwnedFd>,
    pub path: Vec<u8>,
}

/// The last file of a frame that was written.
#[derive(Default)]
pub struct Relinker<'a>(Option<Twin<'a>>);

impl<'a> Relinker<'a> {
    /// Makes `new` a link to the last file, if that is equal. Returns false if the caller has to write the
    /// file, for any reason.
    pub fn link(&self, new: &Twin<'_>) -> bool {
        let equals = |known: &&Twin<'_>| known.mode == new.mode && known.content == new.content;
        let Some(known) = self.0.as_ref().filter(equals) else {
            return false;
        };
        let (from, to) = (known.parent.as_fd(), new.parent.as_fd());
        new.content.len() as u64 >= LEAST
            && link(from, Name::parse(&known.path), to, Name::parse(&new.path)).is_ok()
    }

    /// Records a file that was written completely.
    pub fn wrote(&mut self, file: Twin<'a>) {
        self.0 = Some(file);
    }
}
