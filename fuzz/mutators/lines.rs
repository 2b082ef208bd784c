//! Mutates a text of lines that consist of words with spaces between them.

use crate::json;
use crate::random::Random;

/// Words with a meaning in a scene (`src/scene.rs`).
const WORDS: [&str; 28] = [
    "0",
    "1",
    "1000",
    "100",
    "65534",
    "755",
    "775",
    "777",
    "1777",
    "/",
    "/nix",
    "/nix/store",
    "/nix/store/0-item",
    "/nix/var/nix/gcroots",
    "/nix/var/nix/gcroots/storecache",
    "/nix/var/nix/daemon-socket",
    "/nix/var/nix/daemon-socket/socket",
    "/gnu/store",
    "/home/user",
    "/tmp",
    "/run/storecache",
    "/var/lib/storecache",
    "/etc/shadow",
    "nix-daemon.service",
    "sshd.service",
    "user",
    "nix",
    "..",
];

/// Returns a changed text, or `None` if there is nothing to change.
pub fn mutate(text: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = text.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
    let at = random.below(lines.len());
    let other = random.below(lines.len());
    match random.below(6) {
        0 => _ = lines.remove(at),
        1 => {
            let line = lines[at].clone();
            lines.insert(other, line);
        }
        2 => lines.swap(at, other),
        3 => lines[at] = json::mutate(&lines[at], random)?,
        way => {
            // Replace a word by one from this text or from the list.
            let mut words: Vec<&[u8]> = lines[at].split(|&byte| byte == b' ').collect();
            let from: Vec<&[u8]> = lines[other].split(|&byte| byte == b' ').collect();
            let new = match way {
                4 => from[random.below(from.len())],
                _ => random.one_of(&WORDS.each_ref()).as_bytes(),
            };
            let place = random.below(words.len());
            words[place] = new;
            lines[at] = words.join(&b' ');
        }
    }
    Some(lines.join(&b'\n'))
}
