//! A guardian or its deputy, as the root half sees it.

use super::words::{Answer, END};
use crate::daemon::ProcessContext;
use crate::privileged::surroundings::ROOT_PATH;
use anyhow::{Context, Error, Result, anyhow};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Dropped, it is told to end and waited for.
pub(super) struct Servant {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// It was killed, most likely.
#[derive(Debug, thiserror::Error)]
#[error("the guardian died{0}")]
pub(super) struct Died(String);

impl Servant {
    /// Starts one, which waits for its first order.
    pub fn start(program: &Path, name: &str) -> Result<Self> {
        // Whoever ends the root half by its command line must not end its guardian with it.
        let mut command = Command::new(program);
        command.arg0(name).args(["privileged", "--guardian"]);
        command.env_clear().env("PATH", ROOT_PATH);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        ProcessContext { own_session: true, ..ProcessContext::default() }.apply(&mut command);
        let mut child = command.spawn().context("start the guardian")?;
        let orders = child.stdin.take().context("the guardian has no input")?;
        let answers = BufReader::new(child.stdout.take().context("the guardian has no output")?);
        Ok(Servant { child, orders, answers })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn order(&mut self, line: &str) -> Result<()> {
        match writeln!(self.orders, "{line}") {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(self.death()),
            other => other.context("speak to the guardian"),
        }
    }

    /// # Errors
    /// [`Died`] when it is dead; also what it has failed in.
    pub fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        match serde_json::from_str(&line) {
            Ok(Answer::Failed(causes)) => Err(chained(causes)),
            Ok(answer) => Ok(answer),
            Err(_) => Err(self.death()),
        }
    }

    pub fn ask(&mut self, line: &str) -> Result<Answer> {
        self.order(line)?;
        self.answer()
    }

    /// It is dead: what of, as far as it has said.
    fn death(&mut self) -> Error {
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
        let _ = self.order(END);
        let _ = self.child.wait();
    }
}

/// Puts causes, outermost first, back together.
fn chained(causes: Vec<String>) -> Error {
    let mut causes = causes.into_iter().rev();
    let first = anyhow!(causes.next().unwrap_or_default());
    causes.fold(first, |error, cause| error.context(cause))
}
