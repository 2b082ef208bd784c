//! Writes `name=value` pairs to the files of a runner, in the multi-line form that can hold any value.

use super::job_environment::Job;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Write};

/// Appends values to the file that the variable `file` names. Does nothing if the runner has not set the variable.
pub fn append<N: AsRef<str>>(job: &Job, file: &str, values: &[(N, String)]) -> Result<()> {
    let Some(path) = job.file(file) else {
        return Ok(());
    };
    let end = delimiter()?;
    let mut text = String::new();
    for (name, value) in values {
        text += &entry(name.as_ref(), value, &end)?;
    }
    let context = || format!("write to {file}, {}", path.display());
    // In one write, so that no reader sees a partial entry. The file belongs to the runner and is not replaced.
    let mut out = File::options().append(true).create(true).open(&path).with_context(context)?;
    out.write_all(text.as_bytes()).with_context(context)
}

fn entry(name: &str, value: &str, end: &str) -> Result<String> {
    if value.contains(end) {
        bail!("{name} contains the random delimiter");
    }
    Ok(format!("{name}<<{end}\n{value}\n{end}\n"))
}

/// Returns a random delimiter. Because it cannot be guessed, no value can end early and continue as another name.
fn delimiter() -> Result<String> {
    let mut bytes = [0; 16];
    let mut source = File::open("/dev/urandom").context("open /dev/urandom")?;
    source.read_exact(&mut bytes).context("read /dev/urandom")?;
    Ok(format!("ghadelimiter_{:032x}", u128::from_ne_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multi_line_value_is_written_as_one_value() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("output");
        std::fs::write(&path, "before=1\n").unwrap();
        let job = Job::from([("GITHUB_OUTPUT", path.to_str().unwrap())]);
        append(&job, "GITHUB_OUTPUT", &[("a", "x\ny=z\nEOF".to_owned()), ("b", String::new())])
            .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let end = lines[1].strip_prefix("a<<").unwrap();
        assert_eq!(end.len(), "ghadelimiter_".len() + 32);
        let b = format!("b<<{end}");
        assert_eq!(lines[2..], ["x", "y=z", "EOF", end, b.as_str(), "", end]);
        append(&Job::default(), "GITHUB_OUTPUT", &[("a", "b".to_owned())]).unwrap();
    }

    #[test]
    fn delimiters_are_random_and_not_in_the_value() {
        assert_ne!(delimiter().unwrap(), delimiter().unwrap());
        assert!(entry("a", "x\nE\ny", "E").is_err());
    }
}
