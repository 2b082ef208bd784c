//! Fuzzes indexes. The first byte of an input determines the format of the rest:
//!
//! - `f`: a whole file
//! - `b`: the compressed body of an index
//! - `j`: an index as JSON; after a zero byte, the JSON of a possible base

use super::{mend_archive_digest, split};
use storecache_entry::Digest;
use storecache_snapshot::{Index, Verifier, inherited, open};

/// Indexes with more frames are not walked: that takes too long, and no real index that fits into an input
/// has as many.
const FRAMES: u32 = 1 << 16;

pub fn run(input: &[u8]) -> bool {
    match input.split_first() {
        Some((b'f', file)) => whole_file(file),
        Some((b'b', body)) => Index::from_bytes(&content(body)).is_ok(),
        Some((b'j', json)) => {
            let (delta, base) = split(json).unwrap_or((json, b""));
            indexes(delta, base)
        }
        _ => false,
    }
}

fn whole_file(file: &[u8]) -> bool {
    let opened = open(file.len() as u64, &mut |at, buffer| {
        buffer.copy_from_slice(&file[at as usize..][..buffer.len()]);
        Ok(())
    });
    let Ok(opened) = opened else { return false };
    promises(&opened.index);
    let mut verifier = Verifier::new(&opened.index).unwrap();
    for (number, frame) in opened.index.frames.iter().enumerate() {
        // The index was checked: frames lie between head and index.
        let bytes = &file[frame.at as usize..][..frame.size as usize];
        if verifier.frame(number as u32, bytes).is_err() {
            return false;
        }
    }
    verifier.finish().is_ok()
}

fn indexes(delta: &[u8], base: &[u8]) -> bool {
    let base = parse(base);
    let Some(mut delta) = parse(delta) else { return false };
    let Some(base) = base else { return delta.base.is_none() };
    let base_bytes = base.to_bytes().unwrap();
    if let Some(reference) = &mut delta.base {
        reference.index = Index::identity(&base_bytes).unwrap();
    }
    let Ok(joined) = inherited(&delta, &base, &base_bytes) else { return false };
    let reference = delta.base.as_ref().unwrap();
    for wanted in &reference.items {
        let found = &base.items[joined[wanted.name.as_str()]];
        assert_eq!((&found.name, found.nar_hash.as_ref()), (&wanted.name, Some(&wanted.nar_hash)));
        assert!(delta.holds(&wanted.name));
    }
    assert_eq!(joined.len(), reference.items.len());
    true
}

/// Parses an index and corrects its digest. Returns `None` if its numbers are inconsistent.
fn parse(json: &[u8]) -> Option<Index> {
    let body = zstd::bulk::compress(json, 1).unwrap();
    let mut index = Index::from_bytes(&content(&body)).ok()?;
    mend_archive_digest(&mut index);
    let again = Index::from_bytes(&index.to_bytes().unwrap()).unwrap();
    assert_eq!(again, index, "what was written is read back");
    index.check().ok()?;
    promises(&index);
    Some(index)
}

/// Returns the content of an index frame with this body.
fn content(body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_le_bytes();
    [&length[..], body, Digest::hash(body).as_bytes(), &[0; 4]].concat()
}

/// Asserts what other code relies on without checking it, once an index was checked.
fn promises(index: &Index) {
    let count = index.frames.len() as u32;
    if count > FRAMES {
        return;
    }
    let mut end = index.head_bytes;
    for frame in &index.frames {
        assert_eq!(frame.at, end);
        end = frame.at.checked_add(frame.size).unwrap();
    }
    for (position, item) in index.items.iter().enumerate() {
        let frames = index.frames_of([position]);
        assert!(frames.is_sorted_by(|a, b| a < b), "in order, each once");
        assert!(frames.iter().all(|&frame| frame < count));
        assert!(frames.len() <= 1 + frames.iter().filter(|&&frame| item.is_in(frame)).count());
        assert!(index.holds(&item.name));
        assert!(index.archive_path(item).ends_with(&item.name));
    }
    let all = index.frames_of(0..index.items.len());
    assert!(all.is_empty() || all.last() == Some(&(count - 1)));
    let _ = index.content();
    assert!(index.inherited().all(|name| index.holds(name)));
}
