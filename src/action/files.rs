//! The files of a runner that take `name=value`, in the form that holds any value.

use super::job::Job;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Write};

/// Appends values to the file that the variable `file` names. Where the runner has given none, there is
/// nobody to tell.
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
    // In one write, so that nobody reads half of it. The file is the runner's and stays in its place.
    let mut out = File::options().append(true).create(true).open(&path).with_context(context)?;
    out.write_all(text.as_bytes()).with_context(context)
}

fn entry(name: &str, value: &str, end: &str) -> Result<String> {
    if value.contains(end) {
        bail!("{name} contains what was drawn to end it");
    }
    Ok(format!("{name}<<{end}\n{value}\n{end}\n"))
}

/// Nobody can guess it, so no value can end early and go on as another name.
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
    fn a_value_of_many_lines_stays_one_value() {
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
    fn delimiters_differ() {
        assert_ne!(delimiter().unwrap(), delimiter().unwrap());
        assert!(entry("a", "x\nE\ny", "E").is_err());
    }
}
