//! The NAR of a tree on disk, which is the serialization that Nix and Guix hash an item by.
//!
//! Calculated again from the tree, the hash shows whether the item matches its row in the database,
//! independently of who made the snapshot. Sources: `NixOS/nix:doc/manual/source/protocols/nix-archive`,
//! `guix/serialization.scm`.

use super::Digest;
use super::access_times::{stays_unread, unnoticed};
use super::walk::sorted_names;
use anyhow::{Context, Result, bail};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use storecache_entry::Digester;

/// Bytes of a file that are in memory at a time.
const PIECE: usize = 1 << 17;

/// Returns the SHA-256 of the NAR of `name` in `base`. `read` is called with the number of content bytes that
/// were read since its last call, and cancels the calculation by returning an error. Unread files stay marked
/// as unread.
///
/// # Errors
/// If a file cannot be read, or is not a regular file, directory or symbolic link.
pub fn nar_digest(
    base: impl AsFd,
    name: &str,
    read: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Digest> {
    let mut nar = Nar { digest: Digester::default(), piece: vec![0; PIECE], read };
    nar.text(b"nix-archive-1");
    nar.node(base.as_fd(), name.as_bytes(), &mut name.as_bytes().to_vec())?;
    Ok(nar.digest.finish())
}

struct Nar<'a> {
    digest: Digester,
    piece: Vec<u8>,
    read: &'a mut dyn FnMut(u64) -> Result<()>,
}

impl Nar<'_> {
    /// Hashes a file, directory or link. `path` is for errors, and is unchanged afterwards.
    fn node(&mut self, parent: BorrowedFd, name: &[u8], path: &mut Vec<u8>) -> Result<()> {
        let shown = |path: &[u8]| Path::new(OsStr::from_bytes(path)).display().to_string();
        let c_name = CString::new(name)?;
        let stat =
            fs::statat(parent, &c_name, AtFlags::SYMLINK_NOFOLLOW).with_context(|| shown(path))?;
        let open = |more: OFlags| {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
            unnoticed(flags, |flags| fs::openat(parent, &c_name, flags, Mode::empty()))
        };
        self.texts(&[b"(", b"type"]);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                self.text(b"regular");
                // Nix checks this bit too.
                if stat.st_mode & 0o100 != 0 {
                    self.texts(&[b"executable", b""]);
                }
                self.text(b"contents");
                let file = File::from(open(OFlags::empty()).with_context(|| shown(path))?);
                self.content(file, stat.st_size as u64).with_context(|| shown(path))?;
            }
            FileType::Symlink => {
                let target = fs::readlinkat(parent, &c_name, Vec::new());
                let target = target.with_context(|| shown(path))?;
                stays_unread(parent, &c_name, &stat);
                self.texts(&[b"symlink", b"target", target.as_bytes()]);
            }
            FileType::Directory => {
                self.text(b"directory");
                let directory = open(OFlags::DIRECTORY).with_context(|| shown(path))?;
                for entry in sorted_names(&directory).with_context(|| shown(path))? {
                    self.texts(&[b"entry", b"(", b"name", &entry, b"node"]);
                    let length = path.len();
                    path.push(b'/');
                    path.extend_from_slice(&entry);
                    self.node(directory.as_fd(), &entry, path)?;
                    path.truncate(length);
                    self.text(b")");
                }
            }
            other => bail!("{}: a store cannot contain a file of type {other:?}", shown(path)),
        }
        self.text(b")");
        Ok(())
    }

    fn content(&mut self, mut file: File, size: u64) -> Result<()> {
        self.digest.add(&size.to_le_bytes());
        let mut got = 0;
        loop {
            let count = file.read(&mut self.piece)?;
            if count == 0 {
                break;
            }
            self.digest.add(&self.piece[..count]);
            got += count as u64;
            (self.read)(count as u64)?;
        }
        if got != size {
            bail!("expected {size} bytes, but read {got}");
        }
        self.pad(size);
        Ok(())
    }

    fn texts(&mut self, texts: &[&[u8]]) {
        texts.iter().for_each(|text| self.text(text));
    }

    fn text(&mut self, text: &[u8]) {
        self.digest.add(&(text.len() as u64).to_le_bytes());
        self.digest.add(text);
        self.pad(text.len() as u64);
    }

    /// Appends zeros up to the next multiple of eight.
    fn pad(&mut self, length: u64) {
        self.digest.add(&[0; 8][..(length.wrapping_neg() % 8) as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn nar_digest_equals_nix_hash() {
        let top = tempfile::tempdir().unwrap();
        let tree = top.path().join("tree");
        std::fs::create_dir_all(tree.join("empty")).unwrap();
        // Sorted by bytes: capitals before small letters, and a dot before a letter.
        for (name, content, mode) in
            [("a", "x", 0o444), ("a.b", "", 0o644), ("B", "12345678", 0o555), ("é", "y", 0o654)]
        {
            std::fs::write(tree.join(name), content).unwrap();
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(tree.join(name), mode).unwrap();
        }
        symlink("../else/where", tree.join("link")).unwrap();
        let base = std::fs::File::open(top.path()).unwrap();
        let mut seen = 0;
        let digest = nar_digest(&base, "tree", &mut |count| {
            seen += count;
            Ok(())
        });
        // `nix-hash --type sha256 tree`
        assert_eq!(
            digest.unwrap().to_string(),
            "8ddd80d6d528b5fbc6774041322827a1d30eaadb06177c6b5775a86ff97e3455"
        );
        assert_eq!(seen, 10);
        assert!(nar_digest(&base, "tree", &mut |_| bail!("canceled")).is_err());
        assert!(nar_digest(&base, "nothing", &mut |_| Ok(())).is_err());
    }
}
