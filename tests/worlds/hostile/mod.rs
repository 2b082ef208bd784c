//! Malicious archives: each is refused or unpacked inside its item, nothing else is changed, nothing panics,
//! and memory stays bounded.
//!
//! The archives are in tables: [`names`], [`links`], [`member_types`], [`number_fields`]. Each row names the program
//! with the weakness, and what another program sees in the archive.

mod archive;
mod bombs;
mod databases;
mod links;
mod listings;
mod member_types;
mod names;
mod number_fields;
mod real_stores;
mod replaced_paths;
mod tar_blocks;

use std::collections::BTreeSet;
use std::fs;

use crate::support::extract_dir::{ExtractDir, parts};
use crate::support::snapshot_builder::{SnapshotParts, check, frame, item, open_bytes};
use archive::{Archive, Harmless, Refused};
use listings::{BsdTar, GnuTar, Python, listings};
use storecache_snapshot::Opened;

/// The claimed number of members of archives that must be refused for another reason.
const CLAIMED_MEMBERS: u64 = 1000;

fn archives() -> Vec<Archive> {
    [names::archives(), links::archives(), member_types::archives(), number_fields::archives()]
        .into_iter()
        .flatten()
        .collect()
}

impl Archive {
    /// Returns a snapshot with this archive in one frame, in which every digest is right.
    fn snapshot(&self) -> Vec<u8> {
        let members = match self.fate {
            Refused(_) => CLAIMED_MEMBERS,
            Harmless(members) => members,
        };
        let members = if self.origin.contains("no member stands for") { 2 } else { members };
        parts(vec![frame(&self.tar)], vec![item("it", (0, 0), members)]).build()
    }
}

#[test]
fn hostile_archives_are_refused_or_stay_inside_their_item() {
    let archives = archives();
    let names: BTreeSet<&str> = archives.iter().map(|archive| archive.name).collect();
    assert_eq!(names.len(), archives.len(), "each has a name of its own");
    let wrong: Vec<String> = archives.iter().filter_map(|it| check_unpacking(it).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let refused = archives.iter().filter(|it| matches!(it.fate, Refused(_))).count() as u64;
    println!("{refused} of {} archives refused", archives.len());
    record(refused);
}

/// Unpacks an archive into a store and into plain directories.
fn check_unpacking(archive: &Archive) -> Result<(), String> {
    let Archive { name, origin, .. } = archive;
    let bytes = archive.snapshot();
    let Opened { index, .. } = open_bytes(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
    let frames = SnapshotParts::new(&bytes).frames;
    // `check` does not unpack, so it does not detect links or repeated names; but it must not panic.
    let _ = check(&bytes);
    for owner in [Some((0, 0)), None] {
        let yard = ExtractDir::new();
        let unpacked = yard.unpack(&index, &frames, owner, 2);
        yard.assert_untouched_outside();
        let text = match &unpacked {
            Ok(_) => "unpacked".to_owned(),
            Err(error) => format!("{error:#}").to_lowercase(),
        };
        let right = match archive.fate {
            Refused(words) => unpacked.is_err() && text.contains(&words.to_lowercase()),
            Harmless(_) => unpacked.is_ok(),
        };
        // A refusal because of too few members is not the expected one.
        let counted = text.contains(&format!("of {CLAIMED_MEMBERS} members"));
        if !right || counted || text.contains("panicked") {
            return Err(format!("{name} ({origin}): {text}, not {:?}", archive.fate));
        }
        if unpacked.is_ok() && owner.is_some() {
            yard.assert_canonical();
        }
    }
    Ok(())
}

#[test]
fn hostile_archives_are_listed_as_claimed_by_other_programs() {
    let mut wrong = Vec::new();
    let archives = archives();
    for judge in [GnuTar, BsdTar, Python] {
        let asked: Vec<&Archive> = archives.iter().filter(|it| it.claim.0 == judge).collect();
        let tars: Vec<&[u8]> = asked.iter().map(|archive| archive.tar.as_slice()).collect();
        for (archive, seen) in asked.iter().zip(listings(judge, &tars)) {
            let words = archive.claim.1;
            if !seen.contains(words) {
                wrong.push(format!("{}: {judge:?} has not {words:?}:\n{seen:.800}", archive.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Writes the number of refused archives, if the campaign keeps a record.
fn record(refused: u64) {
    let Some(directory) = std::env::var_os("STORECACHE_CAMPAIGN_RECORD") else { return };
    let text = format!("{{\"part\": \"archives\", \"refused\": {refused}}}\n");
    fs::create_dir_all(&directory).unwrap();
    fs::write(std::path::Path::new(&directory).join("archives.json"), text).unwrap();
}
