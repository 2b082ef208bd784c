//! Output of a suggestion for people and programs.

use super::observations::KeyFamily;
use super::snapshot_commits::NotUsed;
use super::{FEWEST, Looked};
use crate::config::OutputOptions;
use crate::report::{answer, answer_json, plural, print_hint, print_note};
use anyhow::Result;
use serde_json::{Value, json};
use storecache_key::suggest::{Flags, Ingredient, Set};
use storecache_store::StoreKind;

/// Rows of the table for people; JSON has all rows.
const ROWS: usize = 12;

/// Number of changes, alternatives and left-out snapshots that are named in the output for people.
const NAMED: usize = 5;

impl Looked<'_> {
    pub fn print(&self, output: &OutputOptions) -> Result<()> {
        if !output.quiet {
            self.warn();
        }
        match output.json {
            true => answer_json(&self.object()),
            false => self.text(),
        }
    }

    /// Prints what was left out, and why.
    fn warn(&self) {
        for one in self.left_out.iter().take(NAMED) {
            print_note(format!("left out {}: {}", one.name, one.reason));
        }
        if let Some(more) = self.left_out.len().checked_sub(NAMED).filter(|more| *more > 0) {
            print_note(format!("left out {more} more for similar reasons"));
        }
        if self.older > 0 {
            print_note(format!("left out {} older ones", self.older));
            print_hint("to include them, use --max N");
        }
        for (kin, count) in &self.others {
            let snapshots = plural(*count as u64, "snapshot");
            print_note(format!("left out {snapshots} of {}", kin.text()));
        }
        if !self.others.is_empty() {
            print_hint("choose with --store and --key-prefix");
        }
        if let Some(text) = self.of_commits() {
            print_note(text);
        }
    }

    /// The note about commits that were not used.
    fn of_commits(&self) -> Option<String> {
        let snapshots = |count: usize| plural(count as u64, "snapshot");
        match self.repository {
            Err(NotUsed::Nowhere(why)) => Some(format!(
                "compared only what the snapshots record, and not files of commits: {why}"
            )),
            Err(NotUsed::TooFew(why)) if self.without_commit > 0 => Some(format!(
                "compared only what the snapshots record, and not files of commits: this \
                 repository does not have the commits of {} ({why})",
                snapshots(self.without_commit)
            )),
            Ok(commits) if self.without_commit > 0 => Some(format!(
                "left out {}, whose commits are not in this repository ({})",
                snapshots(self.without_commit),
                commits.why_unknown
            )),
            _ => None,
        }
    }

    /// Why nothing is suggested.
    fn reason(&self) -> Option<String> {
        let suggestion = self.suggestion;
        let snapshots = plural(self.used.len() as u64, "snapshot");
        if self.used.len() < FEWEST {
            return Some(format!(
                "there {} {snapshots} to compare, but {FEWEST} are needed; save more of them, \
                 with different states of the store",
                if self.used.len() == 1 { "is" } else { "are" },
            ));
        }
        if suggestion.changes == 0 {
            let besides = match suggestion.given {
                0 => "",
                _ => ", except when the version of the package manager did",
            };
            return Some(format!(
                "the store never changed in {snapshots}{besides}: no ingredient is needed"
            ));
        }
        suggestion.set.members.is_empty().then(|| {
            "the store changed, and no candidate changed at the same time; it may depend on \
             something outside the repository"
                .to_owned()
        })
    }

    fn text(&self) -> Result<()> {
        if let Some(kin) = &self.kin {
            self.headline(kin).iter().try_for_each(answer)?;
        }
        let kind = self.kin.as_ref().and_then(|kin| StoreKind::parse(&kin.kind).ok());
        if kind.is_some_and(|kind| !kind.has_database()) {
            answer(
                "a directory counts as changed when names, sizes, times, modes or owners in it did",
            )?;
        }
        self.table()?;
        if let Some(reason) = self.reason() {
            return answer(format!("no suggestion: {reason}"));
        }
        let set = &self.suggestion.set;
        answer("")?;
        answer(format!("suggestion: {}", self.verdict(set)))?;
        self.members(set)?;
        self.times("missed", &set.missed)?;
        self.times("false alarm", &set.false_alarms)?;
        let flags = self.flags(set);
        for name in &flags.unknown {
            answer(format!("  there is no flag for {name}: a newer storecache may have one"))?;
        }
        answer("")?;
        answer("on the command line, at the top of the work tree")?;
        answer(format!("  {}", flags.line()))?;
        answer("")?;
        answer("in the step")?;
        flags.yaml().lines().try_for_each(|line| answer(format!("  {line}")))?;
        if let Some(quiet) = &self.suggestion.quiet {
            answer("")?;
            answer(format!("without any false alarm: {}", self.verdict(quiet)))?;
            self.members(quiet)?;
            self.times("missed", &quiet.missed)?;
            answer(format!("  {}", self.flags(quiet).line()))?;
        }
        Ok(())
    }

    fn headline(&self, kin: &KeyFamily) -> Vec<String> {
        let suggestion = self.suggestion;
        let dates = match (self.used.first(), self.used.last()) {
            (Some(first), Some(last)) => {
                format!(", {} to {}", first.head.created, last.head.created)
            }
            _ => String::new(),
        };
        let snapshots = plural(self.used.len() as u64, "snapshot");
        let times = suggestion.changes + suggestion.unchanged;
        let given = match suggestion.given {
            0 => None,
            count => Some(format!(
                "the version of the package manager changed {}; every key contains it, so no \
                 ingredient has to explain those changes",
                plural(count as u64, "time")
            )),
        };
        let times = plural(times as u64, "time");
        let first = format!("{snapshots} of {}{dates}", kin.text());
        let second = format!("the store changed {} of {times}", suggestion.changes);
        [first, second].into_iter().chain(given).collect()
    }

    /// Prints the candidates, best first.
    fn table(&self) -> Result<()> {
        let mut rows: Vec<_> = self.candidates.iter().zip(&self.suggestion.tallies).collect();
        let chosen: Vec<usize> = self.suggestion.set.members.iter().flatten().copied().collect();
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|at| {
            let (candidate, tally) = rows[*at];
            let misses = tally.missed + tally.unknown;
            let besides = !chosen.contains(at);
            (misses + tally.without, besides, candidate.ingredient.preference())
        });
        rows = order.into_iter().map(|at| rows[at]).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let unknown = rows.iter().any(|(_, tally)| tally.unknown > 0);
        let column = if unknown { "  not known" } else { "" };
        answer("")?;
        answer(format!("with it  without it  missed{column}  candidate"))?;
        for (candidate, tally) in rows.iter().take(ROWS) {
            let column = if unknown { format!("  {:>9}", tally.unknown) } else { String::new() };
            answer(format!(
                "{:>7}  {:>10}  {:>6}{column}  {}",
                tally.with,
                tally.without,
                tally.missed,
                candidate.ingredient.name()
            ))?;
        }
        match rows.len().saturating_sub(ROWS) {
            0 => Ok(()),
            more => answer(format!("and {more} more, which --json lists")),
        }
    }

    fn verdict(&self, set: &Set) -> String {
        let count = |times: &[usize], noun| plural(times.len() as u64, noun);
        let verdict = match set.is_exact() {
            true => "it would have changed exactly when the store did".to_owned(),
            false => format!(
                "it misses {} of {} and has {}",
                set.missed.len(),
                plural(self.suggestion.changes as u64, "change"),
                count(&set.false_alarms, "false alarm")
            ),
        };
        match set.is_best {
            true => verdict,
            false => {
                format!("{verdict} (the search is greedy: a better set may exist)")
            }
        }
    }

    fn members(&self, set: &Set) -> Result<()> {
        for (member, &alone) in set.members.iter().zip(&set.alone) {
            let mut names = member.iter().map(|&at| self.candidates[at].ingredient.name());
            let chance = match self.may_be_chance(member, alone) {
                true => ": it explains only one change, which may be chance",
                false => "",
            };
            answer(format!("  {}{chance}", names.next().unwrap_or_default()))?;
            let mut others: Vec<_> = names.by_ref().take(NAMED).collect();
            let more = names.count();
            if more > 0 {
                others.push(format!("{more} more"));
            }
            if !others.is_empty() {
                answer(format!("    always changed together with {}", others.join(", ")))?;
            }
        }
        Ok(())
    }

    fn may_be_chance(&self, member: &[usize], alone: usize) -> bool {
        let first = member.first().map(|&at| &self.candidates[at].ingredient);
        alone <= 1 && first.is_some_and(Ingredient::is_any_file)
    }

    /// Prints the first times at which the set was wrong.
    fn times(&self, what: &str, times: &[usize]) -> Result<()> {
        for &at in times.iter().take(NAMED) {
            let (before, after) = (self.used[at], self.used[at + 1]);
            let came = plural(before.lacks(after) as u64, "item");
            answer(format!(
                "  {what}: {} to {}: {came} added, {} removed{}",
                before.moment(),
                after.moment(),
                after.lacks(before),
                self.with_gone(at)
            ))?;
        }
        match times.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => answer(format!("  {what}: {}", plural(more as u64, "more time"))),
        }
    }

    /// The files that changed at that time and do not exist any more.
    fn gone(&self, at: usize) -> Vec<String> {
        let changed = self.gone.iter().filter(|candidate| candidate.trace.changed_at(at));
        changed.map(|candidate| candidate.ingredient.name()).collect()
    }

    fn with_gone(&self, at: usize) -> String {
        let mut names = self.gone(at);
        let more = names.len().saturating_sub(NAMED);
        names.truncate(NAMED);
        if more > 0 {
            names.push(format!("{more} more"));
        }
        match names.is_empty() {
            true => String::new(),
            false => format!("; with {}, which the last commit no longer has", names.join(", ")),
        }
    }

    /// The flags for the preferred ingredient of each member.
    fn flags(&self, set: &Set) -> Flags {
        let preferred = set.members.iter().filter_map(|member| member.first());
        Flags::new(preferred.map(|&at| &self.candidates[at].ingredient))
    }

    fn object(&self) -> Value {
        let suggestion = self.suggestion;
        let candidates =
            self.candidates.iter().zip(&suggestion.tallies).map(|(candidate, tally)| {
                let mut row = json!(tally);
                row["ingredient"] = json!(candidate.ingredient.name());
                row
            });
        let left_out =
            self.left_out.iter().map(|one| json!({ "snapshot": one.name, "reason": one.reason }));
        let others = self.others.iter().map(|(kin, count)| {
            let mut object = json!(kin);
            object["snapshots"] = json!(count);
            object
        });
        json!({
            "ok": true,
            "store": self.kin,
            "snapshots": self.used.iter().map(|past| json!({
                "snapshot": past.name,
                "created": past.head.created,
                "commit": past.head.origin.commit,
                "version": past.head.store.version,
                "store": past.store,
            })).collect::<Vec<_>>(),
            "changes": suggestion.changes,
            "unchanged": suggestion.unchanged,
            "version_changes": suggestion.given,
            "candidates": candidates.collect::<Vec<_>>(),
            "suggestion": self.set_object(&suggestion.set),
            "without_false_alarms": suggestion.quiet.as_ref().map(|set| self.set_object(set)),
            "reason": self.reason(),
            "left_out": left_out.collect::<Vec<_>>(),
            "other_stores": others.collect::<Vec<_>>(),
            "older": self.older,
            "without_commit": self.without_commit,
            "commits": self.of_commits(),
        })
    }

    fn set_object(&self, set: &Set) -> Value {
        let name = |at: &usize| self.candidates[*at].ingredient.name();
        let members = set.members.iter().zip(&set.alone).filter_map(|(member, &alone)| {
            let (first, others) = member.split_first()?;
            let alternatives: Vec<_> = others.iter().map(name).collect();
            Some(json!({
                "ingredient": name(first),
                "alternatives": alternatives,
                "alone": alone,
                "may_be_chance": self.may_be_chance(member, alone),
            }))
        });
        let times = |times: &[usize]| -> Vec<Value> {
            let pair = |&at: &usize| {
                let (before, after) = (self.used[at], self.used[at + 1]);
                json!({
                    "from": before.name,
                    "to": after.name,
                    "came": before.lacks(after),
                    "went": after.lacks(before),
                    "gone_files": self.gone(at),
                })
            };
            times.iter().map(pair).collect()
        };
        let members: Vec<_> = members.collect();
        let flags = self.flags(set);
        let inputs: serde_json::Map<_, _> =
            flags.inputs().into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let inputs = if members.is_empty() { json!({}) } else { Value::Object(inputs) };
        json!({
            "exact": !members.is_empty() && set.is_exact(),
            "is_best": set.is_best,
            "ingredients": members,
            "missed": times(&set.missed),
            "false_alarms": times(&set.false_alarms),
            "flags": flags.words(),
            "with": inputs,
        })
    }
}

impl KeyFamily {
    /// The store, for people.
    fn text(&self) -> String {
        let prefix = match &self.prefix {
            Some(prefix) => format!(" with the prefix {prefix}"),
            None => String::new(),
        };
        format!("{} for {}{prefix}", self.kind, self.system)
    }
}
