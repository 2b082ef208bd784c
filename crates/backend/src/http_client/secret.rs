//! Values that must never be printed, and their removal from texts of servers.

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

/// Maximum length of a server's text that is shown, in characters.
const SAID: usize = 300;

/// Makes a text of a server printable: one line of bounded length, without `token`, without the paths and queries of
/// URLs, and without signatures. Paths are removed because `act` has its token in a path.
pub fn redacted(text: &str, token: &Secret) -> String {
    let text = match token.reveal() {
        "" => text.to_owned(),
        token => text.replace(token, "(secret)"),
    };
    let words = text.split_whitespace().map(|word| {
        if let Some(at) = word.find("://") {
            let host = at + "://".len();
            let end = word[host..].find(['/', '?', '#']).map_or(word.len(), |end| host + end);
            let cut = if end < word.len() { "/(secret)" } else { "" };
            return format!("{}{cut}", &word[..end]);
        }
        match ["sig=", "sig%3D", "sig%3d", "Bearer"].iter().filter_map(|mark| word.find(mark)).min()
        {
            Some(at) => format!("{}(secret)", &word[..at]),
            None => word.to_owned(),
        }
    });
    let text: String = words.collect::<Vec<_>>().join(" ");
    text.chars().filter(|c| !c.is_control()).take(SAID).collect()
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
    fn redacted_text_contains_no_secret() {
        let token = Secret::new("eyJhbG.tok.en");
        let text = "no: https://h:1/a?sig=abc%2B rejected,\n sig=abc with eyJhbG.tok.en\u{7} done";
        let said = redacted(text, &token);
        assert_eq!(said, "no: https://h:1/(secret) rejected, (secret) with (secret) done");
        assert_eq!(redacted(&"x".repeat(5000), &token).len(), SAID);
        assert_eq!(format!("{token:?}"), "(secret)");
        assert_eq!(host("https://u:p@h:1/a?b"), "h:1");
    }
}
