//! The guardian: a process of its own that stops the daemon when it is told to, starts it again, and puts
//! things right, whatever becomes of the root half.
//!
//! It is started before the root half gives up what it does not need itself, and is told what it watches
//! over before the first change. Before the daemon stops it finds that and gathers what a stop and a start
//! take. It is the one who starts the daemon in every case: on the word of the root half, or when the root
//! half is gone; then it also undoes the commit and removes what was staged. It leaves the session, so that
//! a terminal's or a job's signals do not reach it.
//!
//! There is a second one, its deputy, which knows the same. Should the guardian be killed, the root half, which
//! could not start a daemon with all its rights, turns to the deputy; should both be gone, the deputy does
//! by itself what the guardian would have done.
//!
//! - `words`: what they are told and answer
//! - `servant`: one of them, as the root half sees it
//! - `orders`: those of the root half, as one of them hears them
//! - `main_loop`: what one of them does
//! - `stop_record`: what is stopped, for the next restore
//! - `restart`: starting a daemon again where both were killed, and the root half

mod main_loop;
mod orders;
mod restart;
mod servant;
mod stop_record;
mod words;

pub use main_loop::{guard, serve_orders};
pub use stop_record::place_of_records;
pub use words::{Brief, Charge, Ward};

use anyhow::{Result, bail};
use servant::{Died, Servant};
use std::io::{Write, stderr};
use std::path::Path;
use words::{Answer, Post, START, STARTING, STOP, STOPPING};

/// The root half's end. Dropped, it lets the guardian go.
pub struct Guardian {
    // The deputy goes first: should the root half die in between, the guardian is still there.
    deputy: Servant,
    guardian: Servant,
}

impl Guardian {
    /// Starts a guardian and its deputy, which are this program again.
    pub fn wait() -> Result<Self> {
        // By the link once the file was replaced.
        let program = std::env::current_exe().ok().filter(|path| path.exists());
        Self::wait_with(&program.unwrap_or_else(|| "/proc/self/exe".into()))
    }

    /// The same with another file as the program.
    pub fn wait_with(program: &Path) -> Result<Self> {
        let guardian = Servant::start(program, "guardian")?;
        let deputy = Servant::start(program, "deputy")?;
        Ok(Guardian { deputy, guardian })
    }

    /// From now on it puts things right when the root half is gone. First it starts a daemon that a dead run
    /// has stopped; gives back what a person has to know of that.
    pub fn watch(&mut self, ward: &Ward) -> Result<Vec<String>> {
        let post = |deputy, other: &Servant| {
            serde_json::to_string(&Post { ward: ward.clone(), deputy, other: other.pid() })
        };
        let posts = [post(false, &self.deputy)?, post(true, &self.guardian)?];
        self.guardian.order(&posts[0])?;
        self.deputy.order(&posts[1])?;
        match (self.guardian.answer(&never)?, self.deputy.answer(&never)?) {
            (Answer::Watching(told), Answer::Watching(_)) => Ok(told),
            _ => bail!("the guardian did not say that it watches"),
        }
    }

    /// Has it find the daemon and prepare all that a stop and a start take.
    ///
    /// # Errors
    /// When there is no daemon that could be stopped and started again. Nothing was done then.
    pub fn arm(&mut self, brief: &Brief) -> Result<Armed<'_>> {
        let brief = serde_json::to_string(brief)?;
        self.guardian.order(&brief)?;
        self.deputy.order(&brief)?;
        match (self.guardian.answer(&never)?, self.deputy.answer(&never)?) {
            (Answer::Ready(charge), Answer::Ready(_)) => {
                Ok(Armed { guardian: self, charge, started: false })
            }
            _ => bail!("the guardian did not say what it found"),
        }
    }

    /// Has a thing done, by the deputy if it must be.
    fn call(&mut self, order: &str, cancelled: &dyn Fn() -> Result<()>) -> Result<()> {
        let ask = |servant: &mut Servant| {
            servant.order(order)?;
            servant.answer(cancelled)
        };
        let answer = match ask(&mut self.guardian) {
            Err(e) if e.is::<Died>() => ask(&mut self.deputy),
            answer => answer,
        };
        match answer? {
            Answer::Done => Ok(()),
            _ => bail!("the guardian says what nobody has asked"),
        }
    }
}

/// What nothing calls off.
fn never() -> Result<()> {
    Ok(())
}

/// A guardian that knows the daemon. Dropped without [`Armed::start`], it has it started too.
pub struct Armed<'a> {
    guardian: &'a mut Guardian,
    pub charge: Charge,
    started: bool,
}

impl Armed<'_> {
    /// Has the daemon stopped.
    ///
    /// # Errors
    /// Also whatever `cancelled` returns: the start that follows calls the stop off.
    pub fn stop(&mut self, cancelled: &dyn Fn() -> Result<()>) -> Result<()> {
        self.guardian.deputy.note(STOPPING);
        self.guardian.call(STOP, cancelled)
    }

    /// Has the daemon started and waits until it answers.
    pub fn start(mut self) -> Result<()> {
        self.order_start()
    }

    fn order_start(&mut self) -> Result<()> {
        self.started = true;
        self.guardian.deputy.note(STARTING);
        self.guardian.call(START, &never)
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        if !self.started {
            // Whatever went wrong is being reported already; that nobody starts the daemon is what is left
            // to tell.
            if let Err(e) = self.order_start() {
                let _ = writeln!(stderr(), "storecache: the daemon was not started again: {e:#}");
            }
        }
    }
}
