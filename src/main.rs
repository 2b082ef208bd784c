//! The entry point: parses the command line, runs a command, and returns its exit code.

#![deny(clippy::disallowed_macros, clippy::disallowed_methods)]

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use std::process::ExitCode;
use storecache::action::{self, Job, Step, StepPart, Table};
use storecache::cli::{ActionPart, Cli, HelpArgs, KeyPart, KeyVerbArgs, TableArgs, Verb};
use storecache::commands::{self, Conclusion, StepCommand};
use storecache::report::{self, Diagnostic};
use storecache_root_helper as root_helper;
use storecache_runtime::RunContext;
use storecache_runtime::advice::WithAdvice;
use storecache_runtime::untrusted_text::escape;

fn main() -> ExitCode {
    report::report_panics();
    let (verb, verbosity) = match parse() {
        Ok((cli, verbosity)) => (cli.verb, verbosity),
        Err(e) => return ExitCode::from(misused(&e)),
    };
    let context = RunContext::default();
    // The root helper has an environment that another user chose, and sends its events to the user process.
    if !matches!(verb, Verb::Privileged(_))
        && let Err(e) = report::start_events(verbosity)
    {
        if matches!(verb, Verb::Action(_)) {
            action::annotate(&Diagnostic::from_error(e.as_ref()));
            return ExitCode::from(WRONG_USAGE);
        }
        return ExitCode::from(run(Err(e), |()| Ok(Conclusion::Done)));
    }
    let ending = match verb {
        Verb::Privileged(args) if args.guardian => {
            return ExitCode::from(root_helper::guard(&context));
        }
        Verb::Privileged(args) => {
            return ExitCode::from(root_helper::serve(&context, args.everywhere));
        }
        Verb::Save(args) => run(args.options(), |it| commands::save(&context, it)),
        Verb::Restore(args) => run(args.options(), |it| commands::restore(&context, it)),
        Verb::Key(KeyVerbArgs { part: None, show }) => run(show.options(), commands::key),
        Verb::Key(KeyVerbArgs { part: Some(part), .. }) => match part {
            KeyPart::Diff(args) => run(args.options(), |it| commands::diff(&context, it)),
            KeyPart::Suggest(args) => run(args.options(), |it| commands::suggest(&context, it)),
            KeyPart::Simulate(args) => run(args.options(), commands::simulate),
        },
        Verb::Inspect(args) => run(args.options(), |it| commands::inspect(&context, it)),
        Verb::Doctor(args) => run(args.options(), |it| commands::doctor(&context, it)),
        Verb::Lint(args) => run(args.options(), commands::lint),
        Verb::List(args) => run(args.options(), |it| commands::list(&context, it)),
        Verb::Usage(args) => run(args.options(), |it| commands::usage(&context, it)),
        Verb::Prune(args) => run(args.options(), |it| commands::prune(&context, it)),
        Verb::Verify(args) => run(args.options(), |it| commands::verify(&context, it)),
        Verb::Help(args) => help(&args),
        Verb::Action(args) => match args.part {
            ActionPart::Main => in_job(&context, StepPart::Main),
            ActionPart::Post => in_job(&context, StepPart::Post),
            ActionPart::Inputs(form) => print(&form, &action::input_table()),
            ActionPart::Outputs(form) => print(&form, &action::output_table()),
        },
    };
    ExitCode::from(ending)
}

/// Parses the command line. An error quotes arguments, which may be file names. To keep them from writing control
/// characters to a terminal, the error is produced again from escaped arguments.
fn parse() -> Result<(Cli, u8), clap::Error> {
    Cli::parse_words(std::env::args_os()).map_err(|e| {
        let shown = std::env::args_os().map(|word| escape(&word.to_string_lossy()).into_owned());
        Cli::try_parse_from(shown).err().unwrap_or(e)
    })
}

/// Prints the text of `--help` or the error in the command line, and returns the exit code.
fn misused(error: &clap::Error) -> u8 {
    if error.use_stderr() {
        error.render().to_string().lines().for_each(report::note);
        return WRONG_USAGE;
    }
    #[expect(clippy::disallowed_methods, reason = "the help is a text of this program")]
    error.exit()
}

const WRONG_USAGE: u8 = 2;

/// Runs a command. Wrong usage has an exit code of its own, because it is detected before the command runs.
fn run<O>(options: Result<O>, command: impl FnOnce(&O) -> Result<Conclusion>) -> u8 {
    let options = match options {
        Ok(options) => options,
        Err(e) => {
            let usage = e.hint("see `storecache --help`");
            Diagnostic::from_error(usage.as_ref()).print();
            return WRONG_USAGE;
        }
    };
    match command(&options) {
        Ok(ending) => ending.code(),
        Err(e) => {
            report::print_last_events(false);
            Diagnostic::from_error(e.as_ref()).print();
            Conclusion::Failed.code()
        }
    }
}

/// Runs one step of a job: turns its inputs into the flags of a verb, and parses these like any other command line.
fn in_job(context: &RunContext, moment: StepPart) -> u8 {
    let step = Step::begin(Job::of_environment(), moment);
    let parsed = step.and_then(|step| {
        let verbs = step.verbs().iter();
        let tasks = verbs.map(|&verb| task(step.words(verb)?)).collect::<Result<Vec<_>>>()?;
        Ok((step, tasks))
    });
    match parsed {
        Ok((step, tasks)) => match tasks.into_iter().next() {
            Some(task) => commands::step(context, &step, task).code(),
            None => Conclusion::Done.code(),
        },
        Err(e) => {
            let e = e.context("wrong inputs");
            action::annotate(&Diagnostic::from_error(e.as_ref()));
            WRONG_USAGE
        }
    }
}

fn task(words: Vec<String>) -> Result<StepCommand> {
    let parsed = Cli::try_parse_from(words).map_err(|e| {
        // The first paragraph is the error; usage and hints are for a terminal.
        let text = e.to_string();
        let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
        let line = lines.collect::<Vec<_>>().join(" ");
        anyhow!("{}", line.strip_prefix("error: ").unwrap_or(&line).to_owned())
    });
    match parsed?.verb {
        Verb::Restore(args) => Ok(StepCommand::Restore(args.options()?)),
        Verb::Save(args) => Ok(StepCommand::Save(args.options()?)),
        _ => bail!("a step can only restore or save"),
    }
}

/// Prints the requested help. Clap returns the text of `--help`, like a usage error, as an error.
fn help(args: &HelpArgs) -> u8 {
    match args.text() {
        Ok(text) => {
            let printed = report::answer_exact(text.trim_end()).context("print the help");
            run(printed, |()| Ok(Conclusion::Done))
        }
        Err(e) => misused(&e),
    }
}

fn print(form: &TableArgs, table: &Table) -> u8 {
    let text = if form.yaml { &table.yaml } else { &table.markdown };
    let printed = report::answer_exact(text.trim_end()).context("print the table");
    run(printed, |()| Ok(Conclusion::Done))
}
