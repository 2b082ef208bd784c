//! Prints the items of a snapshot with their sizes.
//!
//! ```text
//! cargo run --package storecache-snapshot --example list_items -- FILE.tar.zst
//! ```
//!
//! Only head and index are read, from the two ends of the file. [`open`] checks them against each other.

#![allow(clippy::disallowed_macros, reason = "the functions of the program are not here")]

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use storecache_snapshot::{Opened, open};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: list_items FILE")?;
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    // A reader of a remote file would request this range from its server.
    let mut read_at = |offset: u64, buffer: &mut [u8]| file.read_exact_at(buffer, offset);
    let Opened { head, index, .. } = open(length, &mut read_at)?;

    println!("{} {} for {}", head.store.kind, head.store.version, head.store.system);
    for item in &index.items {
        // A plain directory has no NAR size.
        let size = item.nar_size.unwrap_or(item.disk);
        // A name may contain any characters, so it is escaped.
        println!("{size:>14}  {}", item.name.escape_debug());
    }
    if let Some(base) = &index.base {
        println!("in the base {}:", base.entry.escape_debug());
        for item in &base.items {
            println!("                {}", item.name.escape_debug());
        }
    }
    Ok(())
}
