//! Malicious archives, made after archives that misled other programs.

use super::listings::ListingProgram;
use super::tar_blocks::directory;

/// The expected result of unpacking an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedResult {
    /// It is refused with an error that contains these words.
    Refused(&'static str),
    /// This many members are unpacked inside the item, and nothing else changes.
    Harmless(u64),
}
pub use ExpectedResult::{Harmless, Refused};

pub struct Archive {
    pub name: &'static str,
    /// The program with this weakness, or another reason for the case.
    pub origin: &'static str,
    /// Members that belong to the item `it`, or claim to.
    pub tar: Vec<u8>,
    /// A program that lists the archive, and words that its list must contain.
    pub claim: (ListingProgram, &'static str),
    pub fate: ExpectedResult,
}

/// Returns an archive that begins with the directory of the item.
pub fn below(
    name: &'static str,
    origin: &'static str,
    members: &[Vec<u8>],
    claim: (ListingProgram, &'static str),
    fate: ExpectedResult,
) -> Archive {
    let tar = [directory("it"), members.concat()].concat();
    Archive { name, origin, tar, claim, fate }
}
