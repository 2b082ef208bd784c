//! What fuzzers do with their inputs, and what must hold whatever these are.
//!
//! One module for each target; its `run` panics where a promise is broken, and tells whether the input was
//! accepted. An input is what a snapshot or
//! a pipe holds, without the digests that would keep a change from getting anywhere. The targets in
//! `fuzz_targets` call these functions, and so does `tests/fuzz_corpus.rs`, with the stored inputs and
//! without a fuzzer.

// The rooms by the name that the product has, which `tests/fuzz_corpus.rs` runs the other targets with. The target
// `orders` needs the rooms themselves, in which nothing is executed.
#[cfg(not(test))]
extern crate rooms as storecache;

pub mod database;
#[cfg(target_arch = "x86_64")]
pub mod fake_kernel;
pub mod frames;
pub mod head;
pub mod index;
#[cfg(target_arch = "x86_64")]
pub mod orders;
pub mod protocol;
#[cfg(target_arch = "x86_64")]
pub mod scene;
pub mod yard;

use storecache::snapshot::{Digest, Index};

/// Splits an input at its first zero byte.
pub fn split(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = input.iter().position(|&byte| byte == 0)?;
    Some((&input[..at], &input[at + 1..]))
}

/// Gives an index the digest over head and frames that it should have.
pub fn mend_archive_digest(index: &mut Index) {
    let frames = index.frames.iter().map(|frame| &frame.sha256);
    let digests = std::iter::once(&index.head).chain(frames);
    index.archive = Digest::of_parts(digests.map(|digest| digest.as_bytes().as_slice()));
}
