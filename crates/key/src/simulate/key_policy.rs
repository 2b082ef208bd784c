//! The key policies that a simulation compares.

/// A key policy: which files a key depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPolicy {
    pub name: String,
    /// Parts that are hashed. If empty, the key depends only on the version of the package manager.
    pub parts: Vec<KeyPart>,
}

/// A part of the hash of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPart {
    /// All bytes of the workflow.
    Bytes,
    /// The parts of the workflow that can change the store.
    Semantic,
    /// Files that pin versions.
    Lock,
    /// Files that match a pattern.
    Files(String),
}

impl KeyPolicy {
    /// Returns the policies that every simulation compares, the simplest last.
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
