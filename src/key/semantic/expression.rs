//! White space in `${{ expressions }}`, which means nothing.

/// One blank on each side of what is between the braces, and no line ends after the last line.
pub fn tidy(text: &str) -> String {
    let mut tidied = String::with_capacity(text.len());
    let mut rest = text.trim_end_matches(['\n', '\r']);
    while let Some((before, after)) = rest.split_once("${{") {
        let Some((inside, behind)) = after.split_once("}}") else { break };
        tidied.push_str(before);
        tidied.push_str("${{ ");
        tidied.push_str(inside.trim());
        tidied.push_str(" }}");
        rest = behind;
    }
    tidied.push_str(rest);
    tidied
}

/// A condition without the braces that it may have, which mean nothing there.
pub fn bare(condition: &str) -> &str {
    let condition = condition.trim();
    let inside = condition.strip_prefix("${{").and_then(|rest| rest.strip_suffix("}}"));
    inside.filter(|inside| !inside.contains("${{")).unwrap_or(condition).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_white_space_at_the_braces_and_at_the_end_goes() {
        assert_eq!(tidy("a ${{b}} c${{  d  e }}\n\n"), "a ${{ b }} c${{ d  e }}");
        assert_eq!(tidy(" ${{ open "), " ${{ open ");
        assert_eq!(bare("${{ always() }}"), bare(" always()"));
        assert_eq!(bare("${{ a }} && ${{ b }}"), "${{ a }} && ${{ b }}");
    }
}
