//! Retries for steps that must not fail: undoing changes and restarting a daemon. The problem that broke the
//! run may be over after a moment, and no later step makes up for a failure here.

use std::thread::sleep;
use std::time::Duration;
use tracing::debug;

/// How often a step is tried before its failure is final.
const UNDO_TRIES: u32 = 4;
/// Pause before the second attempt; it doubles with each further attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// Runs `step`, which must be repeatable, until it succeeds, `UNDO_TRIES` times at most.
///
/// # Errors
/// The error of the last attempt.
pub fn insist<T, E>(mut step: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    for again in 0..UNDO_TRIES - 1 {
        match step() {
            Ok(done) => return Ok(done),
            Err(_) => {
                let pause = FIRST_PAUSE * 2u32.pow(again);
                debug!(attempt = again + 2, wait_ms = pause.as_millis(), "retry a step of undoing");
                sleep(pause);
            }
        }
    }
    step()
}

#[cfg(test)]
mod tests {
    use super::insist;

    #[test]
    fn retry_returns_the_first_success_or_the_last_error() {
        let mut count = 0;
        let mut step = |good: u32| {
            count += 1;
            if count >= good { Ok(count) } else { Err(count) }
        };
        assert_eq!(insist(|| step(3)), Ok(3));
        count = 0;
        let never: Result<(), u32> = insist(|| {
            count += 1;
            Err(count)
        });
        assert_eq!(never, Err(4));
    }
}
