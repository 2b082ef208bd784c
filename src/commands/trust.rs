//! Whether a snapshot is trusted: who has signed it, and its recorded origin.
//!
//! The user process checks all of this before the root helper sees any part of the snapshot.

use crate::config::{OriginTrust, Policy, Signing, Trust};
use crate::report::Hit;
use anyhow::Result;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use storecache_backend::{Backend, EntryName};
use storecache_entry::{Ladder, Rung};
use storecache_runtime::advice::in_one_line;
use storecache_snapshot::{Index, Opened, Origin, PublicKey, Verdict};

/// Events that only users with write access to the repository can cause, if they run on a branch. With other
/// events, such as `pull_request_target` or `issue_comment`, anyone can start a job on the default branch.
/// Source: github/docs `content/actions/reference/workflows-and-actions/events-that-trigger-workflows.md`.
const OWN_EVENTS: [&str; 4] = ["push", "schedule", "workflow_dispatch", "repository_dispatch"];

/// A snapshot that may be intact, but is not trusted.
#[derive(Debug, thiserror::Error)]
#[error("not trusted: {0}")]
pub struct Untrusted(String);

/// The backend and name of an entry; `None` for a file.
pub type Place<'a> = Option<(&'a dyn Backend, &'a EntryName)>;

/// Checks a snapshot that was found in `place`. Returns the trusted keys that have signed it.
///
/// # Errors
/// If the snapshot is not trusted: [`Untrusted`].
pub fn check(trust: &Trust, place: Place<'_>, opened: &Opened) -> Result<Vec<String>, Untrusted> {
    let signed_by = if trust.keys.is_empty() { Vec::new() } else { signed(trust, place, opened)? };
    match distrust(&trust.origin, &opened.head.origin) {
        None => Ok(signed_by),
        Some(reason) => Err(Untrusted(reason)),
    }
}

/// Checks that an entry that a lookup found has the requested key. Lookups ignore the case of keys, as
/// GitHub's cache service does, but a signature is for one key, with its case.
///
/// # Errors
/// If the entry has another key: [`Untrusted`].
pub fn check_key(
    trust: &Trust,
    backend: &dyn Backend,
    ladder: &Ladder,
    (name, hit): (&EntryName, Hit),
) -> Result<(), Untrusted> {
    let (lowers, key) = (backend.lowers_case(name), name.key.as_str());
    let was_asked_for = |rung: &Rung| match rung {
        Rung::Exact(exact) => hit == Hit::Exact && is_listed_as(exact, key, lowers),
        Rung::Prefix(prefix) => {
            let start = key.get(..prefix.len());
            hit == Hit::Prefix && start.is_some_and(|start| is_listed_as(prefix, start, lowers))
        }
    };
    if trust.keys.is_empty() || ladder.rungs.iter().any(was_asked_for) {
        return Ok(());
    }
    Err(Untrusted(format!("its key {key} differs from the requested key in upper and lower case")))
}

/// Returns whether an entry that was written under `key` may be listed under `listed`. `lowers`: the backend may have
/// changed the key to lower case. An entry that is listed with a capital letter was written under exactly that key.
fn is_listed_as(key: &str, listed: &str, lowers: bool) -> bool {
    key == listed || (lowers && key.to_lowercase() == listed)
}

/// Checks each signature of a snapshot against `keys`. Returns the results with the names of the keys.
///
/// # Errors
/// If there is a signature block that cannot be parsed.
fn verdicts(opened: &Opened, keys: &[PublicKey]) -> Result<Vec<(String, Verdict)>> {
    let body = Index::identity(&opened.index_bytes)?;
    let signatures = Index::signatures(&opened.index_bytes)?;
    Ok(signatures.into_iter().map(|it| (it.key.clone(), it.judge(&body, keys))).collect())
}

/// The signatures of a snapshot for people and programs: the name of each key, and the result of the check.
/// Without `keys`, signatures are not checked.
///
/// # Errors
/// If there is a signature block that cannot be parsed.
pub fn shown(opened: &Opened, keys: &[PublicKey]) -> Result<Vec<(String, &'static str)>> {
    let named = verdicts(opened, keys)?.into_iter().map(|(name, verdict)| {
        let verdict = match verdict {
            _ if keys.is_empty() => "not-checked",
            Verdict::Valid => "valid",
            Verdict::Invalid => "invalid",
            Verdict::UnknownKey => "unknown-key",
        };
        (name, verdict)
    });
    Ok(named.collect())
}

/// The signatures as JSON objects.
pub fn as_json(signatures: &[(String, &'static str)]) -> Value {
    signatures.iter().map(|(key, verdict)| json!({ "key": key, "verdict": verdict })).collect()
}

/// The signatures as text; empty if the snapshot is not signed.
pub fn in_words(signatures: &[(String, &'static str)]) -> String {
    let words =
        signatures.iter().map(|(key, verdict)| format!("{key} ({})", verdict.replace('-', " ")));
    words.collect::<Vec<_>>().join(", ")
}

fn signed(trust: &Trust, place: Place<'_>, opened: &Opened) -> Result<Vec<String>, Untrusted> {
    let refuse = |why: String| Err(Untrusted(why));
    let signatures = match verdicts(opened, &trust.keys) {
        Ok(signatures) => signatures,
        Err(e) => return refuse(in_one_line(e.as_ref())),
    };
    let of = |wanted: Verdict| {
        let names = signatures.iter().filter(move |(_, verdict)| *verdict == wanted);
        names.map(|(name, _)| name.clone()).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    let valid = of(Verdict::Valid);
    if valid.is_empty() {
        let (wrong, unknown) = (of(Verdict::Invalid), of(Verdict::UnknownKey));
        return refuse(match (&wrong[..], &unknown[..]) {
            ([], []) => "it is not signed".into(),
            ([], _) => {
                format!("it is signed by {}, which is not a trusted key", unknown.join(", "))
            }
            _ => format!("the signature by {} does not match this snapshot", wrong.join(", ")),
        });
    }
    let made_for = &opened.head.key;
    match place {
        Some((backend, name))
            if !is_listed_as(made_for.raw(), &name.key, backend.lowers_case(name)) =>
        {
            refuse(format!(
                "it was signed for the key {made_for}, but is stored under {}",
                name.key
            ))
        }
        _ => Ok(valid),
    }
}

/// Returns why an origin is not trusted.
fn distrust(trust: &OriginTrust, origin: &Origin) -> Option<String> {
    let (wanted, branch) = match trust {
        OriginTrust::Any => return None,
        OriginTrust::SameRepository { repository } => (repository, None),
        OriginTrust::DefaultBranchOnly { repository, branch } => (repository, Some(branch)),
    };
    let Origin { repository, reference, trigger, .. } = origin;
    if repository.is_empty() {
        return Some("it does not name the repository that it comes from".into());
    }
    if !repository.raw().eq_ignore_ascii_case(wanted) {
        return Some(format!("it comes from {repository:?}, not from {wanted}"));
    }
    let branch = branch?;
    if reference.raw().strip_prefix("refs/heads/") != Some(branch) {
        return Some(format!("it comes from {reference:?}, not from the branch {branch}"));
    }
    (!OWN_EVENTS.contains(&trigger.raw()))
        .then(|| format!("users without write access can trigger its event, {trigger:?}"))
}

/// Returns why no restore with the same trust options would use the snapshot, if the policy is `auto`.
pub fn before_all(policy: Policy, signing: &Signing, origin: &Origin) -> Option<String> {
    if policy != Policy::Auto {
        return None;
    }
    let Signing { keys, trust } = signing;
    if keys.is_empty() && !trust.keys.is_empty() {
        return Some(
            "the snapshot would not be signed, but only signed snapshots are trusted".into(),
        );
    }
    let reason = distrust(&trust.origin, origin)?;
    Some(format!("the snapshot would not be trusted: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(repository: &str, reference: &str, trigger: &str) -> Origin {
        Origin {
            repository: repository.into(),
            reference: reference.into(),
            trigger: trigger.into(),
            ..Origin::default()
        }
    }

    #[test]
    fn origin_is_trusted_according_to_the_option() {
        let repository = || "me/mine".to_owned();
        let same = OriginTrust::SameRepository { repository: repository() };
        let branch =
            OriginTrust::DefaultBranchOnly { repository: repository(), branch: "main".into() };
        let main = "refs/heads/main";
        for (from, reference, trigger, in_same, in_branch) in [
            ("me/mine", main, "push", true, true),
            ("Me/Mine", main, "schedule", true, true),
            ("me/mine", main, "workflow_dispatch", true, true),
            ("me/mine", main, "repository_dispatch", true, true),
            ("me/mine", main, "pull_request_target", true, false),
            ("me/mine", main, "issue_comment", true, false),
            ("me/mine", main, "workflow_run", true, false),
            ("me/mine", main, "", true, false),
            ("me/mine", "refs/heads/other", "push", true, false),
            ("me/mine", "refs/heads/main/x", "push", true, false),
            ("me/mine", "refs/tags/main", "push", true, false),
            ("me/mine", "refs/pull/7/merge", "pull_request", true, false),
            ("me/mine", "", "push", true, false),
            ("you/mine", main, "push", false, false),
            ("me/mine2", main, "push", false, false),
            ("", main, "push", false, false),
        ] {
            let origin = origin(from, reference, trigger);
            assert_eq!(distrust(&OriginTrust::Any, &origin), None);
            assert_eq!(distrust(&same, &origin).is_none(), in_same, "{origin:?}");
            assert_eq!(distrust(&branch, &origin).is_none(), in_branch, "{origin:?}");
        }
    }
}
