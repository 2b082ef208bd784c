#![no_main]

#[path = "../mutators/random.rs"]
mod random;
#[path = "../mutators/sqlite.rs"]
mod sqlite;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(|input: &[u8]| {
    storecache_fuzz::database::run(input);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    sqlite::mutate(data, size, max_size, seed)
});
