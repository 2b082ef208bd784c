//! The forms in which a database writes the hash of an item.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// The digits of Nix's and Guix's base 32, see `NixOS/nix:src/libutil/base-nix-32.cc`.
const DIGITS: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// Parses a SHA-256, written as `sha256:` in base 16, 32 or 64, or as `sha256-` in base 64. Returns its 32
/// bytes, or `None` for any other text.
pub fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    if let Some(encoded) = text.strip_prefix("sha256-") {
        return BASE64_STANDARD.decode(encoded).ok()?.try_into().ok();
    }
    let encoded = text.strip_prefix("sha256:")?;
    match encoded.len() {
        64 => base16(encoded.as_bytes()),
        52 => base32(encoded.as_bytes()),
        _ => BASE64_STANDARD.decode(encoded).ok()?.try_into().ok(),
    }
}

fn base16(text: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |c: u8| (c as char).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

/// Decodes base 32. The last digit is the lowest five bits of the first byte.
fn base32(text: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    for (number, c) in text.iter().rev().enumerate() {
        let digit = DIGITS.iter().position(|digit| digit == c)? as u16;
        let (byte, shift) = (number * 5 / 8, number * 5 % 8);
        let bits = digit << shift;
        bytes[byte] |= bits as u8;
        match bytes.get_mut(byte + 1) {
            Some(next) => *next |= (bits >> 8) as u8,
            None if bits >> 8 != 0 => return None,
            None => {}
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_forms_parse_to_the_same_hash() {
        // SHA-256 of the empty input.
        let forms = [
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
            "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        ];
        let parsed = forms.map(parse_sha256);
        assert!(parsed[0].is_some());
        assert!(parsed.iter().all(|hash| *hash == parsed[0]), "{parsed:?}");
        for bad in [
            "",
            "sha256:",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "sha256:g3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha256:zmdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
            "sha256-47DEQpj8HBSa",
        ] {
            assert_eq!(parse_sha256(bad), None, "{bad}");
        }
    }
}
