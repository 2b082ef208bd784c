//! `lint`: mistakes in workflows, named by file and line.

use super::{Ending, or_json};
use crate::action::Job;
use crate::key::lint::{Finding, Level, Source, lint as look};
use crate::options::Lint;
use crate::report;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::path::{Path, PathBuf};

/// A workflow larger than this is none.
const LIMIT: u64 = 16 << 20;

/// Prints one line for each finding. Fails when any is an error.
pub fn lint(options: &Lint) -> Result<Ending> {
    or_json(&options.output, run(options))
}

fn run(options: &Lint) -> Result<Ending> {
    let files = if options.files.is_empty() { workflows()? } else { options.files.clone() };
    let sources = files.into_iter().map(read).collect::<Result<Vec<_>>>()?;
    let findings = look(&sources, default_branch().as_deref());
    let failed = findings.iter().any(|finding| finding.level == Level::Error);
    if options.output.json {
        report::answer(json!({ "ok": !failed, "files": sources.len(), "findings": findings }))?;
    } else {
        tell(&findings)?;
        let looked = report::plural(sources.len() as u64, "workflow");
        let found = report::plural(findings.len() as u64, "finding");
        if !options.output.quiet {
            report::note(format!("storecache: looked at {looked}: {found}"));
        }
    }
    Ok(if failed { Ending::Failed } else { Ending::Done })
}

/// What is wrong with one workflow, seen beside the others of its directory.
pub(super) fn findings(file: &Path) -> Result<Vec<Finding>> {
    let mut sources = vec![read(file.to_owned())?];
    let beside = file.parent().map(listed).transpose()?.unwrap_or_default();
    let others = beside.into_iter().filter(|other| other != file);
    // One that cannot be read is told of where it runs.
    sources.extend(others.filter_map(|other| read(other).ok()));
    let found = look(&sources, default_branch().as_deref());
    Ok(found.into_iter().filter(|finding| finding.file == file).collect())
}

/// Known in a job, and nowhere else.
fn default_branch() -> Option<String> {
    Job::of_environment().default_branch()
}

fn tell(findings: &[Finding]) -> Result<()> {
    for Finding { file, line, level, rule, message, fix } in findings {
        let file = file.display();
        report::answer(format!("{file}:{line}: {}: {message} [{rule}]", level.name()))?;
        report::answer(format!("    to do: {fix}"))?;
    }
    Ok(())
}

/// The workflows of the work tree below the current directory.
fn workflows() -> Result<Vec<PathBuf>> {
    let directory = Path::new(".github/workflows");
    let files = listed(directory)?;
    if files.is_empty() {
        bail!("{} has no workflow; name the files to look at", directory.display());
    }
    Ok(files)
}

/// The workflows in a directory.
fn listed(directory: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("list {}; name the workflows to look at", directory.display());
    let mut files = Vec::new();
    for entry in directory.read_dir().with_context(context)? {
        let path = entry.with_context(context)?.path();
        if path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: PathBuf) -> Result<Source> {
    let context = || format!("read the workflow {}", file.display());
    if file.metadata().with_context(context)?.len() > LIMIT {
        bail!("{} is too large for a workflow", file.display());
    }
    let bytes = std::fs::read(&file).with_context(context)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let full = std::path::absolute(&file).with_context(context)?;
    // The work tree is what has the directory `.github` that the file is in.
    let tree = full.ancestors().find(|path| path.file_name().is_some_and(|name| name == ".github"));
    let tree = match tree.and_then(Path::parent) {
        Some(tree) => tree.to_owned(),
        None => std::env::current_dir().with_context(context)?,
    };
    Ok(Source { file, tree, text })
}
