//! A guardian or its deputy, as the root half sees it.

use super::words::{Answer, END};
use crate::pulse::{self, LOOK, SILENT, Vigil};
use crate::system::{Program, spawn};
use anyhow::{Context, Error, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout};

/// Dropped, it is told to end, and waited for unless it hangs.
pub(super) struct Servant {
    /// For people.
    name: &'static str,
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// How many answers are to come.
    owed: usize,
    /// It gave no sign of life for too long.
    hangs: bool,
}

/// It was killed, most likely.
#[derive(Debug, thiserror::Error)]
#[error("the guardian died{0}")]
pub(super) struct Died(String);

impl Servant {
    /// Starts one, which waits for its first order.
    pub fn start(program: &Path, name: &'static str) -> Result<Self> {
        let mut child = spawn(Program::Guardian { program, name }).context("start the guardian")?;
        let orders = child.stdin.take().context("the guardian has no input")?;
        let answers = BufReader::new(child.stdout.take().context("the guardian has no output")?);
        Ok(Servant { name, child, orders, answers, owed: 0, hangs: false })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it something that it answers.
    pub fn order(&mut self, line: &str) -> Result<()> {
        match writeln!(self.orders, "{line}") {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => return Err(self.death()),
            other => other.context("speak to the guardian")?,
        }
        self.owed += 1;
        Ok(())
    }

    /// Tells it something that it only has to know. If it is dead nobody has to.
    pub fn note(&mut self, line: &str) {
        let _ = writeln!(self.orders, "{line}");
    }

    /// Its answer to the last order.
    ///
    /// # Errors
    /// [`Died`] when it is dead; [`pulse::Cut`] when it gives no sign of life; also what it has failed in, and
    /// whatever `cancelled` returns: then the answer is still to come.
    pub fn answer(&mut self, cancelled: &dyn Fn() -> Result<()>) -> Result<Answer> {
        let pid = self.child.id();
        // It asks around all the time, and that it reads for it means nothing.
        let mut vigil = Vigil::new(pulse::clock()).without_bytes();
        let mut woken = false;
        // What it said last of whom it waits for.
        let mut said_last = String::new();
        while self.owed > 0 {
            cancelled()?;
            let line = self.next_line()?;
            let said = line.as_deref().map(serde_json::from_str::<Answer>);
            match said {
                Some(Ok(Answer::Alive(sign, text))) => {
                    vigil.sign();
                    said_last = format!("; it said: {text}");
                    pulse::heard_here(sign, text);
                }
                Some(Ok(answer)) => {
                    self.owed -= 1;
                    match answer {
                        // Nobody has waited for it.
                        _ if self.owed > 0 => {}
                        Answer::Failed(causes) => return Err(chained(causes)),
                        answer => return Ok(answer),
                    }
                }
                Some(Err(_)) => match line.filter(|line| line.ends_with('\n')) {
                    Some(line) => bail!("the guardian says what nobody knows: {line}"),
                    None => return Err(self.death()),
                },
                // What it says of whom it waits for is worth more than that it waits.
                None if vigil.silent() < SILENT => {}
                None => {
                    if let Some(sign) = vigil.look(&[pid]) {
                        pulse::alive(format!(
                            "the {}, process {pid}: {sign}{said_last}",
                            self.name
                        ));
                    }
                }
            }
            if !vigil.is_over() {
                continue;
            }
            if woken {
                self.hangs = true;
                let what = format!("the {}, process {pid}, {}", self.name, vigil.tell());
                bail!(pulse::cut("stall-timeout", what));
            }
            // It may be that somebody has stopped it, and nobody else starts the daemon.
            woken = true;
            vigil.sign();
            let _ = kill_process(Pid::from_child(&self.child), Signal::CONT);
        }
        bail!("the guardian was asked nothing")
    }

    /// A line of it, if one comes soon. What is no whole line is its last.
    fn next_line(&mut self) -> Result<Option<String>> {
        let step = Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos().into() };
        if !self.answers.buffer().contains(&b'\n') {
            match poll(&mut [PollFd::new(self.answers.get_ref(), PollFlags::IN)], Some(&step)) {
                Ok(0) | Err(Errno::INTR) => return Ok(None),
                done => done.context("listen to the guardian")?,
            };
        }
        let mut line = String::new();
        self.answers.read_line(&mut line).context("listen to the guardian")?;
        Ok(Some(line))
    }

    /// It is dead: what of, as far as it has said.
    fn death(&mut self) -> Error {
        let answers = self.answers.by_ref().lines().map_while(std::io::Result::ok);
        let mut answers = answers.filter_map(|line| serde_json::from_str(&line).ok());
        if let Some(causes) = answers.find_map(|answer| match answer {
            Answer::Failed(causes) => Some(causes),
            _ => None,
        }) {
            // It could not even begin.
            return chained(causes);
        }
        let mut said = String::new();
        // A daemon that it has started does not have its error output.
        if let Some(mut errors) = self.child.stderr.take() {
            let _ = errors.read_to_string(&mut said);
        }
        Died(if said.trim().is_empty() { String::new() } else { format!(": {}", said.trim()) })
            .into()
    }
}

impl Drop for Servant {
    fn drop(&mut self) {
        // If it is dead there is nothing to end.
        let _ = writeln!(self.orders, "{END}");
        if !self.hangs {
            // It may be that somebody has stopped it.
            let _ = kill_process(Pid::from_child(&self.child), Signal::CONT);
            let _ = self.child.wait();
        }
    }
}

/// Puts causes, outermost first, back together.
fn chained(causes: Vec<String>) -> Error {
    let mut causes = causes.into_iter().rev();
    let first = anyhow!(causes.next().unwrap_or_default());
    causes.fold(first, |error, cause| error.context(cause))
}
