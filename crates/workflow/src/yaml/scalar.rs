//! Canonical values of plain YAML scalars.

use super::Data;

/// Resolves a plain scalar by the core schema: <https://yaml.org/spec/1.2.2/#1032-tag-resolution>.
pub(super) fn plain(text: &str) -> Data {
    let radix = |prefix, radix| {
        let digits = text.strip_prefix(prefix)?;
        i64::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with(['+', '-']))
    };
    Data::Text(match text {
        "" | "~" | "null" | "Null" | "NULL" => return Data::Null,
        "true" | "True" | "TRUE" => "true".into(),
        "false" | "False" | "FALSE" => "false".into(),
        _ if let Some(value) = radix("0x", 16).or_else(|| radix("0o", 8)) => value.to_string(),
        _ if let Some(number) = number(text) => number,
        _ => text.to_owned(),
    })
}

/// Returns the shortest text of a decimal number. Returns `None` for numbers with more than 15 significant
/// digits, which stay as written: two different ones could become equal as floating-point numbers.
fn number(text: &str) -> Option<String> {
    let significant = text.split(['e', 'E']).next()?.bytes().filter(u8::is_ascii_digit).count();
    if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) || significant > 15 {
        return None;
    }
    if let Ok(value) = text.parse::<i64>() {
        return Some(value.to_string());
    }
    // A string of digits with an `e`, such as a commit hash, could overflow to infinity or underflow to zero.
    let value = text.parse::<f64>().ok()?;
    let is_nothing = value == 0.0 && !text.bytes().any(|byte| matches!(byte, b'1'..=b'9' | b'e'));
    (value.is_normal() || is_nothing).then(|| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::Node;
    use super::*;

    fn parsed(source: &str) -> String {
        let node = Node::parse(source).unwrap();
        let shown = |node: &Node| match &node.data {
            Data::Null => "~".to_owned(),
            other => format!("{other:?}").replace("Text(", "").replace(')', ""),
        };
        node.elements().iter().map(|it| shown(it).replace('"', "")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn equal_scalars_have_the_same_text() {
        assert_eq!(
            parsed("[0x10, 0o17, 7, +7, -7, 1.10, '1.10', 1.10.0]"),
            "16 15 7 7 -7 1.1 1.10 1.10.0"
        );
        assert_eq!(
            parsed("[True, 'True', ~, null, '', nan, .5, 1e3]"),
            "true True ~ ~  nan 0.5 1000"
        );
        assert_eq!(parsed("[!!str 1.10, 0x, 0xg, '0x10', 0x-1]"), "1.10 0x 0xg 0x10 0x-1");
    }

    #[test]
    fn unrepresentable_numbers_stay_as_written() {
        for text in
            ["12345678901234567890123", "55e1234", "66e1234", "1e-9999", "-infinity", "+nan"]
        {
            assert_eq!(parsed(&format!("[{text}, 0.0]")), format!("{text} 0"));
        }
    }
}
