//! Normalizes white space in `${{ expressions }}`, where it has no meaning.

/// Normalizes the white space inside the braces to one blank on each side, and removes line ends at the end.
pub fn tidy(text: &str) -> String {
    let mut tidied = String::with_capacity(text.len());
    let mut rest = text.trim_end_matches(['\n', '\r']);
    while let Some((before, after)) = rest.split_once("${{") {
        let Some((inside, behind)) = after.split_at_checked(end(after)) else { break };
        let Some(behind) = behind.strip_prefix("}}") else { break };
        tidied.push_str(before);
        tidied.push_str("${{ ");
        tidied.push_str(inside.trim());
        tidied.push_str(" }}");
        rest = behind;
    }
    tidied.push_str(rest);
    tidied
}

/// Returns the offset of the braces that close an expression, or the length of the text. Braces in a string
/// do not count; `''` in a string is treated as two strings, which gives an equal result.
fn end(expression: &str) -> usize {
    let mut quoted = false;
    for (at, c) in expression.char_indices() {
        match c {
            '\'' => quoted = !quoted,
            '}' if !quoted && expression[at..].starts_with("}}") => return at,
            _ => {}
        }
    }
    expression.len()
}

/// Removes the braces around a condition, which are optional there.
pub fn bare(condition: &str) -> &str {
    let condition = condition.trim();
    let Some(after) = condition.strip_prefix("${{") else { return condition };
    match after.split_at_checked(end(after)) {
        Some((inside, "}}")) => inside.trim(),
        _ => condition,
    }
}

/// Returns the names that a text takes from a context, in lower case, because GitHub ignores case: `cache` of
/// `steps.cache.outputs.key` or `steps['cache']`.
pub fn names_of(context: &str, text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let is_of_name = |c: char| c.is_alphanumeric() || "_-".contains(c);
    let name = |(at, _)| {
        let rest = text.get(at + context.len()..)?.trim_start();
        let rest = match rest.strip_prefix('.') {
            Some(rest) => rest.trim_start(),
            None => rest.strip_prefix('[')?.trim_start().strip_prefix('\'')?,
        };
        let end = rest.find(|c| !is_of_name(c)).unwrap_or(rest.len());
        Some(rest.get(..end)?.to_owned()).filter(|name| !name.is_empty())
    };
    text.match_indices(context).filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tidy_strips_space_only_at_braces_and_at_the_end() {
        assert_eq!(tidy("a ${{b}} c${{  d  e }}\n\n"), "a ${{ b }} c${{ d  e }}");
        assert_eq!(tidy(" ${{ open "), " ${{ open ");
        assert_eq!(bare("${{ always() }}"), bare(" always()"));
        assert_eq!(bare("${{ a }} && ${{ b }}"), "${{ a }} && ${{ b }}");
    }

    #[test]
    fn names_of_finds_the_names_of_a_context() {
        let text =
            "${{ steps.Cache.outputs.x || steps['b-2'].outcome }} steps[ 'c' ] steps, steps[d]";
        assert_eq!(names_of("steps", text), ["cache", "b-2", "c"]);
    }

    #[test]
    fn braces_in_strings_do_not_close_an_expression() {
        let text = "${{ format('a  }}  b', c) }}";
        assert_eq!(tidy(text), text);
        assert_ne!(tidy("${{ format('}}') }}"), tidy("${{ format('  }}') }}"));
        assert_eq!(tidy("${{format('it''s }}')}}"), "${{ format('it''s }}') }}");
        assert_eq!(bare("${{ contains(a, '}}') }}"), "contains(a, '}}')");
        assert_eq!(bare("${{ 'a }} b"), "${{ 'a }} b");
    }
}
