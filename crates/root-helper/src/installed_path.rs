//! The path at which this program is installed, and whether only root can change the file there.
//!
//! sudo may start the root helper without a password only from such a path: a user who can write to the file, or to a
//! directory above it, can put another program there.

use std::path::Path;
use storecache_runtime::path_audit::Suspects;

/// Paths that the program is installed to, in order of preference.
const PLACES: [&str; 2] = ["/usr/local/bin/storecache", "/usr/bin/storecache"];

/// The program, as a sudoers rule has to name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// A path that only root can write to, and that needs no quotes in sudoers.
    pub path: String,
    /// The command that installs the program there, if it is not installed yet.
    pub install: Option<String>,
}

/// Returns this program, by its real path.
pub fn program() -> Program {
    match std::env::current_exe() {
        Ok(path) => program_at(&path, is_closed),
        // Without its path, the program cannot be installed by a command.
        Err(_) => Program { path: PLACES[0].into(), install: None },
    }
}

fn program_at(path: &Path, is_closed: impl Fn(&Path) -> bool) -> Program {
    if let Some(plain) = path.to_str().filter(|plain| is_plain(plain) && is_closed(path)) {
        return Program { path: plain.to_owned(), install: None };
    }
    let closed = |place: &&str| Path::new(place).parent().is_some_and(&is_closed);
    let place = PLACES.into_iter().find(closed).unwrap_or(PLACES[0]);
    let install = format!("sudo install -m 755 {} {place}", quoted(&path.to_string_lossy()));
    Program { path: place.into(), install: Some(install) }
}

/// Returns whether a path needs no quotes in sudoers or in a shell.
fn is_plain(path: &str) -> bool {
    path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_.+-".contains(&b))
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    if is_plain(word) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Returns whether only root can change the file at a path.
fn is_closed(path: &Path) -> bool {
    matches!(Suspects::everybody().follow(path), Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_in_a_home_is_installed_first() {
        let closed = |path: &Path| !path.starts_with("/home");
        let install = |path: &str| program_at(Path::new(path), closed).install;
        assert_eq!(install("/usr/bin/storecache"), None);
        assert_eq!(
            install("/home/me/.cargo/bin/storecache").unwrap(),
            "sudo install -m 755 /home/me/.cargo/bin/storecache /usr/local/bin/storecache"
        );
        let odd = program_at(Path::new("/opt/it's here/storecache"), closed);
        let command =
            r"sudo install -m 755 '/opt/it'\''s here/storecache' /usr/local/bin/storecache";
        assert_eq!(odd.install.unwrap(), command);
        assert_eq!(odd.path, "/usr/local/bin/storecache");
    }

    #[test]
    fn program_is_not_installed_to_a_place_that_others_can_write_to() {
        let closed = |path: &Path| path.starts_with("/usr/bin");
        let program = program_at(Path::new("/home/me/storecache"), closed);
        assert_eq!(program.path, "/usr/bin/storecache");
    }
}
