//! Archives that are known to have led other programs astray, made anew by us.

use super::blocks::directory;
use super::judges::Judge;

/// What has to become of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is refused with these words.
    Refused(&'static str),
    /// So many members are unpacked where they belong, and nothing else happens.
    Harmless(u64),
}
pub use Fate::{Harmless, Refused};

pub struct Archive {
    pub name: &'static str,
    /// Whose weakness it was, or why it is here.
    pub origin: &'static str,
    /// Members of the item `it`, or said to be.
    pub tar: Vec<u8>,
    /// Words that another program has for it.
    pub claim: (Judge, &'static str),
    pub fate: Fate,
}

/// An archive that begins with the directory of the item.
pub fn below(
    name: &'static str,
    origin: &'static str,
    members: &[Vec<u8>],
    claim: (Judge, &'static str),
    fate: Fate,
) -> Archive {
    let tar = [directory("it"), members.concat()].concat();
    Archive { name, origin, tar, claim, fate }
}
