#![no_main]

#[path = "../mutators/json.rs"]
mod json;
#[path = "../mutators/random.rs"]
mod random;
#[path = "../mutators/tar.rs"]
mod tar;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(|input: &[u8]| {
    storecache_fuzz::frames::run(input);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    tar::mutate(data, size, max_size, seed)
});
