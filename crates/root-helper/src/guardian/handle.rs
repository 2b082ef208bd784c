//! The root helper's connection to a guardian or a backup guardian.

use super::messages::{Answer, END};
use anyhow::{Context, Error, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout};
use storecache_programs::{Program, spawn};
use storecache_runtime::RunContext;
use storecache_runtime::advice::{Advice, WithAdvice};
use storecache_runtime::events;
use storecache_runtime::liveness::{POLL_INTERVAL, SILENCE_THRESHOLD, StallTimer};

/// A guardian process. When dropped, it is asked to end, and waited for unless it hangs.
pub(super) struct GuardianHandle {
    run: RunContext,
    /// The name for messages.
    name: &'static str,
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// The number of answers that are still to come.
    owed: usize,
    /// Whether it showed no activity for too long.
    hangs: bool,
}

/// The guardian died, most likely because it was killed.
#[derive(Debug, thiserror::Error)]
#[error("the guardian died{0}")]
pub(super) struct Died(String);

impl GuardianHandle {
    /// Starts a guardian, which waits for its first order. Its reports go to `run`.
    pub fn start(run: &RunContext, program: &Path, name: &'static str) -> Result<Self> {
        let mut child = spawn(Program::Guardian { program, name }).context("start the guardian")?;
        let orders = child.stdin.take().context("the guardian has no input")?;
        let answers = BufReader::new(child.stdout.take().context("the guardian has no output")?);
        Ok(GuardianHandle { run: run.clone(), name, child, orders, answers, owed: 0, hangs: false })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends an order that the guardian answers.
    pub fn order(&mut self, line: &str) -> Result<()> {
        match writeln!(self.orders, "{line}") {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => return Err(self.death()),
            other => other.context("write to the guardian")?,
        }
        self.owed += 1;
        Ok(())
    }

    /// Sends an order that the guardian does not answer. If the guardian is dead, the order is lost, which does no
    /// harm.
    pub fn note(&mut self, line: &str) {
        let _ = writeln!(self.orders, "{line}");
    }

    /// Returns the answer to the last order.
    ///
    /// # Errors
    /// [`Died`] if the guardian is dead; [`TimedOut`](storecache_runtime::liveness::TimedOut) if it shows no activity; its causes if the order
    /// failed; and any error of `cancelled`. In the last case the answer is still to come.
    pub fn answer(&mut self, cancelled: &dyn Fn() -> Result<()>) -> Result<Answer> {
        let pid = self.child.id();
        // The guardian polls all the time, so its read counters are not evidence of progress.
        let mut stall_timer = StallTimer::new(self.run.stall_timeout()).without_bytes();
        let mut is_continued = false;
        // The last status text of the guardian about the process that it waits for.
        let mut last_report = String::new();
        while self.owed > 0 {
            cancelled()?;
            let line = self.next_line()?;
            let answer = line.as_deref().map(serde_json::from_str::<Answer>);
            match answer {
                Some(Ok(Answer::Alive(activity, text))) => {
                    stall_timer.reset();
                    last_report = format!("; its last report: {text}");
                    self.run.forward_in_phase(activity, text);
                }
                Some(Ok(Answer::Event(event))) => {
                    stall_timer.reset();
                    events::forward(event);
                }
                Some(Ok(answer)) => {
                    self.owed -= 1;
                    match answer {
                        // The answer to an earlier order, whose caller stopped waiting.
                        _ if self.owed > 0 => {}
                        Answer::Failed(causes, advice) => return Err(chained(causes, advice)),
                        answer => return Ok(answer),
                    }
                }
                Some(Err(_)) => match line.filter(|line| line.ends_with('\n')) {
                    Some(line) => bail!("unexpected message from the guardian: {line}"),
                    None => return Err(self.death()),
                },
                // Prefer the guardian's own status text over an observation of its process.
                None if stall_timer.idle() < SILENCE_THRESHOLD => {}
                None => match stall_timer.sample(&[pid]) {
                    Some(activity) => {
                        let name = self.name;
                        self.run.report_active(format!(
                            "the {name}, process {pid}: {activity}{last_report}"
                        ));
                    }
                    // The user process leaves it to this timeout then: its own began earlier.
                    None => self.run.report_waiting(format!(
                        "the {}, process {pid}, {}{last_report}",
                        self.name,
                        stall_timer.describe_silence()
                    )),
                },
            }
            if !stall_timer.is_expired() {
                continue;
            }
            if is_continued {
                self.hangs = true;
                let what =
                    format!("the {}, process {pid}, {}", self.name, stall_timer.describe_silence());
                bail!(self.run.timed_out("stall-timeout", what));
            }
            // Another process may have stopped the guardian, and no other process would start the daemon.
            is_continued = true;
            stall_timer.reset();
            let _ = kill_process(Pid::from_child(&self.child), Signal::CONT);
        }
        bail!("no order to the guardian is pending")
    }

    /// Returns a line of the guardian, or `None` if none arrives soon. An incomplete line is its last one.
    fn next_line(&mut self) -> Result<Option<String>> {
        let interval = Timespec { tv_sec: 0, tv_nsec: POLL_INTERVAL.subsec_nanos().into() };
        if !self.answers.buffer().contains(&b'\n') {
            match poll(&mut [PollFd::new(self.answers.get_ref(), PollFlags::IN)], Some(&interval)) {
                Ok(0) | Err(Errno::INTR) => return Ok(None),
                done => done.context("read from the guardian")?,
            };
        }
        let mut line = String::new();
        self.answers.read_line(&mut line).context("read from the guardian")?;
        Ok(Some(line))
    }

    /// Returns the error that the guardian died, with the cause if it reported one.
    fn death(&mut self) -> Error {
        let answers = self.answers.by_ref().lines().map_while(std::io::Result::ok);
        let mut answers = answers.filter_map(|line| serde_json::from_str(&line).ok());
        if let Some((causes, advice)) = answers.find_map(|answer| match answer {
            Answer::Failed(causes, advice) => Some((causes, advice)),
            _ => None,
        }) {
            // The guardian could not even start.
            return chained(causes, advice);
        }
        let mut said = String::new();
        // This read ends: a daemon that the guardian has started does not hold its standard error open.
        if let Some(mut errors) = self.child.stderr.take() {
            let _ = errors.read_to_string(&mut said);
        }
        Died(if said.trim().is_empty() { String::new() } else { format!(": {}", said.trim()) })
            .into()
    }
}

impl Drop for GuardianHandle {
    fn drop(&mut self) {
        // If the guardian is dead, the write fails and there is nothing to end.
        let _ = writeln!(self.orders, "{END}");
        if !self.hangs {
            // Another process may have stopped the guardian.
            let _ = kill_process(Pid::from_child(&self.child), Signal::CONT);
            let _ = self.child.wait();
        }
    }
}

/// Joins causes, outermost first, into one error with advice.
fn chained(causes: Vec<String>, advice: Advice) -> Error {
    let mut causes = causes.into_iter().rev();
    let first = anyhow!(causes.next().unwrap_or_default()).advise(advice);
    causes.fold(first, |error, cause| error.context(cause))
}
