//! Mutates frames of tar members so that they remain archives: whole blocks, and fields of headers.

use crate::json;
use crate::random::Random;
use libfuzzer_sys::fuzzer_mutate;
use storecache_fuzz::frames::BLOCK;

/// Offset and length of name, mode, user, group, size, time, type, target and magic in a header.
const FIELDS: [(usize, usize); 9] =
    [(0, 100), (100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8)];
const TYPES: &[u8] = b"0125LKx0125LKx\x003467ADMNSVXgZ";
const WAYS_OUT: [&[u8]; 12] = [
    b"..",
    b"../outside",
    b"../../outside",
    b"../../../outside/secret",
    b"/etc/passwd",
    b".",
    b"",
    b"/",
    b"//",
    b"a/../../..",
    b"link",
    b"outside/secret",
];

/// Changes an input of the target `frames`, and returns its new size.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Random::new(seed);
    let tar_at = data[..size].iter().skip(1).position(|&byte| byte == 0).map(|at| at + 2);
    let Some(tar_at) = tar_at.filter(|&at| at + BLOCK <= size) else {
        return fuzzer_mutate(data, size, max_size);
    };
    match random.below(8) {
        0 => fuzzer_mutate(data, size, max_size),
        1 => match json::mutate(&data[1..tar_at - 1], &mut random) {
            Some(text) if text.len() + 2 + size - tar_at <= max_size => {
                splice(data, size, 1..tar_at - 1, &text)
            }
            _ => fuzzer_mutate(data, size, max_size),
        },
        // Mutate only flags and index, within the free space of the buffer.
        2 => {
            let mut front = data[..tar_at].to_vec();
            front.resize(tar_at + max_size - size, 0);
            let room = front.len();
            let length = fuzzer_mutate(&mut front, tar_at, room);
            splice(data, size, 0..tar_at, &front[..length])
        }
        _ => {
            let mut blocks: Vec<[u8; BLOCK]> = data[tar_at..size].as_chunks::<BLOCK>().0.to_vec();
            for _ in 0..=random.below(3) {
                change(&mut blocks, &mut random);
            }
            blocks.truncate((max_size - tar_at) / BLOCK);
            splice(data, size, tar_at..size, blocks.as_flattened())
        }
    }
}

fn change(blocks: &mut Vec<[u8; BLOCK]>, random: &mut Random) {
    if blocks.is_empty() {
        blocks.push([0; BLOCK]);
    }
    let headers: Vec<usize> =
        (0..blocks.len()).filter(|&at| blocks[at][257..262] == *b"ustar").collect();
    let any = random.below(blocks.len());
    let header = if headers.is_empty() { any } else { headers[random.below(headers.len())] };
    let other = if headers.is_empty() { any } else { headers[random.below(headers.len())] };
    let name = |block: &[u8; BLOCK]| -> Vec<u8> {
        block[..100].iter().copied().take_while(|&byte| byte != 0).collect()
    };
    match random.below(14) {
        0 => drop(blocks.remove(any)),
        1 => blocks.insert(any, blocks[other]),
        2 => blocks.swap(header, other),
        3 => blocks.push(blocks[header]),
        4 => blocks[header][156] = TYPES[random.below(TYPES.len())],
        5 => {
            // A path below another member, or out of the target through it.
            let path = [&name(&blocks[other])[..], b"/", random.one_of(&WAYS_OUT)].concat();
            write(&mut blocks[header][..100], &path);
        }
        6 => {
            let target = random.one_of(&WAYS_OUT);
            write(&mut blocks[header][157..257], target);
        }
        7 => {
            let target = name(&blocks[other]);
            write(&mut blocks[header][157..257], target.strip_suffix(b"/").unwrap_or(&target));
        }
        8 => {
            let path = name(&blocks[other]);
            write(&mut blocks[header][..100], &path);
        }
        // A size of zero to three blocks.
        9 => {
            let size = random.below(4) * BLOCK;
            write(&mut blocks[header][124..136], format!("{size:011o}").as_bytes());
        }
        // A link that leads out of the target, and a member below the link.
        10 | 11 => {
            blocks[header][124..136].copy_from_slice(b"00000000000\0");
            blocks[header][156] = b'2';
            let target = random.one_of(&WAYS_OUT);
            write(&mut blocks[header][157..257], target);
            let link = name(&blocks[header]);
            let link = link.strip_suffix(b"/").unwrap_or(&link).to_vec();
            write(&mut blocks[header][..100], &link);
            let path = [&link[..], b"/x"].concat();
            if let Some(&next) = headers.iter().find(|&&next| next > header) {
                write(&mut blocks[next][..100], &path);
            }
        }
        12 => drop(fuzzer_mutate(&mut blocks[any], BLOCK, BLOCK)),
        _ => {
            let (at, length) = FIELDS[random.below(FIELDS.len())];
            fuzzer_mutate(&mut blocks[header][at..at + length], length, length);
        }
    }
}

fn write(field: &mut [u8], value: &[u8]) {
    field.fill(0);
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

/// Replaces a range of bytes. Truncates the result to the length of `data`.
fn splice(data: &mut [u8], size: usize, part: std::ops::Range<usize>, new: &[u8]) -> usize {
    let rest = data[part.end..size].to_vec();
    let all = [&data[..part.start], new, &rest].concat();
    let size = all.len().min(data.len());
    data[..size].copy_from_slice(&all[..size]);
    size
}
