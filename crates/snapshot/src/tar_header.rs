//! Tar members: the header blocks before the content. There is one way to write a header, and the reader
//! refuses every other one, so that no other reader can see other names or sizes in it.
//!
//! The dialect is GNU's: long names and link targets as `L` and `K` members, numbers beyond octal in base 256,
//! empty owner names. A pax header appears only to carry a time that whole seconds cannot, and holds nothing
//! but `mtime`; sizes therefore come from one place only. All other features of tar (sparse files, devices,
//! global headers) are refused.

use super::SnapshotError;
use tar::{EntryType, Header};

/// Size of a tar block in bytes.
pub const BLOCK: usize = 512;
/// The two zero blocks that end an archive.
pub const END_OF_ARCHIVE: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
/// Maximum length of a path or of the target of a link, in bytes: `PATH_MAX` of Linux without the zero byte.
/// Longer ones could not be created.
pub const PATH_LIMIT: usize = 4095;
/// Maximum length of a path component, in bytes: `NAME_MAX` of Linux.
const NAME_LIMIT: usize = 255;
/// Maximum number of path components. A program that walks or removes a tree has a directory open for each, and
/// a process may have 1,024 open files. A deeper tree could be unpacked and never removed again.
const DEPTH_LIMIT: usize = 512;
/// Maximum size of an extension: a path and the zero byte behind it.
const EXTENSION_LIMIT: u64 = PATH_LIMIT as u64 + 1;

/// One file, directory or link, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Archive path: relative, without a slash at either end.
    pub path: Vec<u8>,
    pub kind: MemberKind,
    pub attributes: Attributes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberKind {
    Directory,
    /// Size in bytes.
    File(u64),
    /// The target, unchanged.
    Symlink(Vec<u8>),
    /// Archive path of an earlier member.
    HardLink(Vec<u8>),
}

/// Owner, permissions and time of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
}

impl Attributes {
    /// Returns the attributes that Nix and Guix give to every file in a store: owner root, time 1, no write
    /// bits. Source: `NixOS/nix:src/libstore/posix-fs-canonicalise.cc`.
    pub fn canonical(kind: &MemberKind, executable: bool) -> Self {
        let mode = match kind {
            MemberKind::Symlink(_) => 0o777,
            MemberKind::Directory => 0o555,
            MemberKind::File(_) | MemberKind::HardLink(_) if executable => 0o555,
            MemberKind::File(_) | MemberKind::HardLink(_) => 0o444,
        };
        Attributes { mode, uid: 0, gid: 0, mtime: (1, 0) }
    }
}

/// Returns the number of padding bytes after `size` bytes of content.
pub fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

impl Member {
    /// Returns the number of content bytes that follow the header.
    pub fn content(&self) -> u64 {
        match self.kind {
            MemberKind::File(size) => size,
            _ => 0,
        }
    }

    /// Returns the header blocks, extensions first.
    pub fn encode(&self) -> Vec<u8> {
        let mut blocks = Vec::with_capacity(BLOCK);
        let mut header = Header::new_gnu();
        let Attributes { mode, uid, gid, mtime: (seconds, nanos) } = self.attributes;

        let (entry_type, size, target): (_, _, &[u8]) = match &self.kind {
            MemberKind::Directory => (EntryType::Directory, 0, b""),
            MemberKind::File(size) => (EntryType::Regular, *size, b""),
            MemberKind::Symlink(target) => (EntryType::Symlink, 0, target),
            MemberKind::HardLink(target) => (EntryType::Link, 0, target),
        };
        let mut name = self.path.clone();
        if entry_type == EntryType::Directory {
            name.push(b'/');
        }
        if nanos != 0 || seconds < 0 {
            extension(&mut blocks, EntryType::XHeader, &pax_mtime(seconds, nanos));
        }
        if let Some(gnu) = header.as_gnu_mut() {
            if target.len() > gnu.linkname.len() {
                extension(&mut blocks, EntryType::GNULongLink, &zero_ended(target));
            }
            if name.len() > gnu.name.len() {
                extension(&mut blocks, EntryType::GNULongName, &zero_ended(&name));
            }
            fill(&mut gnu.name, &name);
            fill(&mut gnu.linkname, target);
        }
        header.set_entry_type(entry_type);
        header.set_size(size);
        header.set_mode(mode);
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_mtime(u64::try_from(seconds).unwrap_or(0));
        header.set_cksum();
        blocks.extend_from_slice(header.as_bytes());
        blocks
    }
}

/// Reads the header blocks at the start of `rest` and advances past them. Returns `None` at the end of the
/// frame or of the archive.
///
/// # Errors
/// If the blocks differ from those that [`Member::encode`] writes.
pub fn decode(rest: &mut &[u8]) -> Result<Option<Member>, SnapshotError> {
    let bad = |what: &str| SnapshotError::damaged(format!("tar member: {what}"));
    let mut long_name = None;
    let mut long_target = None;
    let mut precise_mtime = None;
    let all = *rest;
    loop {
        if rest.is_empty() {
            let dangling = long_name.is_some() || long_target.is_some() || precise_mtime.is_some();
            return if dangling { Err(bad("an extension header has no member")) } else { Ok(None) };
        }
        let (block, after) =
            rest.split_at_checked(BLOCK).ok_or_else(|| bad("the header is cut short"))?;
        if block.iter().all(|&b| b == 0) {
            return if rest.iter().all(|&b| b == 0) {
                *rest = &[];
                Ok(None)
            } else {
                Err(bad("an empty header precedes other members"))
            };
        }
        *rest = after;
        let header = Header::from_byte_slice(block);
        check_sum(block)?;
        if header.as_gnu().is_none() && header.as_ustar().is_none() {
            return Err(bad("the header has no tar magic"));
        }
        let number = |n: std::io::Result<u64>| n.map_err(|_| bad("a number does not parse"));
        let size = number(header.entry_size())?;
        let entry_type = header.entry_type();
        if let EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader = entry_type {
            if size > EXTENSION_LIMIT {
                return Err(bad("an extension is longer than any path"));
            }
            let content =
                take_padded(rest, size).ok_or_else(|| bad("an extension is cut short"))?;
            let slot = match entry_type {
                EntryType::GNULongName => &mut long_name,
                EntryType::GNULongLink => &mut long_target,
                _ => {
                    if precise_mtime.replace(parse_pax_mtime(content)?).is_some() {
                        return Err(bad("two pax headers"));
                    }
                    continue;
                }
            };
            let text = content.strip_suffix(b"\0").unwrap_or(content).to_vec();
            if text.len() > PATH_LIMIT || slot.replace(text).is_some() {
                return Err(bad("a long name is too long or given twice"));
            }
            continue;
        }

        let name = long_name.take().unwrap_or_else(|| field(&block[..100]));
        let target = long_target.take().unwrap_or_else(|| field(&block[157..257]));
        let kind = match entry_type {
            EntryType::Regular => MemberKind::File(size),
            EntryType::Directory => MemberKind::Directory,
            EntryType::Symlink if target.is_empty() => {
                return Err(bad("a symbolic link has an empty target"));
            }
            EntryType::Symlink if target.contains(&0) => {
                return Err(bad("the target of a symbolic link has a zero byte"));
            }
            EntryType::Symlink => MemberKind::Symlink(target),
            EntryType::Link => MemberKind::HardLink(target),
            other => {
                return Err(bad(&format!("type {:?} is not allowed", other.as_byte() as char)));
            }
        };
        if size != 0 && !matches!(kind, MemberKind::File(_)) {
            return Err(bad("only a file can have content"));
        }
        let path = match kind {
            MemberKind::Directory => name.strip_suffix(b"/").unwrap_or(&name).to_vec(),
            _ => name,
        };
        // `chown` leaves the owner unchanged if it gets the largest number.
        let id = |n| match number(n).map(u32::try_from)? {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(bad("an owner overflows")),
        };
        let seconds = i64::try_from(number(header.mtime())?).map_err(|_| bad("time overflows"))?;
        let attributes = Attributes {
            mode: header.mode().map_err(|_| bad("the mode does not parse"))? & 0o7777,
            uid: id(header.uid())?,
            gid: id(header.gid())?,
            mtime: precise_mtime.unwrap_or((seconds, 0)),
        };
        let member = Member { path, kind, attributes };
        // Readers of tar differ in which of several names, sizes and number formats they believe. They cannot
        // differ about a member that can be written in one way only.
        if member.encode() != all[..all.len() - rest.len()] {
            return Err(bad("its header is not in canonical form"));
        }
        return Ok(Some(member));
    }
}

/// Takes the content of a member from `offset` on, as far as it lies in this frame, and the padding. The whole
/// content has `size` bytes.
pub fn take_content<'a>(
    rest: &mut &'a [u8],
    offset: u64,
    size: u64,
) -> Result<&'a [u8], SnapshotError> {
    let bad = || SnapshotError::damaged("the content of a member does not fit its frame");
    let left = size.checked_sub(offset).ok_or_else(bad)?;
    let padded = left.checked_add(padding(size) as u64).ok_or_else(bad)?;
    if !offset.is_multiple_of(BLOCK as u64) {
        return Err(bad());
    }
    if (rest.len() as u64) < padded {
        // The content continues in the next frame, so the rest of this one is content.
        if rest.len() as u64 > left {
            return Err(bad());
        }
        return Ok(std::mem::take(rest));
    }
    let (content, after) = rest.split_at(padded as usize);
    *rest = after;
    Ok(&content[..left as usize])
}

/// Splits an archive path into components. Refuses paths that could lead anywhere but down.
pub fn components(path: &[u8]) -> Result<Vec<&[u8]>, SnapshotError> {
    let refused = |why: &str| {
        let shown = String::from_utf8_lossy(path);
        SnapshotError::damaged(format!("the path {shown:?} {why}"))
    };
    if path.len() > PATH_LIMIT {
        return Err(refused("is too long"));
    }
    if path.contains(&0) {
        return Err(refused("has a zero byte"));
    }
    if is_too_deep(path) {
        return Err(refused("is too deep"));
    }
    path.split(|&b| b == b'/')
        .map(|part| match part {
            b"" => Err(refused("has an empty component")),
            b"." | b".." => Err(refused("has a dot component")),
            part if part.len() > NAME_LIMIT => Err(refused("has a component that is too long")),
            part => Ok(part),
        })
        .collect()
}

/// Whether a path has more components than readers accept.
pub fn is_too_deep(path: &[u8]) -> bool {
    path.iter().filter(|&&b| b == b'/').count() >= DEPTH_LIMIT
}

/// Returns the directories above an archive path, from the top, and then the path itself.
pub fn prefixes(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let ends = (0..=path.len()).filter(|&end| end == path.len() || path[end] == b'/');
    ends.map(|end| &path[..end])
}

fn fill(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

fn field(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|&b| b == 0).next().unwrap_or_default().to_vec()
}

fn zero_ended(value: &[u8]) -> Vec<u8> {
    [value, b"\0"].concat()
}

fn take_padded<'a>(rest: &mut &'a [u8], size: u64) -> Option<&'a [u8]> {
    let size = usize::try_from(size).ok()?;
    let padded = size.checked_add(padding(size as u64))?;
    let (taken, left) = rest.split_at_checked(padded)?;
    *rest = left;
    taken.get(..size)
}

fn extension(blocks: &mut Vec<u8>, entry_type: EntryType, content: &[u8]) {
    let mut header = Header::new_gnu();
    if let Some(gnu) = header.as_gnu_mut() {
        let name: &[u8] =
            if entry_type == EntryType::XHeader { b"././@PaxHeader" } else { b"././@LongLink" };
        fill(&mut gnu.name, name);
    }
    header.set_entry_type(entry_type);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    blocks.extend_from_slice(header.as_bytes());
    blocks.extend_from_slice(content);
    blocks.resize(blocks.len() + padding(content.len() as u64), 0);
}

/// Formats a time as a pax record. A record begins with its own length, including the digits of the length.
fn pax_mtime(seconds: i64, nanos: u32) -> Vec<u8> {
    // A time before 1970 is a negative decimal number: -1 s + 0.75 s is written -0.25.
    let (sign, seconds, nanos) = match (seconds, nanos) {
        (s, 0) if s < 0 => ("-", s.unsigned_abs(), 0),
        (s, n) if s < 0 => ("-", (s + 1).unsigned_abs(), 1_000_000_000 - n),
        (s, n) => ("", s.unsigned_abs(), n),
    };
    let record = format!(" mtime={sign}{seconds}.{nanos:09}\n");
    let mut length = record.len() + 1;
    while length.to_string().len() + record.len() != length {
        length += 1;
    }
    format!("{length}{record}").into_bytes()
}

fn parse_pax_mtime(content: &[u8]) -> Result<(i64, u32), SnapshotError> {
    let parse = || -> Option<(i64, u32)> {
        let text = std::str::from_utf8(content).ok()?;
        let (length, record) = text.split_once(' ')?;
        if length.parse() != Ok(content.len()) {
            return None;
        }
        let number = record.strip_prefix("mtime=")?.strip_suffix('\n')?;
        let (negative, number) = match number.strip_prefix('-') {
            Some(number) => (true, number),
            None => (false, number),
        };
        let (seconds, fraction) = number.split_once('.')?;
        if fraction.len() != 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        // `parse` would accept a second sign.
        let digits = seconds.bytes().all(|b| b.is_ascii_digit());
        let seconds: i64 = seconds.parse().ok().filter(|_| digits)?;
        let nanos: u32 = fraction.parse().ok()?;
        Some(match (negative, nanos) {
            (false, nanos) => (seconds, nanos),
            (true, 0) => (-seconds, 0),
            (true, nanos) => (-seconds - 1, 1_000_000_000 - nanos),
        })
    };
    parse().ok_or_else(|| SnapshotError::damaged("tar member: a pax header other than mtime"))
}

fn check_sum(block: &[u8]) -> Result<(), SnapshotError> {
    let stored = Header::from_byte_slice(block).cksum().ok();
    let sum: u32 = block[..148].iter().chain(&block[156..]).map(|&b| u32::from(b)).sum::<u32>()
        + 8 * u32::from(b' ');
    if stored == Some(sum) {
        Ok(())
    } else {
        Err(SnapshotError::damaged("tar member: the header does not match its checksum"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(member: &Member) -> Member {
        let bytes = member.encode();
        let mut rest = &bytes[..];
        let read = decode(&mut rest).unwrap().unwrap();
        assert!(rest.is_empty());
        read
    }

    #[test]
    fn times_before_1970_are_negative_decimals() {
        assert_eq!(pax_mtime(-1, 750_000_000), b"22 mtime=-0.250000000\n");
        for mtime in [(-1, 750_000_000), (-5, 0), (-5, 1), (0, 1), (1_700_000_000, 999_999_999)] {
            assert_eq!(parse_pax_mtime(&pax_mtime(mtime.0, mtime.1)).unwrap(), mtime);
        }
    }

    #[test]
    fn a_flipped_bit_in_a_header_is_noticed() {
        let kind = MemberKind::File(7);
        let attributes = Attributes::canonical(&kind, true);
        let mut bytes = Member { path: b"a/b".to_vec(), kind, attributes }.encode();
        bytes[1] ^= 1;
        assert!(decode(&mut &bytes[..]).is_err());
    }

    #[test]
    fn link_target_must_be_valid_on_linux() {
        let link = |target: &[u8]| {
            let kind = MemberKind::Symlink(target.to_vec());
            let attributes = Attributes::canonical(&kind, false);
            let bytes = Member { path: b"a".to_vec(), kind, attributes }.encode();
            decode(&mut &bytes[..])
        };
        for target in [&b"t"[..], &[b't'; 101], &[b't'; PATH_LIMIT]] {
            assert!(link(target).is_ok());
        }
        let zero = [&[b't'; 101][..], b"\0", b"u"].concat();
        for target in [&b""[..], &[b't'; PATH_LIMIT + 1], &zero] {
            assert!(link(target).unwrap_err().is_damage());
        }
    }

    #[test]
    fn owners_that_chown_would_ignore_are_refused() {
        let kind = MemberKind::Directory;
        for (uid, gid) in [(u32::MAX, 0), (0, u32::MAX)] {
            let attributes = Attributes { uid, gid, ..Attributes::canonical(&kind, true) };
            let bytes = Member { path: b"a".to_vec(), kind: kind.clone(), attributes }.encode();
            assert!(decode(&mut &bytes[..]).unwrap_err().is_damage());
        }
    }

    #[test]
    fn path_must_be_relative_and_normalized() {
        assert_eq!(components(b"a/b").unwrap(), [b"a", b"b"]);
        assert_eq!(components(&[b'a'; 255]).unwrap().len(), 1);
        let long = [b'a'; 256];
        for path in [&b""[..], b"/a", b"a/", b"a//b", b"a/../b", b"./a", b"a\0b", &long] {
            assert!(components(path).is_err(), "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn member_round_trips(
            path in proptest::collection::vec(1u8..=255, 1..300),
            target in proptest::collection::vec(1u8..=255, 1..300),
            which in 0..4,
            size in any::<u64>().prop_map(|n| n >> 1),
            mode in 0u32..0o10000,
            uid in 0..u32::MAX, gid in 0..u32::MAX,
            seconds in -4_000_000_000i64..400_000_000_000,
            nanos in 0u32..1_000_000_000,
        ) {
            let path: Vec<u8> = path.into_iter().map(|b| if b == b'/' { b'_' } else { b }).collect();
            let kind = match which {
                0 => MemberKind::Directory,
                1 => MemberKind::File(size),
                2 => MemberKind::Symlink(target),
                _ => MemberKind::HardLink(target),
            };
            let attributes = Attributes { mode, uid, gid, mtime: (seconds, nanos) };
            let member = Member { path, kind, attributes };
            prop_assert_eq!(round_trip(&member), member);
        }

        #[test]
        fn decode_never_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..2048)
        ) {
            let _ = decode(&mut &bytes[..]);
        }
    }
}
