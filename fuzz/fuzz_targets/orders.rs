#![no_main]

#[path = "../mutators/json.rs"]
mod json;
#[path = "../mutators/lines.rs"]
mod lines;
#[path = "../mutators/random.rs"]
mod random;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use random::Random;

fuzz_target!(|input: &[u8]| {
    let is_accepted = storecache_fuzz::orders::run(input);
    // `scripts/fuzz` runs the seeds so.
    assert!(is_accepted || std::env::var_os("STORECACHE_FUZZ_ACCEPT").is_none(), "not accepted");
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = Random::new(seed);
    match (random.below(3) > 0).then(|| lines::mutate(&data[..size], &mut random)).flatten() {
        Some(text) if text.len() <= max_size => {
            data[..text.len()].copy_from_slice(&text);
            text.len()
        }
        _ => fuzzer_mutate(data, size, max_size),
    }
});
