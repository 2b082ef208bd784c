//! Parse, run, exit code.

use anyhow::Result;
use clap::Parser;
use std::process::ExitCode;
use storecache::cli::{Cli, Verb};
use storecache::command::{self, Ending};
use storecache::privileged;
use storecache::report;

fn main() -> ExitCode {
    let verb = Cli::parse().verb;
    let ending = match verb {
        Verb::Privileged(args) if args.guardian => return ExitCode::from(privileged::guard()),
        Verb::Privileged(_) => return ExitCode::from(privileged::serve()),
        Verb::Save(args) => run(args.options(), command::save),
        Verb::Restore(args) => run(args.options(), command::restore),
        Verb::Key(args) => run(args.options(), command::key),
        Verb::Inspect(args) => run(args.options(), command::inspect),
        Verb::Doctor(args) => run(args.options(), command::doctor),
        Verb::Lint(args) => run(args.options(), command::lint),
        Verb::Verify(args) => run(args.options(), command::verify),
    };
    ExitCode::from(ending)
}

/// Wrong usage is told apart from failure: it is found before anything runs.
fn run<O>(options: Result<O>, command: impl FnOnce(&O) -> Result<Ending>) -> u8 {
    const WRONG_USAGE: u8 = 2;
    let options = match options {
        Ok(options) => options,
        Err(e) => {
            report::note(format!("storecache: {e:#}\nsee `storecache --help`"));
            return WRONG_USAGE;
        }
    };
    match command(&options) {
        Ok(ending) => ending.code(),
        Err(e) => {
            report::note(format!("storecache: {e:#}"));
            Ending::Failed.code()
        }
    }
}
