//! Findings for people: the mistake, and the corrected lines next to the current ones.

use storecache_lint::Finding;

/// A finding with its location, one string for each line.
pub fn render_finding(finding: &Finding, source: &str) -> Vec<String> {
    let Finding { file, line, column, level, rule, message, fix, .. } = finding;
    let (file, level) = (file.display(), level.name());
    let found = format!("{file}:{line}:{column}: {level}: {message} [{rule}]");
    let correction = correction(finding, source).into_iter().map(|line| format!("      {line}"));
    [found, format!("    to do: {fix}")].into_iter().chain(correction).collect()
}

/// A finding without its location.
pub fn advice(finding: &Finding, source: &str) -> Vec<String> {
    let lines = [finding.message.clone(), format!("to do: {}", finding.fix)];
    lines.into_iter().chain(correction(finding, source)).collect()
}

/// A diff of the lines to correct, or else the example.
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
