//! The table of a step's outputs, and their values from a report.

use crate::report::{Hit, Outcome};
use jiff::Timestamp;
use storecache_runtime::untrusted_text::escape;

/// One output.
pub struct OutputField {
    pub name: &'static str,
    pub description: &'static str,
    value: fn(&Outcome) -> String,
}

/// The first three are those of actions/cache.
pub const OUTPUTS: [OutputField; 7] = [
    OutputField {
        name: "cache-hit",
        description: "true for an exact hit, false for a prefix hit, empty for a miss",
        value: |outcome| match outcome.hit {
            Hit::Exact => "true".into(),
            Hit::Prefix => "false".into(),
            Hit::Miss => String::new(),
        },
    },
    OutputField {
        name: "cache-primary-key",
        description: "Exact key that was looked up, and that a save uses",
        value: |outcome| outcome.key.clone(),
    },
    OutputField {
        name: "cache-matched-key",
        description: "Key of the snapshot that was used; empty for a miss",
        value: |outcome| match outcome.hit {
            Hit::Miss => String::new(),
            Hit::Exact | Hit::Prefix => outcome.matched_key.clone().unwrap_or_default(),
        },
    },
    OutputField {
        name: "hit-kind",
        description: "exact, prefix or miss",
        value: |outcome| outcome.hit.name().into(),
    },
    OutputField {
        name: "restored-items",
        description: "Number of restored items, without items that were already present",
        value: |outcome| outcome.items.restored.to_string(),
    },
    OutputField {
        name: "snapshot-age",
        description: "Age of the snapshot in seconds; empty for a miss",
        value: |outcome| age(outcome).map(|seconds| seconds.to_string()).unwrap_or_default(),
    },
    OutputField {
        name: "reason",
        description: "Why something was not done; empty if everything was done",
        // Escaped, because a later step may print it.
        value: |outcome| escape(outcome.reason.as_deref().unwrap_or_default()).into_owned(),
    },
];

/// Returns names and values of the outputs for the report of a restore.
pub fn output_values(outcome: &Outcome) -> Vec<(&'static str, String)> {
    OUTPUTS.iter().map(|field| (field.name, (field.value)(outcome))).collect()
}

fn age(outcome: &Outcome) -> Option<i64> {
    let created: Timestamp = outcome.created.as_ref()?.parse().ok()?;
    let seconds = Timestamp::now().as_second() - created.as_second();
    // The clocks of two machines may differ.
    (outcome.hit != Hit::Miss).then_some(seconds.max(0))
}

pub fn markdown() -> String {
    let row = |field: &OutputField| format!("| `{}` | {} |\n", field.name, field.description);
    let rows: String = OUTPUTS.iter().map(row).collect();
    format!("| output | value |\n|---|---|\n{rows}")
}

pub fn yaml() -> String {
    let entry = |field: &OutputField| {
        format!("  {}:\n    description: \"{}\"\n", field.name, field.description)
    };
    let entries: String = OUTPUTS.iter().map(entry).collect();
    format!("outputs:\n{entries}")
}
