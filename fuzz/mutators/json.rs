//! Mutates numbers and lists of a JSON text so that it remains JSON.

use crate::random::Random;
use std::ops::Range;

const NUMBERS: [&str; 8] = [
    "0",
    "1",
    "2",
    "512",
    "4294967295",
    "4294967296",
    "9223372036854775808",
    "18446744073709551615",
];

/// Returns a changed text, or `None` if there is nothing to change.
pub fn mutate(text: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let (part, new) = match random.below(3) {
        0 => {
            // Duplicate an element of a list, replace it by another element, or remove it.
            let elements = elements(text);
            let at = pick(&elements, random)?;
            match random.below(3) {
                0 => (at.clone(), [&text[at.clone()], b",", &text[at]].concat()),
                1 => {
                    let other = pick(&elements, random)?;
                    (at, text[other].to_vec())
                }
                _ => {
                    let comma = text.get(at.end) == Some(&b',');
                    (at.start..at.end + usize::from(comma), Vec::new())
                }
            }
        }
        way => {
            let numbers = numbers(text);
            let at = pick(&numbers, random)?;
            let number = str::from_utf8(&text[at.clone()]).ok()?.parse::<u64>().ok();
            let new = match (way, number) {
                (1, Some(number)) if random.below(2) == 0 => number.wrapping_add(1).to_string(),
                (1, Some(number)) => number.wrapping_sub(1).to_string(),
                _ if random.below(2) == 0 => (*random.one_of(&NUMBERS.each_ref())).to_string(),
                _ => String::from_utf8(text[pick(&numbers, random)?].to_vec()).ok()?,
            };
            (at, new.into_bytes())
        }
    };
    Some([&text[..part.start], &new, &text[part.end..]].concat())
}

fn pick(ranges: &[Range<usize>], random: &mut Random) -> Option<Range<usize>> {
    (!ranges.is_empty()).then(|| ranges[random.below(ranges.len())].clone())
}

/// Returns the positions of numbers that are values.
fn numbers(text: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 0 && at > 0 && b":[,".contains(&text[at - 1]) {
            found.push(at..at + digits);
        }
        at += digits.max(1);
    }
    found
}

/// Returns the positions of objects and lists inside lists.
fn elements(text: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut open = Vec::new();
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'{' | b'[' => open.push(at),
            b'}' | b']' => {
                let start = open.pop().unwrap_or(0);
                if start > 0 && b"[,".contains(&text[start - 1]) {
                    found.push(start..at + 1);
                }
            }
            _ => {}
        }
    }
    found
}
