//! Fuzzes heads of snapshots: an input is the JSON of one head.

use storecache_snapshot::{FORMAT, Head, SnapshotError, open_head};

pub fn run(input: &[u8]) -> bool {
    // Open the input as a file, and as the head of a file.
    let _ = open(input);
    let size = (input.len() as u32).to_le_bytes();
    let framed = open(&[&0x184D_2A53_u32.to_le_bytes()[..], &size, input].concat());
    let bare = Head::from_bytes(input);
    assert_eq!(framed.is_ok(), bare.is_ok());
    let Ok(head) = bare else { return false };
    assert!((1..=FORMAT).contains(&head.format));
    let again = Head::from_bytes(&head.to_bytes().unwrap()).unwrap();
    assert_eq!(again, head, "what was written is read back");
    assert_eq!(again.cache_version(), head.cache_version());
    true
}

fn open(file: &[u8]) -> Result<Head, SnapshotError> {
    open_head(file.len() as u64, &mut |at, buffer| {
        buffer.copy_from_slice(&file[at as usize..][..buffer.len()]);
        Ok(())
    })
}
