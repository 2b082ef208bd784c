//! The fuzz targets, and the properties that must hold for all inputs.
//!
//! There is one module for each target; its `run` panics if a property is violated, and returns whether the
//! input was accepted. An input is the content of a snapshot or a pipe, without the digests that would reject
//! nearly every mutation. The targets in `fuzz_targets` call these functions, and so does
//! `tests/fast/fuzz_corpus.rs`, which runs the stored inputs without a fuzzer. It leaves out the target `orders`, which
//! needs a crate `programs` that executes nothing; `scripts/fuzz` runs its inputs.

pub mod database;
#[cfg(all(target_arch = "x86_64", not(test)))]
pub mod fake_kernel;
pub mod frames;
pub mod head;
pub mod index;
#[cfg(all(target_arch = "x86_64", not(test)))]
pub mod orders;
pub mod protocol;
#[cfg(all(target_arch = "x86_64", not(test)))]
pub mod scene;
pub mod yard;

use storecache_entry::Digest;
use storecache_snapshot::Index;

/// Splits an input at its first zero byte.
pub fn split(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = input.iter().position(|&byte| byte == 0)?;
    Some((&input[..at], &input[at + 1..]))
}

/// Sets the digest over head and frames of an index to the correct value.
pub fn mend_archive_digest(index: &mut Index) {
    let frames = index.frames.iter().map(|frame| &frame.sha256);
    let digests = std::iter::once(&index.head).chain(frames);
    index.archive = Digest::of_parts(digests.map(|digest| digest.as_bytes().as_slice()));
}
