//! Compressing one frame: choosing the level and the search distance, and detecting data that does not
//! compress.

use anyhow::{Context, Result};
use storecache_runtime::memory::FRAME;
use zstd::bulk;
use zstd::zstd_safe::{CParameter, compress_bound};

/// Window of the compressor for content that repeats at a distance: 64 MiB, as large as the largest frame.
/// Every zstd decodes that without further options (`zstd.1`: from 27 on, decoders may have limits).
const WINDOW_LOG: u32 = 26;

/// From this level on, the tables of a search at long distance would take hundreds of MiB. They are limited to
/// the size that they have for a frame of 4 MiB.
const DEEP: i32 = 13;
const DEEP_CHAIN_LOG: u32 = 22;
const DEEP_HASH_LOG: u32 = 22;
const DEEP_LDM_HASH_LOG: u32 = 20;

/// At the usual level, zstd uses tables of 768 KiB for a frame of over 256 KiB, which do not fit into the
/// caches close to a processor. With smaller tables it is up to a sixth faster, and frames are 0.7 % larger.
const USUAL: i32 = 3;
const USUAL_FROM: usize = 256 << 10;
const USUAL_HASH_LOG: u32 = 16;

/// Level for data that does not compress: almost no search, and the output is still smaller than the input if
/// the samples missed compressible data.
const DENSE_LEVEL: i32 = -50;

/// A frame with fewer tar bytes is always compressed, because skipping it would save little time.
const LEAST_DENSE: usize = 256 << 10;
/// Number and size of the evenly spaced samples that are taken of a frame.
const SAMPLES: usize = 16;
const SAMPLE: usize = 4 << 10;
/// Number of samples of a dense frame that may look like text. One in sixteen, so that a directory of archives
/// with its headers counts as dense.
const LIGHT: usize = 1;

/// Compresses frames one after the other, and reuses its memory.
pub struct Compressor {
    context: bulk::Compressor<'static>,
    sampler: bulk::Compressor<'static>,
    level: i32,
    /// Whether all frames are searched at long distance.
    long: bool,
    out: Vec<u8>,
}

impl Compressor {
    pub fn new(level: i32, long: bool) -> Result<Self> {
        let start = |level: i32| {
            bulk::Compressor::new(level).with_context(|| format!("start zstd at level {level}"))
        };
        Ok(Compressor { context: start(level)?, sampler: start(1)?, level, long, out: Vec::new() })
    }

    /// Compresses `raw` to one zstd frame, which depends on nothing else. `repeats` means that the frame has
    /// content several times.
    pub fn frame(&mut self, raw: &[u8], repeats: bool) -> Result<Vec<u8>> {
        let dense = !repeats && self.is_dense(raw)?;
        // A search at long distance takes memory and time, so it is enabled only if it is worth that.
        let far = !dense && (repeats || self.long);
        let quick = !dense && !far && self.level == USUAL && raw.len() > USUAL_FROM;
        self.set(if dense { DENSE_LEVEL } else { self.level }, far, quick)?;
        let bound = compress_bound(raw.len());
        self.out.clear();
        self.out.reserve_exact(bound);
        self.context.compress_to_buffer(raw, &mut self.out).context("compress a frame")?;
        if bound > compress_bound(FRAME as usize) {
            // Return the buffer of a large frame instead of a copy, and do not keep it for the next frame.
            let mut bytes = std::mem::take(&mut self.out);
            bytes.shrink_to_fit();
            return Ok(bytes);
        }
        Ok(self.out.as_slice().to_vec())
    }

    fn set(&mut self, level: i32, far: bool, quick: bool) -> Result<()> {
        let deep = far && level >= DEEP;
        let hash_log = if quick { USUAL_HASH_LOG } else { DEEP_HASH_LOG };
        let or_default = |condition: bool, value: u32| if condition { value } else { 0 };
        for parameter in [
            CParameter::CompressionLevel(level),
            CParameter::EnableLongDistanceMatching(far),
            CParameter::WindowLog(or_default(far, WINDOW_LOG)),
            CParameter::ChainLog(or_default(deep, DEEP_CHAIN_LOG)),
            CParameter::HashLog(or_default(deep || quick, hash_log)),
            CParameter::LdmHashLog(or_default(deep, DEEP_LDM_HASH_LOG)),
        ] {
            self.context.set_parameter(parameter).context("set up zstd")?;
        }
        Ok(())
    }

    /// Whether compression would gain nothing, as for archives, images and compressed data.
    fn is_dense(&mut self, raw: &[u8]) -> Result<bool> {
        if raw.len() < LEAST_DENSE {
            return Ok(false);
        }
        let step = (raw.len() - SAMPLE) / (SAMPLES - 1);
        let samples = || (0..SAMPLES).map(|nth| &raw[nth * step..nth * step + SAMPLE]);
        if samples().filter(|sample| !looks_random(sample)).count() > LIGHT {
            return Ok(false);
        }
        // Bytes may be equally frequent although their sequence repeats.
        let all: Vec<u8> = samples().flatten().copied().collect();
        self.out.clear();
        self.out.reserve_exact(compress_bound(all.len()));
        let size =
            self.sampler.compress_to_buffer(&all, &mut self.out).context("compress a sample")?;
        Ok(size >= all.len() / 100 * 94)
    }

    /// Returns the memory that zstd has allocated, in bytes.
    #[cfg(test)]
    fn memory(&mut self) -> usize {
        self.context.context_mut().sizeof() + self.sampler.context_mut().sizeof()
    }
}

/// Whether all bytes of a sample are about equally frequent, measured by the sum of the squares of their
/// counts. Random bytes give 1.06 times the possible minimum, and up to 1.25 times is accepted.
fn looks_random(sample: &[u8]) -> bool {
    let mut counts = [0u64; 256];
    for &byte in sample {
        counts[usize::from(byte)] += 1;
    }
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    let least = (sample.len() * sample.len() / 256) as u64;
    squares * 4 < least * 5
}

#[cfg(test)]
mod tests {
    use super::*;
    use storecache_runtime::memory::{LONG_FRAME, compressor};

    /// Text that takes a compressor some effort.
    fn text(length: usize) -> Vec<u8> {
        let number = |n: u32| (n.wrapping_mul(2_654_435_761) >> 20).to_string();
        (0..).flat_map(|n| number(n).into_bytes()).take(length).collect()
    }

    /// Returns twice as many bytes, of sixteen different values.
    fn digits(bytes: &[u8]) -> Vec<u8> {
        let digits = |byte: &u8| [byte >> 4, byte & 15].map(|digit| b'a' + digit);
        bytes.iter().flat_map(digits).collect()
    }

    #[test]
    fn zstd_takes_no_more_memory_than_the_budget_says() {
        // The memory depends on the length alone, and even level 19 compresses zeros quickly.
        let text = vec![0; LONG_FRAME as usize];
        for level in 1..=19 {
            let mut short = Compressor::new(level, false).unwrap();
            short.frame(&text[..FRAME as usize], false).unwrap();
            let taken = short.memory() as u64;
            assert!(taken <= compressor(level, false), "level {level}: {taken}");
            if ![1, 3, 9, 13, 19].contains(&level) {
                continue;
            }
            let mut long = Compressor::new(level, true).unwrap();
            long.frame(&text, false).unwrap();
            let taken = long.memory() as u64;
            assert!(taken <= compressor(level, true), "level {level}, long: {taken}");
        }
    }

    #[test]
    fn archives_and_noise_are_dense_and_nothing_else_is() {
        let mut compressor = Compressor::new(3, false).unwrap();
        let mut state = 1u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let noise: Vec<u8> = (0..1 << 17).flat_map(|_| random().to_le_bytes()).collect();
        assert!(compressor.is_dense(&noise).unwrap());
        let archive = zstd::bulk::compress(&digits(&noise), 19).unwrap();
        assert!(archive.len() > LEAST_DENSE);
        assert!(compressor.is_dense(&archive).unwrap());
        assert!(!compressor.is_dense(&digits(&noise)).unwrap());
        // All bytes are equally frequent, but the sequence repeats.
        let cycle: Vec<u8> = (0..1u32 << 20).map(|n| n as u8).collect();
        assert!(!compressor.is_dense(&cycle).unwrap());
        let again = [&noise[..4096]; 100].concat();
        assert!(!compressor.is_dense(&again).unwrap());
        assert!(!compressor.is_dense(&noise[..LEAST_DENSE - 1]).unwrap(), "not worth a look");
        // A fifth of text is worth compressing.
        let mixed = [&noise[..800 << 10], &text(200 << 10)].concat();
        assert!(!compressor.is_dense(&mixed).unwrap());
    }
}
