//! Values that must never be printed.

use std::fmt;

/// A token or a signed URL. Code has to ask for it explicitly, and no format string shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// Returns the secret itself, for use in a request only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Returns the host of a URL, which may be printed.
pub fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // Without user name and password.
    rest[..end].rsplit('@').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_and_password_are_not_printed() {
        assert_eq!(format!("{:?}", Secret::new("tok.en")), "(secret)");
        assert_eq!(host("https://u:p@h:1/a?b"), "h:1");
    }
}
