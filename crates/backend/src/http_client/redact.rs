//! Removal of secrets from texts of servers.

use crate::options::Secret;

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
    }
}
