//! The text of a page of `--html`, after a check that the page has only the elements and attributes of a report.

const ELEMENTS: [&str; 19] = [
    "body", "caption", "dd", "div", "dl", "dt", "h1", "h2", "header", "html", "main", "p",
    "section", "table", "tbody", "td", "th", "thead", "tr",
];
const ATTRIBUTES: [&str; 5] = ["aria-label", "class", "role", "scope", "tabindex"];

/// Returns the text of a page: cells of a table end with a tab, other elements with a line break. Panics on an
/// element or attribute that a report does not have, as a script or a link.
#[track_caller]
pub fn html_text(html: &str) -> String {
    let (head, body) = html.split_once("<body>").unwrap();
    assert!(head.contains("content=\"default-src 'none'; style-src 'unsafe-inline'\""), "{head}");
    for word in ["<script", "http:", "https:", "url(", "@import"] {
        assert!(!head.contains(word), "{word} in {head}");
    }
    let mut text = String::new();
    for part in body.split('<').skip(1) {
        let (tag, content) = part.split_once('>').unwrap();
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        let name = name.trim_start_matches('/');
        assert!(ELEMENTS.contains(&name), "<{tag}> does not belong here");
        // Names and values alternate: NAME="VALUE" NAME="VALUE"
        for attribute in attributes.split('"').step_by(2).filter(|attribute| !attribute.is_empty())
        {
            let attribute = attribute.trim().trim_end_matches('=');
            assert!(ATTRIBUTES.contains(&attribute), "{attribute} in <{tag}>");
        }
        match tag {
            "/td" | "/th" => text.push('\t'),
            _ if tag.starts_with('/') => text.push('\n'),
            _ => {}
        }
        text += content.trim_matches('\n');
    }
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    entities.iter().fold(text, |text, (entity, character)| text.replace(entity, character))
}
