//! Flags of `key simulate`.

use super::{KeyArgs, Network, OutputArgs, backend, size};
use crate::config::{Simulate, Since};
use anyhow::{Result, bail};
use clap::Args;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::path::PathBuf;
use storecache_key::simulate::{KeyPart, KeyPolicy};
use storecache_key::{KeyOptions, WorkflowMode};

#[derive(Debug, Args)]
pub struct SimulateArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// Also compare a key that is made of these parts; repeatable
    ///
    /// Parts are `bytes` or `semantic` (the workflow), `lock` (files that pin versions), `files:GLOB` and `none`.
    #[arg(long = "policy", value_name = "NAME=PART+PART", value_parser = policy)]
    policies: Vec<KeyPolicy>,
    #[command(flatten)]
    output: OutputArgs,
    /// Also write a self-contained HTML page with tables
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Branch whose entries every run may read [default: HEAD of `origin`, else main, master or trunk]
    #[arg(long, value_name = "NAME")]
    default_branch: Option<String>,
    /// First date, such as 2026-01-31, or age relative to the newest commit, such as 90d, 12w, 6mo or 2y
    #[arg(long, value_name = "DATE|AGE", default_value = "1y", value_parser = since)]
    since: Since,
    /// Skip commits that do not trigger the current workflow
    #[arg(long)]
    as_triggered: bool,
    /// Replay only the N newest commits
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// Files that determine what the store must contain; repeatable [default: the part of the workflow that
    /// counts, files that pin versions, manifests, and Nix files]
    #[arg(long, value_name = "GLOB")]
    truth: Vec<String>,
    /// Backend with past snapshots, whose sizes and times are used: dir:PATH [default: as for save]
    #[arg(long, value_name = "BACKEND")]
    backend: Option<String>,
    /// Size of an entry, as in 800M [default: mean of past snapshots, else 1G]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    entry_size: Option<u64>,
    /// Fraction of an entry that a job saves after it restored another entry; 1 is all of it
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = part)]
    delta_share: f64,
    /// Minutes that a job takes after a miss [default: mean of past snapshots, else 10]
    #[arg(long, value_name = "MINUTES", value_parser = minutes)]
    cold_minutes: Option<f64>,
    /// Minutes that a job takes if the store has everything that it needs
    #[arg(long, value_name = "MINUTES", default_value_t = 1.0, value_parser = minutes)]
    hit_minutes: f64,
    /// Fraction of a full hit's time saving that a partial hit achieves
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = part)]
    prefix_share: f64,
    /// Limit on the total size of all entries of the repository, as in 10G
    #[arg(long, value_name = "SIZE", default_value = "10G", value_parser = size)]
    limit: u64,
    /// Days without use after which an entry is evicted
    #[arg(long, value_name = "N", default_value_t = 7,
        value_parser = clap::value_parser!(u32).range(1..=3650))]
    idle_days: u32,
}

impl SimulateArgs {
    pub fn options(self) -> Result<Simulate> {
        let key = self.key.options()?;
        let mut policies: Vec<KeyPolicy> = given(&key).into_iter().collect();
        policies.extend(self.policies);
        let built_in = KeyPolicy::built_in();
        let mut names: Vec<&str> = built_in.iter().map(|policy| policy.name.as_str()).collect();
        for policy in &policies {
            if names.contains(&policy.name.as_str()) {
                bail!("--policy {}: another policy has this name", policy.name);
            }
            names.push(&policy.name);
        }
        if self.cold_minutes.is_some_and(|cold| cold < self.hit_minutes) {
            bail!("--cold-minutes is less than --hit-minutes, so no cache could save time");
        }
        // A missing backend is an error only if the user named it.
        let backend = match backend(self.backend.as_deref(), Network::stalling_at(20)) {
            Err(e) if self.backend.is_some() => return Err(e),
            backend => backend.ok(),
        };
        Ok(Simulate {
            key,
            policies,
            output: self.output.options(),
            html: self.html,
            default_branch: self.default_branch,
            since: self.since,
            as_triggered: self.as_triggered,
            max: self.max.map(|max| usize::try_from(max).unwrap_or(usize::MAX)),
            truth: self.truth,
            backend,
            entry_size: self.entry_size,
            delta_share: self.delta_share,
            cold_minutes: self.cold_minutes,
            hit_minutes: self.hit_minutes,
            prefix_share: self.prefix_share,
            limit: self.limit,
            idle_days: self.idle_days,
        })
    }
}

/// Returns the key policy that the flags shared with other commands describe, if they give a key or files.
fn given(key: &KeyOptions) -> Option<KeyPolicy> {
    let mut parts = Vec::new();
    if key.key.is_none() {
        parts.extend(match key.workflow_mode {
            WorkflowMode::Semantic => Some(KeyPart::Semantic),
            WorkflowMode::Bytes => Some(KeyPart::Bytes),
            WorkflowMode::None => None,
        });
        parts.extend(key.hash_files.iter().cloned().map(KeyPart::Files));
    }
    let is_given = key.key.is_some() || !key.hash_files.is_empty();
    is_given.then(|| KeyPolicy { name: "given".into(), parts })
}

fn policy(text: &str) -> Result<KeyPolicy, String> {
    let Some((name, parts)) = text.split_once('=') else {
        return Err("expected NAME=PART+PART, as in mine=semantic+files:flake.lock".into());
    };
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err("expected a name before the `=`".into());
    }
    let mut made = Vec::new();
    for part in parts.split('+') {
        made.extend(match part {
            "bytes" => Some(KeyPart::Bytes),
            "semantic" => Some(KeyPart::Semantic),
            "lock" => Some(KeyPart::Lock),
            "none" => None,
            _ => match part.strip_prefix("files:").filter(|glob| !glob.is_empty()) {
                Some(glob) => Some(KeyPart::Files(glob.to_owned())),
                None => {
                    return Err(format!(
                        "not a part of a key: {part:?}; expected bytes, semantic, lock, \
                         files:GLOB or none"
                    ));
                }
            },
        });
    }
    Ok(KeyPolicy { name: name.to_owned(), parts: made })
}

fn since(text: &str) -> Result<Since, String> {
    const DAY: i64 = 86_400;
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "h" => Some(3600),
        "d" => Some(DAY),
        "w" => Some(7 * DAY),
        "mo" => Some(30 * DAY),
        "y" => Some(365 * DAY),
        _ => None,
    };
    let age = unit.and_then(|unit| number.parse::<i64>().ok()?.checked_mul(unit));
    if let Some(age) = age {
        return Ok(Since::Age(age));
    }
    let date = text.parse::<Date>().ok();
    let date = date.and_then(|date| Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp()));
    let time = text.parse::<Timestamp>().ok().or(date);
    time.map(Since::Time).ok_or_else(|| {
        "expected a date such as 2026-01-31, or a number followed by h, d, w, mo or y".into()
    })
}

/// Parses a fraction from 0 to 1.
fn part(text: &str) -> Result<f64, String> {
    let part = text.parse().ok().filter(|part: &f64| (0.0..=1.0).contains(part));
    part.ok_or_else(|| "expected a number from 0 to 1".into())
}

fn minutes(text: &str) -> Result<f64, String> {
    const DAY: f64 = 1440.0;
    let minutes = text.parse().ok().filter(|minutes: &f64| (0.0..=DAY).contains(minutes));
    minutes.ok_or_else(|| "expected a number from 0 to 1440".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_is_parsed_into_a_name_and_parts() {
        let made = policy("mine=semantic+files:nix/*.nix+none").unwrap();
        assert_eq!(made.name, "mine");
        assert_eq!(made.parts, [KeyPart::Semantic, KeyPart::Files("nix/*.nix".into())]);
        for wrong in ["mine", "=bytes", "a=", "a=byte", "a=files:", "a=bytes++lock", "a\n=bytes"] {
            assert!(policy(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn since_accepts_a_date_or_an_age() {
        assert_eq!(since("90d"), Ok(Since::Age(90 * 86_400)));
        assert_eq!(since("2y"), Ok(Since::Age(730 * 86_400)));
        let time = Since::Time(Timestamp::from_second(1_767_225_600).unwrap());
        assert_eq!(since("2026-01-01"), Ok(time));
        assert_eq!(since("2026-01-01T00:00:00Z"), Ok(time));
        for wrong in ["", "d", "90", "-1d", "99999999999999999y", "2026-13-01", "yesterday"] {
            assert!(since(wrong).is_err(), "{wrong:?}");
        }
    }
}
