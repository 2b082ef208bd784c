//! Why sudo does not start the root helper, and what the user can do about it.

use super::installed_path::{self, Program};
use nix::unistd::{Uid, User};
use std::fs::File;
use storecache_runtime::advice::Advice;
use storecache_runtime::untrusted_text::Untrusted;

/// The error that the store belongs to root, and sudo does not start the root helper.
#[derive(Debug, thiserror::Error)]
#[error("the store belongs to root, and {refusal}")]
pub struct NoRoot {
    refusal: SudoRefusal,
    situation: Situation,
    #[source]
    advice: Advice,
}

impl NoRoot {
    pub fn new(refusal: SudoRefusal) -> Self {
        Self::in_situation(refusal, Situation::here())
    }

    fn in_situation(refusal: SudoRefusal, situation: Situation) -> Self {
        let advice = Advice::hint(refusal.hint(&situation));
        NoRoot { refusal, situation, advice }
    }

    /// Returns a shell command that lets this user start the root helper, if one command is enough.
    pub fn fix(&self) -> Option<String> {
        self.refusal.fix(&self.situation)
    }
}

/// The reason why sudo did not start the root helper.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SudoRefusal {
    #[error("sudo is not installed")]
    Missing,
    /// The option `requiretty` of sudoers.
    #[error("sudo refused: it requires a terminal (requiretty)")]
    NeedsTerminal,
    #[error("sudo refused: a password is required")]
    NeedsPassword,
    /// The flag is set for this process, as in a container with `no-new-privileges`.
    #[error("sudo refused: the \"no new privileges\" flag is set")]
    NoNewPrivileges,
    /// The sudo program cannot become root.
    #[error("sudo refused: {0}")]
    NotSetuid(Untrusted),
    /// The user may not run this command.
    #[error("sudo refused: {0}")]
    NotAllowed(Untrusted),
    #[error("sudo refused: {0}")]
    Other(Untrusted),
}

impl SudoRefusal {
    /// Parses what sudo wrote to standard error. Its environment is empty, so it writes English.
    ///
    /// Source of the texts: sudo 1.9 `plugins/sudoers/check.c`, `plugins/sudoers/sudoers.c`,
    /// `plugins/sudoers/logging.c`, `src/sudo.c`; sudo-rs `src/sudo/mod.rs` and `src/common/error.rs`.
    pub fn parse(text: &str) -> Self {
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let lines = text
            .lines()
            .map(|line| line.strip_prefix("sudo: ").unwrap_or(line).trim().trim_end_matches('.'));
        let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
        let said = || match lines.is_empty() {
            true => Untrusted::from("no reason given"),
            false => Untrusted::from(lines.join("; ")),
        };
        if has(&["\"no new privileges\" flag"]) {
            SudoRefusal::NoNewPrivileges
        } else if has(&["must have a tty"]) {
            SudoRefusal::NeedsTerminal
        } else if has(&["a password is required", "authentication is required"]) {
            SudoRefusal::NeedsPassword
        } else if has(&["setuid", "effective uid is not 0"]) {
            SudoRefusal::NotSetuid(said())
        } else if has(&[
            "not in the sudoers file",
            "is not allowed to",
            "may not run sudo",
            "I'm afraid I can't do that",
        ]) {
            SudoRefusal::NotAllowed(said())
        } else {
            SudoRefusal::Other(said())
        }
    }

    /// Returns what to do next, for people.
    fn hint(&self, situation: &Situation) -> String {
        let rule = situation.rule();
        match self {
            SudoRefusal::Missing => {
                "install sudo, or run storecache as root (with doas: `doas storecache …`)".into()
            }
            SudoRefusal::NeedsTerminal => {
                let install = situation.install_first();
                let line = situation.no_terminal();
                format!(
                    "{install}add `{line}` to /etc/sudoers.d/storecache, or run storecache as root"
                )
            }
            SudoRefusal::NeedsPassword if situation.at_terminal => {
                format!("run `sudo -v` and try again; or, to avoid the password prompt, {rule}")
            }
            SudoRefusal::NeedsPassword | SudoRefusal::NotAllowed(_) => {
                format!("{rule}; or run storecache as root")
            }
            SudoRefusal::NoNewPrivileges => {
                "sudo cannot work here: run storecache as root, or start the \
                 container without `no-new-privileges`"
                    .into()
            }
            SudoRefusal::NotSetuid(_) => "sudo cannot work here: run storecache as root".into(),
            SudoRefusal::Other(_) => format!("run storecache as root, or {rule}"),
        }
    }

    fn fix(&self, situation: &Situation) -> Option<String> {
        // The rule may exist already and only need a terminal, so this line has a file of its own.
        let (line, file) = match self {
            SudoRefusal::NeedsTerminal => (situation.no_terminal(), "storecache-terminal"),
            SudoRefusal::NeedsPassword | SudoRefusal::NotAllowed(_) => {
                (situation.rule_line(), "storecache")
            }
            // An administrator cannot solve these with one command.
            SudoRefusal::Missing
            | SudoRefusal::NoNewPrivileges
            | SudoRefusal::NotSetuid(_)
            | SudoRefusal::Other(_) => return None,
        };
        let install = situation.program.install.iter().map(|install| format!("{install} && "));
        let install: String = install.collect();
        Some(format!(
            "{install}echo '{line}' | sudo install -m 440 /dev/stdin /etc/sudoers.d/{file}"
        ))
    }
}

/// The circumstances that the advice depends on.
#[derive(Debug, Clone)]
struct Situation {
    /// The user, as sudoers names them.
    user: String,
    program: Program,
    /// Whether sudo could ask for a password.
    at_terminal: bool,
}

impl Situation {
    fn here() -> Self {
        let uid = rustix::process::getuid().as_raw();
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
        let plain = |name: &String| {
            name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        Situation {
            user: user.filter(plain).unwrap_or_else(|| format!("#{uid}")),
            program: installed_path::program(),
            at_terminal: File::open("/dev/tty").is_ok(),
        }
    }

    /// Returns the line of sudoers that allows the root helper, and nothing else.
    fn rule_line(&self) -> String {
        format!("{} ALL=(root) NOPASSWD: {} privileged", self.user, self.program.path)
    }

    fn no_terminal(&self) -> String {
        format!("Defaults!{} !requiretty", self.program.path)
    }

    fn rule(&self) -> String {
        format!("{}add `{}` to /etc/sudoers.d/storecache", self.install_first(), self.rule_line())
    }

    /// Returns the advice to install the program first, at a path where the user cannot overwrite it: a rule for a
    /// file that they can overwrite would let every program that runs as this user become root.
    fn install_first(&self) -> String {
        match &self.program.install {
            None => String::new(),
            Some(install) => {
                let path = &self.program.path;
                format!("run `{install}`, use {path} from then on (input `binary` in a job), and ")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_gets_the_advice_that_helps() {
        let password = "sudo: a password is required\n";
        let terminal = "sudo: sorry, you must have a tty to run sudo\n";
        let flag = "sudo: The \"no new privileges\" flag is set, which prevents sudo from running as root.\n\
                    sudo: If sudo is running in a container, you may need to adjust the container configuration \
                    to disable the flag.\n";
        let command = "Sorry, user me is not allowed to execute '/usr/local/bin/storecache privileged' as root on \
                       host.\n";
        let setuid = "sudo: /usr/bin/sudo must be owned by uid 0 and have the setuid bit set\n";
        let [installed, at_home] = [true, false];
        let [at_terminal, in_job] = [true, false];
        let cases = [
            ("password, at a terminal", password, installed, at_terminal),
            ("password, in a job", password, installed, in_job),
            ("password, program in a home", password, at_home, in_job),
            (
                "password, sudo-rs",
                "sudo: interactive authentication is required\n",
                installed,
                at_terminal,
            ),
            ("requiretty", terminal, installed, in_job),
            ("requiretty, program in a home", terminal, at_home, in_job),
            ("no new privileges", flag, installed, at_terminal),
            ("another command", command, installed, at_terminal),
            ("not in sudoers", "me is not in the sudoers file.\n", installed, at_terminal),
            ("no setuid", setuid, installed, at_terminal),
            ("unknown", "sudo: \u{1b}[2Junknown\n::error::x\n", installed, in_job),
            ("silent", "", installed, in_job),
        ];
        let shown = cases.map(|(name, text, is_installed, at_terminal)| {
            let refusal = SudoRefusal::parse(text);
            format!("{name}\n{}", advice(refusal, is_installed, at_terminal))
        });
        let missing = format!("missing\n{}", advice(SudoRefusal::Missing, at_home, at_terminal));
        let shown = [&shown[..], &[missing]].concat().join("\n\n");
        insta::assert_snapshot!(shown);
    }

    fn advice(refusal: SudoRefusal, is_installed: bool, at_terminal: bool) -> String {
        let install =
            "sudo install -m 755 /home/me/.cargo/bin/storecache /usr/local/bin/storecache";
        let install = (!is_installed).then(|| install.to_owned());
        let program = Program { path: "/usr/local/bin/storecache".into(), install };
        let situation = Situation { user: "me".into(), program, at_terminal };
        let fix = refusal.fix(&situation).unwrap_or_else(|| "none".into());
        let refused = NoRoot::in_situation(refusal, situation);
        format!("{refused}\nhint: {}\nfix: {fix}", refused.advice)
    }
}
