//! Findings for people: what is wrong, and the corrected lines beside those that are there.

use crate::key::lint::Finding;

/// A finding with its place.
pub fn of(finding: &Finding, source: &str) -> String {
    let Finding { file, line, column, level, rule, message, fix, .. } = finding;
    let (file, level) = (file.display(), level.name());
    let mut text = format!("{file}:{line}:{column}: {level}: {message} [{rule}]\n    to do: {fix}");
    for line in correction(finding, source) {
        text += &format!("\n      {line}");
    }
    visible(&text)
}

/// The same without its place.
pub fn advice(finding: &Finding, source: &str) -> String {
    let mut text = format!("{}\nto do: {}", finding.message, finding.fix);
    for line in correction(finding, source) {
        text += &format!("\n{line}");
    }
    text
}

/// The lines that go and those that come, or what to write like.
fn correction(finding: &Finding, source: &str) -> Vec<String> {
    let Some(lines) = &finding.lines else {
        let example = finding.example.iter().flat_map(|example| example.lines());
        return example.map(|line| format!("| {line}")).collect();
    };
    let old = source.split('\n').skip(lines.from - 1).take(lines.to + 1 - lines.from);
    let old: Vec<&str> = old.map(|line| line.trim_end_matches('\r')).collect();
    let new: Vec<&str> = lines.text.split('\n').map(|line| line.trim_end_matches('\r')).collect();
    let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let rest = old.len().min(new.len()) - same;
    let ends = old.iter().rev().zip(new.iter().rev());
    let same_end = ends.take_while(|(old, new)| old == new).count().min(rest);
    let gone = old[same..old.len() - same_end].iter().map(|line| format!("- {line}"));
    let come = new[same..new.len() - same_end].iter().map(|line| format!("+ {line}"));
    gone.chain(come).collect()
}

/// A workflow is somebody else's text: what a terminal would obey is shown instead.
fn visible(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => c.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}
