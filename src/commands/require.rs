//! `--require`: checks whether the store has everything that a job is going to need, whatever was restored.

use super::run_error::RunError;
use crate::report::{self, Outcome};
use std::time::Instant;
use storecache_root_helper::HelperError;
use storecache_root_helper::client::RootHelperProcess;
use storecache_root_helper::protocol::{Reply, Request, Required};

/// The state of the required items.
#[derive(Default)]
pub struct RequireCheck {
    pub required: Vec<Required>,
    /// Duration of the check.
    pub seconds: f64,
}

/// Has the root helper check the closures.
pub fn check(root: &mut RootHelperProcess, patterns: &[String]) -> Result<RequireCheck, RunError> {
    if patterns.is_empty() {
        return Ok(RequireCheck::default());
    }
    let checking = Instant::now();
    root.send(&Request::Check(patterns.to_vec()), &[])?;
    let (Reply::Checked(required), _) = root.receive()? else {
        return Err(HelperError::unexpected_reply("Checked").into());
    };
    Ok(RequireCheck { required, seconds: checking.elapsed().as_secs_f64() })
}

/// Whether all required items are complete.
pub fn met(outcome: &Outcome) -> bool {
    outcome.required.iter().all(|required| required.complete)
}

pub fn print(outcome: &Outcome) {
    for required in &outcome.required {
        let pattern = &required.pattern;
        let line = match (required.items, required.missing.as_slice()) {
            (0, _) => format!("required {pattern}: missing"),
            (_, []) => {
                let size = report::plural(required.closure, "item");
                format!("required {pattern}: complete, a closure of {size}")
            }
            (_, [first, more @ ..]) => format!(
                "required {pattern}: incomplete, {first}{} valid but not on the disk, in a \
                 closure of {}",
                match more.len() {
                    0 => " is".to_owned(),
                    more => format!(" and {more} more are"),
                },
                report::plural(required.closure, "item"),
            ),
        };
        report::status(line);
    }
}
