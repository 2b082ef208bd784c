//! Advice that goes with an error: facts about it, and the next step of the reader.
//!
//! The text of an error is its cause. Advice is the last link of the chain of causes, so that it passes through any
//! context, and the code that prints the error finds it there. Messages name flags as they are typed at a terminal.

use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fmt;

/// Facts about an error, and what to do next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// Facts besides the cause, one sentence each.
    pub notes: Vec<String>,
    /// A command or a flag that the reader can type, in a sentence.
    pub hint: Option<String>,
}

impl Advice {
    /// Advice that only states the next step.
    pub fn hint(text: impl Into<String>) -> Self {
        Advice { notes: Vec::new(), hint: Some(text.into()) }
    }

    pub fn is_empty(&self) -> bool {
        self.notes.is_empty() && self.hint.is_none()
    }

    /// Returns the advice at the end of a chain of causes.
    pub fn find<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Self> {
        chain(error).last()?.downcast_ref()
    }

    /// Adds other advice. An existing hint is kept, because it is closer to the cause.
    pub fn and(mut self, other: Advice) -> Self {
        self.notes.extend(other.notes);
        self.hint = self.hint.or(other.hint);
        self
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<&str> = self.notes.iter().chain(&self.hint).map(String::as_str).collect();
        f.write_str(&parts.join("; "))
    }
}

impl Error for Advice {}

/// An error with advice.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
struct Advised {
    cause: String,
    source: Advice,
}

/// Adds advice to an error, whose causes become one text. Callers that decide on a type of the chain must do so before.
pub trait WithAdvice {
    /// The error or result with the advice.
    type Advised;

    fn advise(self, advice: Advice) -> Self::Advised;

    /// Adds the next step of the reader: a command or a flag in a sentence.
    fn hint(self, text: impl Into<String>) -> Self::Advised
    where
        Self: Sized,
    {
        self.advise(Advice::hint(text))
    }

    /// Adds a fact.
    fn note(self, text: impl Into<String>) -> Self::Advised
    where
        Self: Sized,
    {
        self.advise(Advice { notes: vec![text.into()], hint: None })
    }
}

impl WithAdvice for anyhow::Error {
    type Advised = anyhow::Error;

    fn advise(self, advice: Advice) -> anyhow::Error {
        if advice.is_empty() {
            return self;
        }
        let error: &(dyn Error + 'static) = self.as_ref();
        let inner = Advice::find(error).cloned().unwrap_or_default();
        Advised { cause: causes(error), source: inner.and(advice) }.into()
    }
}

impl<T> WithAdvice for anyhow::Result<T> {
    type Advised = anyhow::Result<T>;

    fn advise(self, advice: Advice) -> anyhow::Result<T> {
        self.map_err(|error| error.advise(advice))
    }
}

/// Returns the causes of an error in one line, outermost first, without advice. A cause that ends with the text of the
/// next one already contains it.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let links = chain(error).filter(|link| !link.is::<Advice>());
    join(links.map(ToString::to_string))
}

/// As [`causes`], with the advice after the causes: for a message that quotes the error.
pub fn in_one_line(error: &(dyn Error + 'static)) -> String {
    match Advice::find(error) {
        Some(advice) if !advice.is_empty() => format!("{}; {advice}", causes(error)),
        _ => causes(error),
    }
}

/// Joins causes, outermost first.
pub fn join(causes: impl IntoIterator<Item = String>) -> String {
    let mut line = String::new();
    for cause in causes {
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |link: &&'e (dyn Error + 'static)| (*link).source())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[derive(Debug, thiserror::Error)]
    enum Wrapper {
        #[error(transparent)]
        Other(#[from] anyhow::Error),
    }

    #[test]
    fn advice_passes_through_contexts_and_transparent_errors() {
        let error = anyhow!("no process listens").hint("start the daemon").note("it is a socket");
        let error = Wrapper::from(error.context("find the daemon"));
        let error = anyhow::Error::from(error).context("plan").hint("a later hint");
        assert_eq!(causes(error.as_ref()), "plan: find the daemon: no process listens");
        let advice = Advice::find(error.as_ref()).unwrap();
        assert_eq!(advice.hint.as_deref(), Some("start the daemon"));
        assert_eq!(advice.notes, ["it is a socket"]);
        assert_eq!(
            in_one_line(error.as_ref()),
            "plan: find the daemon: no process listens; it is a socket; start the daemon"
        );
    }

    #[test]
    fn cause_that_is_quoted_by_its_context_appears_once() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        let quoted = format!("open /x: {missing}");
        let error = Err::<(), _>(missing).context(quoted.clone()).unwrap_err();
        assert_eq!(causes(error.as_ref()), quoted);
        assert_eq!(Advice::find(error.as_ref()), None);
    }
}
