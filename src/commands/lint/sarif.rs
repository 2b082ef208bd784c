//! Findings as SARIF 2.1.0, the format that code scanning reads. Source:
//! <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use storecache_entry::Digest;
use storecache_lint::{Finding, Level, Lines, RULES, Rule, WorkflowFile};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// Base of relative paths; code scanning interprets it as the top of the repository.
const TOP: &str = "%SRCROOT%";

pub fn log(sources: &[WorkflowFile], findings: &[Finding]) -> Value {
    let mut twins = HashMap::new();
    let results: Vec<Value> = findings
        .iter()
        .filter_map(|finding| {
            let source = sources.iter().find(|source| source.file == finding.file)?;
            Some(result(source, finding, &mut twins))
        })
        .collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "storecache",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": RULES.iter().map(rule).collect::<Vec<_>>(),
            }},
            "originalUriBaseIds": { TOP: { "description": { "text": "The top of the repository." } } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn rule(rule: &Rule) -> Value {
    json!({
        "id": rule.name,
        "shortDescription": { "text": format!("{}.", rule.title) },
        "fullDescription": { "text": rule.help },
        "help": { "text": rule.help },
        "defaultConfiguration": { "level": "warning" },
    })
}

fn result(source: &WorkflowFile, finding: &Finding, twins: &mut HashMap<String, usize>) -> Value {
    let place = artifact(source);
    let line = source.text.split('\n').nth(finding.line.saturating_sub(1)).unwrap_or_default();
    // Uses the text of the line instead of its number, so that a finding that has moved keeps its
    // fingerprint.
    let parts = [finding.rule, &place.to_string(), line.trim()].join("\0");
    let hash = Digest::hash(parts.as_bytes()).to_string();
    let twin = twins.entry(hash.clone()).or_default();
    *twin += 1;
    let short = hash.get(..16).unwrap_or_default();
    let index = RULES.iter().position(|rule| rule.name == finding.rule);
    let mut result = json!({
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": match finding.level { Level::Error => "error", Level::Warning => "warning" },
        "message": { "text": format!("{}. To do: {}.", finding.message, finding.fix) },
        "locations": [{ "physicalLocation": {
            "artifactLocation": place.clone(),
            "region": { "startLine": finding.line, "startColumn": finding.column },
        }}],
        "partialFingerprints": { "primaryLocationLineHash": format!("{short}:{twin}") },
    });
    if let Some(lines) = &finding.lines {
        result["fixes"] = json!([{
            "description": { "text": finding.fix },
            "artifactChanges": [{
                "artifactLocation": place,
                "replacements": [replacement(source, lines)],
            }],
        }]);
    }
    result
}

/// The file relative to its work tree, or else as an absolute URI.
fn artifact(source: &WorkflowFile) -> Value {
    let full = std::path::absolute(&source.file).unwrap_or_else(|_| source.file.clone());
    match full.strip_prefix(&source.tree) {
        Ok(below) => json!({ "uri": uri(below), "uriBaseId": TOP }),
        Err(_) => json!({ "uri": format!("file://{}", uri(&full)) }),
    }
}

/// A path in a URI: bytes other than unreserved characters and `/` are percent-encoded (RFC 3986, section 2).
fn uri(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let bytes = path.as_os_str().as_encoded_bytes().iter();
    bytes
        .map(|byte| match byte {
            byte if plain(*byte) => char::from(*byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

fn replacement(source: &WorkflowFile, lines: &Lines) -> Value {
    let last = source.text.split('\n').nth(lines.to - 1).unwrap_or_default();
    let last = last.trim_end_matches('\r').trim_start_matches('\u{feff}');
    json!({
        "deletedRegion": {
            "startLine": lines.from,
            "startColumn": 1,
            "endLine": lines.to,
            "endColumn": last.chars().count() + 1,
        },
        "insertedContent": { "text": lines.text.trim_start_matches('\u{feff}') },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_uris() {
        assert_eq!(uri(Path::new(".github/a b%ü.yml")), ".github/a%20b%25%C3%BC.yml");
    }
}
