//! `prune`: prints which entries can be deleted, and deletes them on request.

use super::annotated_entries::{ListedEntry, open_inventory, read};
use super::prune_plan::{Cause, PruneChoice, RepositoryFacts, choose};
use super::{Conclusion, cancel, closed_pull_requests, eviction_forecast, or_json};
use crate::config::{Prune, PruneReason};
use crate::report::{self, Diagnostic};
use anyhow::{Result, anyhow};
use jiff::Timestamp;
use serde_json::{Value, json};
use storecache_backend::retry_limits::{
    DELETION_FAILURES, DELETION_TRIES, LONGEST_DELETION_RETRY_AFTER,
};
use storecache_backend::{Deleted, Inventory, InventoryError};
use storecache_runtime::RunContext;
use storecache_runtime::advice::{Advice, in_one_line};
use tracing::debug;

/// Prints the plan, and carries it out if the options ask for it.
pub fn prune(context: &RunContext, options: &Prune) -> Result<Conclusion> {
    or_json(&options.output, run(context, options))
}

fn run(context: &RunContext, options: &Prune) -> Result<Conclusion> {
    cancel::on_signals(context)?;
    let inventory = open_inventory(context, &options.inventory)?;
    let mut warnings = Vec::new();
    let all = read(context, inventory.as_ref(), &mut warnings)?;
    let scene = look_around(context, inventory.as_ref(), &all, options, &mut warnings)?;
    if all.iter().any(|held| held.is_ours() && held.standing.is_none()) {
        warnings.push(
            "the bases of deltas cannot be read from here: older and larger entries stay if a \
             delta may need them"
                .into(),
        );
    }
    let choice = choose(&all, &scene, &options.pruning, Timestamp::now());
    if !options.output.json {
        print_plan(&all, &choice, options.output.quiet)?;
    }
    warnings.iter().for_each(report::print_warning);
    let done = match options.apply {
        true => carry_out(context, inventory.as_ref(), &all, &choice, options),
        false => Done::default(),
    };
    finish(inventory.as_ref(), &all, &choice, options, &done, &warnings)
}

/// Reads facts that are not in the entries. Without the default branch, no entry can be chosen.
fn look_around(
    context: &RunContext,
    inventory: &dyn Inventory,
    all: &[ListedEntry],
    options: &Prune,
    warnings: &mut Vec<String>,
) -> Result<RepositoryFacts> {
    if all.is_empty() {
        return Ok(RepositoryFacts::default());
    }
    let default_branch = inventory.default_branch()?;
    let closed = match options.pruning.wants(PruneReason::Closed) {
        true => closed_pull_requests::closed(context, inventory, all, warnings)?,
        false => Default::default(),
    };
    Ok(RepositoryFacts { default_branch, closed })
}

/// The part of the plan that was carried out.
#[derive(Debug, Default)]
struct Done {
    deleted: Vec<String>,
    bytes: u64,
    /// Entries that had been deleted by others before.
    gone: Vec<String>,
    failed: Vec<(String, String)>,
    /// Why it stopped before the end of the plan.
    stopped: Option<anyhow::Error>,
    canceled: bool,
}

/// Deletes the chosen entries.
fn carry_out(
    context: &RunContext,
    inventory: &dyn Inventory,
    all: &[ListedEntry],
    choice: &PruneChoice,
    options: &Prune,
) -> Done {
    let mut done = Done::default();
    done.stopped = done.delete_all(context, inventory, all, choice, options).err();
    done.canceled = context.is_canceled();
    done
}

impl Done {
    /// # Errors
    /// If it stopped early, with the reason.
    fn delete_all(
        &mut self,
        context: &RunContext,
        inventory: &dyn Inventory,
        all: &[ListedEntry],
        choice: &PruneChoice,
        options: &Prune,
    ) -> Result<()> {
        let count = choice.going.len();
        let mut in_a_row = 0;
        for (number, (at, _)) in choice.going.iter().enumerate() {
            let record = &all[*at].record;
            let key = &record.key;
            let say = |what: String| {
                let line = format!("{what} {} of {count}: {key}", number + 1);
                if options.output.json {
                    report::note(line)
                } else {
                    report::answer(line)?
                }
                Ok(()) as Result<()>
            };
            context.check_canceled()?;
            match delete(context, inventory, &all[*at]) {
                Ok(Deleted::Now) => {
                    self.deleted.push(record.key.clone());
                    self.bytes = self.bytes.saturating_add(record.size);
                    say("deleted".into())?;
                }
                Ok(Deleted::Before) => {
                    self.gone.push(record.key.clone());
                    say("gone already,".into())?;
                }
                Err(e) => {
                    if context.is_canceled() {
                        return Err(anyhow!("canceled by a signal while {key} was being deleted"));
                    }
                    self.failed.push((record.key.clone(), in_one_line(&e)));
                    in_a_row += 1;
                    if matches!(e, InventoryError::Forbidden { .. })
                        || in_a_row == DELETION_FAILURES
                    {
                        return Err(e.into());
                    }
                    let note = format!("{key} was not deleted");
                    Diagnostic::from_error(&e)
                        .into_warning()
                        .advise(Advice { notes: vec![note], hint: None })
                        .print();
                    continue;
                }
            }
            in_a_row = 0;
        }
        Ok(())
    }
}

/// Deletes one entry. Retries if the backend states how long to wait.
fn delete(
    context: &RunContext,
    inventory: &dyn Inventory,
    held: &ListedEntry,
) -> Result<Deleted, InventoryError> {
    let mut tries = 1;
    loop {
        match inventory.delete(&held.record) {
            Err(InventoryError::Forbidden { wait: Some(wait), .. })
                if wait <= LONGEST_DELETION_RETRY_AFTER && tries < DELETION_TRIES =>
            {
                let seconds = wait.as_secs();
                report::status(format!("waiting {seconds} s, as the server requested"));
                cancel::sleep(context, wait)?;
            }
            deleted => {
                debug!(
                    key = held.record.key,
                    attempt = tries,
                    done = deleted.is_ok(),
                    "delete an entry"
                );
                return deleted;
            }
        }
        tries += 1;
    }
}

/// Prints the plan, one line for each entry, and the entries that stay.
fn print_plan(all: &[ListedEntry], choice: &PruneChoice, quiet: bool) -> Result<()> {
    let line = |at: usize, reason: &str, detail: &str| {
        let record = &all[at].record;
        [
            report::binary(record.size),
            reason.to_owned(),
            record.reference.clone().unwrap_or_else(|| "-".into()),
            format!("{}  ({detail})", record.key),
        ]
    };
    let going = choice.going.iter();
    let going: Vec<_> =
        going.map(|(at, Cause { reason, detail })| line(*at, reason.name(), detail)).collect();
    report::columns(&going, 1).iter().try_for_each(report::answer)?;
    if !quiet {
        let staying = choice.staying.iter().map(|(at, why)| line(*at, "stays", why));
        report::columns(&staying.collect::<Vec<_>>(), 1).iter().for_each(report::note);
    }
    Ok(())
}

/// Prints the end of the report, as one object or as a line.
fn finish(
    inventory: &dyn Inventory,
    all: &[ListedEntry],
    choice: &PruneChoice,
    options: &Prune,
    done: &Done,
    warnings: &[String],
) -> Result<Conclusion> {
    let chosen = choice.going.len() as u64;
    let bytes = eviction_forecast::sum(choice.going.iter().map(|(at, _)| &all[*at]));
    let failed = done.stopped.is_some() || !done.failed.is_empty();
    if options.output.json {
        let row = |at: usize| {
            let record = &all[at].record;
            json!({ "id": record.id, "key": record.key, "ref": record.reference, "size": record.size })
        };
        let with = |at: usize, more: Value| {
            let mut row = row(at);
            if let (Some(row), Value::Object(more)) = (row.as_object_mut(), more) {
                row.extend(more);
            }
            row
        };
        let plan = choice.going.iter().map(|(at, cause)| {
            with(*at, json!({ "reason": cause.reason.name(), "detail": cause.detail }))
        });
        let stays = choice.staying.iter().map(|(at, why)| with(*at, json!({ "detail": why })));
        report::answer_json(&json!({
            "ok": !failed,
            "backend": inventory.describe(),
            "applied": options.apply,
            "plan": plan.collect::<Vec<_>>(),
            "stays": stays.collect::<Vec<_>>(),
            "total": { "entries": chosen, "bytes": bytes },
            "deleted": done.deleted,
            "bytes": done.bytes,
            "gone": done.gone,
            "failed": done.failed,
            "cancelled": done.canceled,
            "reason": done.stopped.as_ref().map(|e| in_one_line(e.as_ref())),
            "warnings": warnings,
        }))?;
    }
    if let Some(e) = &done.stopped {
        Diagnostic::from_error(e.as_ref()).print();
    }
    let planned = report::plural(chosen, "entry");
    let left = |gone: u64| report::binary(eviction_forecast::sum(all.iter()).saturating_sub(gone));
    let total = match (chosen, options.apply) {
        (0, _) => format!("nothing to delete in {}", inventory.describe()),
        (_, false) => {
            let (size, left) = (report::binary(bytes), left(bytes));
            format!("would delete {planned} with {size}; {left} stay; to delete, use --apply")
        }
        (_, true) => {
            let gone = match done.gone.len() {
                0 => String::new(),
                gone => format!("; {gone} were deleted before"),
            };
            let (size, left) = (report::binary(done.bytes), left(done.bytes));
            format!("deleted {} of {planned} with {size}; {left} stay{gone}", done.deleted.len())
        }
    };
    if options.output.json {
        report::note(total)
    } else {
        report::answer(total)?
    }
    Ok(if failed { Conclusion::Failed } else { Conclusion::Done })
}
