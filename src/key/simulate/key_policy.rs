//! The ways to make keys that a simulation compares.

/// A way to make keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPolicy {
    pub name: String,
    /// What is hashed; the version alone when there is nothing.
    pub parts: Vec<KeyPart>,
}

/// Something that goes into the hash of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPart {
    /// The workflow, byte by byte.
    Bytes,
    /// What of the workflow counts.
    Semantic,
    /// Files that pin versions.
    Lock,
    /// Files of a pattern.
    Files(String),
}

impl KeyPolicy {
    /// Those that every simulation compares, the simplest last.
    pub fn built_in() -> Vec<KeyPolicy> {
        let policy = |name: &str, parts: &[KeyPart]| KeyPolicy {
            name: name.to_owned(),
            parts: parts.to_vec(),
        };
        vec![
            policy("bytes", &[KeyPart::Bytes]),
            policy("semantic", &[KeyPart::Semantic]),
            policy("lock", &[KeyPart::Lock]),
            policy("version", &[]),
        ]
    }
}
