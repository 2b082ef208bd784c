//! Fuzzes the pipes between the user process and the root helper: an input is the content of a pipe.

use serde::Serialize;
use serde::de::DeserializeOwned;
use storecache_root_helper::protocol::{Reply, Request, read_message, write_message};
use storecache_runtime::memory::ByteSemaphore;

/// Bytes of frames that may be received ahead.
const AHEAD: u64 = 1 << 16;

pub fn run(input: &[u8]) -> bool {
    // Parse the input as requests and as replies.
    converse::<Request>(input) | converse::<Reply>(input)
}

/// Reads messages until the input ends or is invalid; true if it ends.
fn converse<M: Serialize + DeserializeOwned>(input: &[u8]) -> bool {
    let memory = ByteSemaphore::new(AHEAD);
    let mut rest = input;
    let ended = loop {
        let before = rest.len();
        let (message, payload) = match read_message::<M>(&mut rest, &memory) {
            Ok(Some(message)) => message,
            end => break end.is_ok(),
        };
        assert!(rest.len() + payload.len() + 8 < before, "it is as long as it says");
        if !payload.is_empty() {
            let free = AHEAD.saturating_sub(payload.len() as u64);
            assert!(memory.try_take(free + 1).is_none(), "a payload counts as long as it is there");
        }
        assert_comes_back(&message, &payload);
        drop(payload);
        let all = memory.try_take(AHEAD).expect("all is given back");
        assert!(memory.try_take(1).is_none(), "nothing is given back twice");
        drop(all);
    };
    // After an error, all memory is released too.
    assert!(memory.try_take(AHEAD).is_some_and(|_all| memory.try_take(1).is_none()));
    ended
}

fn assert_comes_back<M: Serialize + DeserializeOwned>(message: &M, payload: &[u8]) {
    let mut written = Vec::new();
    write_message(&mut written, message, payload).unwrap();
    let mut rest = &written[..];
    let read = read_message::<M>(&mut rest, &ByteSemaphore::new(AHEAD)).unwrap();
    let (again, again_payload) = read.expect("a message");
    assert!(rest.is_empty());
    assert_eq!(*again_payload, *payload);
    let text = |message: &M| serde_json::to_string(message).unwrap();
    assert_eq!(text(&again), text(message), "what was written is read back");
}
