//! Signatures of snapshots: by which key a snapshot was signed.
//!
//! The signed text is one line that no other program signs, with the digest of the index's body:
//!
//! ```text
//! storecache-snapshot;1;<SHA-256 of the body of the index, 64 hexadecimal digits>
//! ```
//!
//! The body has the digest of the head and of every frame, and of the index of a base, so no part of a snapshot
//! can be changed without invalidating its signature. The signature block of the index is JSON:
//!
//! ```text
//! {"signatures": [{"key": "NAME", "ed25519": "<64 bytes in base64>"}]}
//! ```
//!
//! Readers that do not know signatures ignore the block. Keys are written like those of Nix's binary caches:
//! `NAME:`, and then in base64 the 32 bytes of a public key, or the seed of a secret key followed by its public
//! key. This module does not decide which keys to trust.

use super::{Digest, SnapshotError};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Prefix of every text that is signed here. Texts that Nix signs with the same keys begin with `1;/`.
const DOMAIN: &str = "storecache-snapshot;1;";
/// Limits on the size of a block, in bytes, and on the number of signatures in it, because checking one takes
/// time.
const BLOCK_LIMIT: usize = 1 << 16;
const SIGNATURE_LIMIT: usize = 64;

/// Why a text is not a valid key. The error never contains the text, which may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    #[error("not of the form NAME:BASE64, as `nix-store --generate-binary-cache-key` makes it")]
    Form,
    #[error("this is a public key, but a secret key is needed")]
    Public,
    #[error(
        "this is a secret key, but a public key is needed; replace it if others may have read it, \
         because they can sign with it"
    )]
    Secret,
    #[error("the secret and the public part of the key do not match")]
    Halves,
    #[error("not a valid ed25519 public key")]
    Weak,
}

/// A key that signs. It cannot be printed.
#[derive(Clone)]
pub struct SecretKey {
    name: String,
    key: SigningKey,
}

/// A key to check signatures with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    key: VerifyingKey,
}

/// A signature in the block, with the name of the key that it claims to be made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    pub key: String,
    ed25519: String,
}

/// The result of checking a signature with a list of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Valid,
    /// There is a key of that name, but the signature was not made with it, or is for another snapshot.
    Invalid,
    /// No key has that name.
    UnknownKey,
}

#[derive(Serialize, Deserialize)]
struct Block {
    signatures: Vec<Signature>,
}

impl SecretKey {
    /// Parses a secret key.
    ///
    /// # Errors
    /// If the text is not a valid secret key.
    pub fn parse(text: &str) -> Result<Self, BadKey> {
        let (name, bytes) = split(text)?;
        let bytes = match bytes.len() {
            32 => return Err(BadKey::Public),
            _ => bytes.try_into().map_err(|_| BadKey::Form)?,
        };
        let key = SigningKey::from_keypair_bytes(&bytes).map_err(|_| BadKey::Halves)?;
        Ok(SecretKey { name, key })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn public(&self) -> PublicKey {
        PublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// Signs the snapshot whose index has a body of this digest.
    fn sign(&self, body: &Digest) -> Signature {
        let signature = self.key.sign(signed_text(body).as_bytes());
        Signature { key: self.name.clone(), ed25519: BASE64_STANDARD.encode(signature.to_bytes()) }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.name)
    }
}

impl PublicKey {
    /// Parses a public key.
    ///
    /// # Errors
    /// If the text is not a valid public key.
    pub fn parse(text: &str) -> Result<Self, BadKey> {
        let (name, bytes) = split(text)?;
        let bytes = match bytes.len() {
            64 => return Err(BadKey::Secret),
            _ => bytes.try_into().map_err(|_| BadKey::Form)?,
        };
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| BadKey::Weak)?;
        match key.is_weak() {
            true => Err(BadKey::Weak),
            false => Ok(PublicKey { name, key }),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, BASE64_STANDARD.encode(self.key.as_bytes()))
    }
}

impl Signature {
    /// Checks the signature with `keys`, for the snapshot whose index has a body of this digest.
    pub fn judge(&self, body: &Digest, keys: &[PublicKey]) -> Verdict {
        let mut named = keys.iter().filter(|key| key.name == self.key).peekable();
        if named.peek().is_none() {
            return Verdict::UnknownKey;
        }
        let bytes = BASE64_STANDARD.decode(&self.ed25519).ok();
        let signature = bytes.and_then(|bytes| ed25519_dalek::Signature::from_slice(&bytes).ok());
        let text = signed_text(body);
        let right = signature.is_some_and(|signature| {
            named.any(|key| key.key.verify_strict(text.as_bytes(), &signature).is_ok())
        });
        if right { Verdict::Valid } else { Verdict::Invalid }
    }
}

/// Returns the content of a signature block. It is empty if `keys` is empty.
pub(super) fn block(body: &Digest, keys: &[SecretKey]) -> Result<Vec<u8>, SnapshotError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let signatures = keys.iter().map(|key| key.sign(body)).collect();
    serde_json::to_vec(&Block { signatures })
        .map_err(|e| SnapshotError::damaged(format!("signatures: {e}")))
}

/// Reads a signature block.
///
/// # Errors
/// If the block is not empty and does not parse: the signers are unknown then.
pub(super) fn read_block(bytes: &[u8]) -> Result<Vec<Signature>, SnapshotError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let wrong = |why: String| SnapshotError::damaged(format!("its signatures do not parse: {why}"));
    if bytes.len() > BLOCK_LIMIT {
        return Err(wrong(format!("they are too large ({} bytes)", bytes.len())));
    }
    let Block { signatures } = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
    if signatures.len() > SIGNATURE_LIMIT {
        return Err(wrong(format!("there are too many ({})", signatures.len())));
    }
    match signatures.iter().all(|signature| is_name(&signature.key)) {
        true => Ok(signatures),
        false => Err(wrong("the name of a key is not valid".into())),
    }
}

fn signed_text(body: &Digest) -> String {
    format!("{DOMAIN}{body}")
}

fn split(text: &str) -> Result<(String, Vec<u8>), BadKey> {
    let (name, encoded) = text.split_once(':').ok_or(BadKey::Form)?;
    let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| BadKey::Form)?;
    match is_name(name) {
        true => Ok((name.to_owned(), bytes)),
        false => Err(BadKey::Form),
    }
}

/// Whether a key name can be printed, and be part of a list of keys.
fn is_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first key of RFC 8032, section 7.1.
    const SECRET: &str = "test-1:nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL/tPJZAc6DuFy89qmIyWvAhpo9wdRGg==";
    const PUBLIC: &str = "test-1:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    #[test]
    fn signature_is_valid_only_for_its_key_name_and_snapshot() {
        let key = SecretKey::parse(SECRET).unwrap();
        let public = PublicKey::parse(PUBLIC).unwrap();
        assert_eq!(key.public(), public);
        assert_eq!(public.to_string(), PUBLIC);
        let body = Digest::hash(b"body");
        let block = block(&body, &[key]).unwrap();
        let signature = &read_block(&block).unwrap()[0];
        let keys = std::slice::from_ref(&public);
        assert_eq!(signature.judge(&body, keys), Verdict::Valid);
        assert_eq!(signature.judge(&Digest::hash(b"bodz"), keys), Verdict::Invalid);
        assert_eq!(signature.judge(&body, &[]), Verdict::UnknownKey);
        let renamed = PublicKey { name: "test-2".into(), ..public.clone() };
        assert_eq!(signature.judge(&body, &[renamed]), Verdict::UnknownKey);
        // Two keys of the same name, as while one replaces the other.
        let other =
            PublicKey { key: SigningKey::from_bytes(&[7; 32]).verifying_key(), ..public.clone() };
        assert_eq!(signature.judge(&body, std::slice::from_ref(&other)), Verdict::Invalid);
        assert_eq!(signature.judge(&body, &[other, public.clone()]), Verdict::Valid);
        let cut = Signature { ed25519: signature.ed25519[..40].into(), ..signature.clone() };
        assert_eq!(cut.judge(&body, keys), Verdict::Invalid);
    }

    #[test]
    fn invalid_key_is_refused_and_not_printed() {
        let (name, encoded) = SECRET.split_once(':').unwrap();
        let halves = [&encoded[..40], &encoded[..40], &encoded[80..]].concat();
        for (text, expected) in [
            (encoded.to_owned(), BadKey::Form),
            (format!(":{encoded}"), BadKey::Form),
            (format!("a b:{encoded}"), BadKey::Form),
            (format!("{name}:{}", &encoded[..50]), BadKey::Form),
            (format!("{name}:{halves}"), BadKey::Halves),
            (PUBLIC.to_owned(), BadKey::Public),
            (String::new(), BadKey::Form),
        ] {
            assert_eq!(SecretKey::parse(&text).unwrap_err(), expected, "{text}");
        }
        assert_eq!(PublicKey::parse(SECRET).unwrap_err(), BadKey::Secret);
        // The neutral element: for this key, a signature can be constructed for any text.
        let weak = format!("k:{}", BASE64_STANDARD.encode([&[1][..], &[0; 31]].concat()));
        assert_eq!(PublicKey::parse(&weak).unwrap_err(), BadKey::Weak);
        let shown = format!("{:?}", SecretKey::parse(SECRET).unwrap());
        assert_eq!(shown, "SecretKey(test-1)");
    }

    #[test]
    fn signature_block_limits_size_count_and_key_names() {
        let of = |key: &str| Signature { key: key.into(), ed25519: String::new() };
        let block = |signatures| serde_json::to_vec(&Block { signatures }).unwrap();
        assert_eq!(read_block(b"").unwrap(), []);
        assert_eq!(read_block(br#"{"signatures": [], "more": 1}"#).unwrap(), []);
        assert!(read_block(&block(vec![of("a"); 64])).is_ok());
        assert!(read_block(&block(vec![of("a"); 65])).is_err());
        assert!(read_block(&[b' '; 70_000]).is_err());
        for name in ["", "a\nb", "a b", "a:b", "\u{1b}[1m"] {
            assert!(read_block(&block(vec![of(name)])).is_err(), "{name:?}");
        }
        for bytes in [&b"{"[..], b"[]", b"\0", b"{}"] {
            assert!(read_block(bytes).is_err());
        }
    }
}
