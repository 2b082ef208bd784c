//! `help`: help texts, manual pages and completions, generated from the definitions of the flags.

use super::{Cli, examples};
use clap::error::ErrorKind;
use clap::{Args, Command, CommandFactory, Parser, ValueEnum};
use clap_complete::aot;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use std::io::{self, Write};

#[derive(Debug, Args)]
pub struct HelpArgs {
    /// Print a manual page, for `man -l -`
    #[arg(long)]
    man: bool,
    /// Print a completion script for a shell
    #[arg(long, value_name = "SHELL", conflicts_with_all = ["man", "command"])]
    completions: Option<Shell>,
    /// Command, such as `save` or `key diff` [default: the program]
    #[arg(value_name = "COMMAND", value_parser = word)]
    command: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Fish,
    Zsh,
}

impl HelpArgs {
    /// Returns a manual page, or a completion script.
    ///
    /// # Errors
    /// For the text of `--help`: clap returns it as an error, which knows the output stream and the exit code.
    /// Otherwise, if the command does not exist.
    pub fn text(&self) -> Result<String, clap::Error> {
        if let Some(shell) = self.completions {
            return Ok(script(shell));
        }
        if self.man {
            return self.manual_page();
        }
        let words = [env!("CARGO_PKG_NAME")].into_iter();
        let words = words.chain(self.command.iter().map(String::as_str)).chain(["--help"]);
        Cli::try_parse_from(words).map(|_| String::new())
    }

    fn manual_page(&self) -> Result<String, clap::Error> {
        let mut program = shown();
        program.build();
        let mut command = &program;
        for word in &self.command {
            let Some(below) = command.find_subcommand(word) else {
                let text = format!("there is no command {word:?} in {}", command.get_name());
                return Err(program.error(ErrorKind::InvalidSubcommand, text));
            };
            command = below;
        }
        let mut page = Vec::new();
        let examples = examples::examples_of(&self.command.join(" "));
        write_page(command.clone(), examples, &mut page)
            .map_err(|e| program.error(ErrorKind::Io, e))?;
        Ok(String::from_utf8_lossy(&page).into_owned())
    }
}

/// Returns the definition of the program without hidden commands and without clap's own `help` commands.
fn shown() -> Command {
    let whole = Cli::command();
    let about = whole.get_about().cloned().unwrap_or_default();
    let visible = whole.get_subcommands().filter(|command| !command.is_hide_set());
    let visible = visible.map(|command| command.clone().disable_help_subcommand(true));
    Command::new(env!("CARGO_PKG_NAME"))
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .subcommand_value_name("COMMAND")
        .subcommand_help_heading("COMMANDS")
        .subcommands(visible)
}

fn write_page(command: Command, examples: &[(&str, &str)], to: &mut Vec<u8>) -> io::Result<()> {
    let below = command.has_subcommands();
    let page = Man::new(command.clone());
    // Written here because the crate writes an empty date as nothing, which shifts the other fields. Without a
    // date, pages do not depend on when they are generated.
    let name = command.get_display_name().unwrap_or(env!("CARGO_PKG_NAME")).to_uppercase();
    let source = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
    writeln!(to, r#".TH "{name}" "1" "" "{source}" "User Commands""#)?;
    page.render_name_section(to)?;
    page.render_synopsis_section(to)?;
    page.render_description_section(to)?;
    page.render_options_section(to)?;
    if below {
        page.render_subcommands_section(to)?;
    }
    let mut roff = Roff::new();
    roff.control("SH", ["EXAMPLES"]);
    for (purpose, line) in examples {
        if !purpose.is_empty() {
            roff.control("PP", []);
            roff.text([roman(format!("{purpose}:"))]);
        }
        // No filling: the line is kept as it is.
        roff.control("PP", []).control("RS", ["4"]).control("nf", []);
        roff.text([roman(*line)]);
        roff.control("fi", []).control("RE", []);
    }
    roff.to_writer(to)
}

fn script(shell: Shell) -> String {
    let mut program = shown();
    let mut script = Vec::new();
    let name = env!("CARGO_PKG_NAME");
    match shell {
        Shell::Bash => aot::generate(aot::Bash, &mut program, name, &mut script),
        Shell::Fish => aot::generate(aot::Fish, &mut program, name, &mut script),
        Shell::Zsh => aot::generate(aot::Zsh, &mut program, name, &mut script),
    }
    String::from_utf8_lossy(&script).into_owned()
}

/// Parses the name of a command. Refuses flags, which can get here after `--`.
fn word(text: &str) -> Result<String, String> {
    match text.starts_with('-') {
        true => Err("the name of a command does not start with a dash".into()),
        false => Ok(text.to_owned()),
    }
}
