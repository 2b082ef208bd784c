//! `lint`: reports mistakes in workflows, with file and line.

mod sarif;
mod text;

use super::{Conclusion, or_json};
use crate::action::{Annotation, INPUTS, Job};
use crate::config::{Lint, LintFormat};
use crate::report;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;
use std::path::{Path, PathBuf};
use storecache_lint::{Finding, Knowledge, Level, WorkflowFile, lint as look};
use storecache_runtime::advice::WithAdvice;

/// A larger file is not a workflow.
const LIMIT: u64 = 16 << 20;

/// Reports mistakes in workflows. Fails if there are any findings or, with `errors_only`, any errors.
pub fn lint(options: &Lint) -> Result<Conclusion> {
    or_json(&options.output, run(options))
}

fn run(options: &Lint) -> Result<Conclusion> {
    let files = if options.files.is_empty() { workflows()? } else { options.files.clone() };
    let sources = files.into_iter().map(read).collect::<Result<Vec<_>>>()?;
    let findings = look(&sources, &knowledge());
    let counts = |finding: &&Finding| !options.errors_only || finding.level == Level::Error;
    let failed = findings.iter().any(|finding| counts(&finding));
    match options.format {
        LintFormat::Json => {
            let report = json!({ "ok": !failed, "files": sources.len(), "findings": findings });
            report::answer_json(&report)?;
        }
        LintFormat::Sarif => report::answer_json(&sarif::log(&sources, &findings))?,
        LintFormat::Github => annotate(&sources, &findings)?,
        LintFormat::Text => {
            for finding in &findings {
                let lines = text::render_finding(finding, source(&sources, finding));
                lines.iter().try_for_each(report::answer)?;
            }
        }
    }
    let looked = report::plural(sources.len() as u64, "workflow");
    let found = report::plural(findings.len() as u64, "finding");
    if !options.output.quiet && options.format != LintFormat::Json {
        report::status(format!("checked {looked}: {found}"));
    }
    Ok(if failed { Conclusion::Failed } else { Conclusion::Done })
}

/// The findings in one workflow, checked together with the other workflows of its directory.
pub(super) fn findings(file: &Path) -> Result<Vec<Finding>> {
    let mut sources = vec![read(file.to_owned())?];
    let beside = file.parent().map(listed).transpose()?.unwrap_or_default();
    let others = beside.into_iter().filter(|other| other != file);
    // An unreadable workflow is reported in its own runs.
    sources.extend(others.filter_map(|other| read(other).ok()));
    let found = look(&sources, &knowledge());
    Ok(found.into_iter().filter(|finding| finding.file == file).collect())
}

/// The default branch is known only in a job.
fn knowledge() -> Knowledge {
    let default_branch = Job::of_environment().default_branch();
    Knowledge { default_branch, inputs: INPUTS.iter().map(|input| input.name).collect() }
}

fn annotate(sources: &[WorkflowFile], findings: &[Finding]) -> Result<()> {
    for finding in findings {
        let text = text::advice(finding, source(sources, finding));
        let annotation = Annotation {
            kind: finding.level.name(),
            file: &finding.file,
            line: finding.line,
            column: finding.column,
            title: &format!("storecache {}", finding.rule),
            text: &text,
        };
        report::answer_command(&annotation.command())?;
    }
    Ok(())
}

/// The text of the file that contains a finding.
fn source<'s>(sources: &'s [WorkflowFile], finding: &Finding) -> &'s str {
    let source = sources.iter().find(|source| source.file == finding.file);
    source.map(|source| source.text.as_str()).unwrap_or_default()
}

/// The workflows of the work tree at the current directory.
fn workflows() -> Result<Vec<PathBuf>> {
    let directory = Path::new(".github/workflows");
    let files = listed(directory)?;
    if files.is_empty() {
        bail!(anyhow!("{} has no workflow", directory.display()).hint("name the files to check"));
    }
    Ok(files)
}

/// The workflows in a directory.
fn listed(directory: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("list {}", directory.display());
    let hint = "name the workflows to check";
    let mut files = Vec::new();
    for entry in directory.read_dir().with_context(context).hint(hint)? {
        let path = entry.with_context(context)?.path();
        let named = path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml");
        if named && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: PathBuf) -> Result<WorkflowFile> {
    let context = || format!("read the workflow {}", file.display());
    let metadata = file.metadata().with_context(context)?;
    if metadata.is_dir() {
        bail!(anyhow!("{} is a directory", file.display()).hint("name the workflows in it"));
    }
    if metadata.len() > LIMIT {
        bail!("{} is too large for a workflow", file.display());
    }
    let bytes = std::fs::read(&file).with_context(context)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let full = std::path::absolute(&file).with_context(context)?;
    // The work tree is the directory that contains the `.github` directory of the file.
    let tree = full.ancestors().find(|path| path.file_name().is_some_and(|name| name == ".github"));
    let tree = match tree.and_then(Path::parent) {
        Some(tree) => tree.to_owned(),
        None => std::env::current_dir().with_context(context)?,
    };
    Ok(WorkflowFile { file, tree, text })
}
