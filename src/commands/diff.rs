//! `key diff`: shows which ingredients of the key differ between two commits, the work tree, or two
//! snapshots.

use super::open_entry::OpenEntry;
use super::{Conclusion, inspect, or_json, resolve};
use crate::config::{DiffKeys, Look};
use crate::report;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;
use std::path::Path;
use std::rc::Rc;
use storecache_backend::EntryName;
use storecache_key::{
    ChangeKind, FILES, FileChange, KeyOptions, Moved, Repository, RepositoryError, Side, WORKFLOW,
    WorkflowMode, diff as compare, hash_of, of_step,
};
use storecache_runtime::RunContext;
use storecache_runtime::advice::{Advice, WithAdvice, causes};
use storecache_runtime::memory::Traffic;
use storecache_snapshot::Head;
use storecache_store::StoreKind;
use storecache_workflow::{Tree, WorkTree, store_workflow};

/// Names of the work tree on the command line.
const WORK_TREE: [&str; 2] = [".", "worktree"];

/// Number of lines of a changed value that are shown.
const SHOWN: usize = 8;

/// Prints each ingredient that differs, with its files, and whether the key changes.
pub fn diff(context: &RunContext, options: &DiffKeys) -> Result<Conclusion> {
    or_json(&options.look.output, run(context, options))
}

/// One of the two states, before any of it is hashed.
struct Named {
    name: String,
    /// The head, if the state is a snapshot.
    head: Option<Head>,
    /// The files of the state, if they can be read.
    tree: Option<Box<dyn Tree>>,
}

fn run(context: &RunContext, options: &DiffKeys) -> Result<Conclusion> {
    let repository = Repository::here();
    let before = find(context, &options.before, options, repository.as_ref())?;
    let after = find(context, &options.after, options, repository.as_ref())?;
    let (key, mut notes) = ingredients(options, &before, &after)?;
    let (a, b) = (side(&before, &key, &mut notes), side(&after, &key, &mut notes));
    for pattern in &key.hash_files {
        let name = format!("{FILES}{pattern}");
        if ![&a, &b].iter().any(|side| side.digests.contains_key(&name)) {
            bail!(
                anyhow!(
                    "--hash-files {pattern:?} matches no file in {} or in {}",
                    before.name,
                    after.name
                )
                .hint("correct the pattern, or leave it out")
            );
        }
    }
    let moved = compare(&key, &a, &b)?;
    let same = moved.iter().all(|it| it.state.keeps_key());
    let hashes = [hash_of(&a.digests), hash_of(&b.digests)];
    if options.look.output.json {
        report::answer_json(&json!({
            "a": { "name": before.name, "hash": hashes[0] },
            "b": { "name": after.name, "hash": hashes[1] },
            "same_key": same,
            "ingredients": moved,
            "notes": notes,
        }))?;
        return Ok(Conclusion::Done);
    }
    notes.iter().for_each(report::print_note);
    for it in &moved {
        print_change(it)?;
    }
    if !options.look.output.quiet {
        verdict(same, &moved, &hashes, [&before.name, &after.name]);
    }
    Ok(Conclusion::Done)
}

fn verdict(same: bool, moved: &[Moved], hashes: &[Option<String>; 2], names: [&str; 2]) {
    let shown = |hash: &Option<String>| hash.clone().unwrap_or_else(|| "no hash".into());
    let of = |at: usize| format!("{} has {}", names[at], shown(&hashes[at]));
    let line = match (moved.is_empty(), same) {
        (true, _) => {
            report::print_note("the hash has no ingredients");
            return report::print_hint("name some with --workflow or --hash-files");
        }
        (_, true) => format!("the key stays the same: {}", shown(&hashes[0])),
        (_, false) => format!("the key changes: {}, {}", of(0), of(1)),
    };
    report::status(line);
}

/// Finds a snapshot by its file or its entry, the work tree, or a commit.
fn find(
    context: &RunContext,
    text: &str,
    options: &DiffKeys,
    repository: Result<&Repository, &RepositoryError>,
) -> Result<Named> {
    if WORK_TREE.contains(&text) {
        return Ok(Named {
            name: "the work tree".into(),
            head: None,
            tree: Some(Box::new(WorkTree)),
        });
    }
    let file = Path::new(text);
    let opened = if file.is_file() {
        Some(inspect::open(context, &Look { file: Some(file.to_owned()), ..options.look.clone() })?)
    } else {
        EntryName::parse(text).map(|name| open_entry(context, options, &name)).transpose()?
    };
    if let Some(entry) = opened {
        let head = entry.opened.head;
        let commit = Some(head.origin.commit.raw()).filter(|commit| !commit.is_empty());
        let tree = commit.and_then(|commit| tree_of(repository.ok()?, commit).ok());
        return Ok(Named { name: text.to_owned(), head: Some(head), tree });
    }
    let repository = match repository {
        Ok(repository) => repository,
        Err(e) => {
            let advice = Advice::find(e).cloned().unwrap_or_default();
            let cause = causes(e);
            let refused =
                anyhow!("{text:?} is not a snapshot, and commits cannot be read: {cause}");
            bail!(refused.advise(advice))
        }
    };
    let tree = tree_of(repository, text)
        .with_context(|| format!("{text:?} is not a commit, a snapshot file, an entry or `.`"))?;
    Ok(Named { name: text.to_owned(), head: None, tree: Some(tree) })
}

fn tree_of(repository: &Repository, name: &str) -> Result<Box<dyn Tree>> {
    let commit = repository.commit(name)?;
    let files = Rc::new(repository.files(&commit)?);
    Ok(Box::new(repository.tree(name, files)))
}

fn open_entry(context: &RunContext, options: &DiffKeys, name: &EntryName) -> Result<OpenEntry> {
    // In a directory backend the kind of store does not matter.
    let kind = resolve::kind(&options.look.store).unwrap_or(StoreKind::Plain);
    let (backend, _) = resolve::backend(context, &options.look.backends, kind, Traffic::default())?;
    Ok(OpenEntry::read(name.to_string(), backend.open(name)?, &mut 0)?)
}

/// Returns the ingredients to compare: from the flags, or else from the snapshots, or else the workflow that
/// uses storecache.
fn ingredients(options: &DiffKeys, a: &Named, b: &Named) -> Result<(KeyOptions, Vec<String>)> {
    let mut key = options.look.key.clone();
    let mut notes = Vec::new();
    if options.from_step {
        let tree = b.tree.as_deref().with_context(|| {
            format!("--from-step needs a workflow, but the files of {} are not available", b.name)
        })?;
        let of_step = of_step(&key, tree)?;
        notes.push(format!("compares the ingredients of the step at {}", of_step.place));
        return Ok((of_step.key, notes));
    }
    let heads: Vec<&Head> = [a, b].into_iter().filter_map(|named| named.head.as_ref()).collect();
    if key.hash_files.is_empty() && !heads.is_empty() {
        let names = heads.iter().flat_map(|head| head.ingredients.keys());
        let mut patterns: Vec<_> =
            names.filter_map(|name| name.strip_prefix(FILES)).map(str::to_owned).collect();
        patterns.sort();
        patterns.dedup();
        key.hash_files = patterns;
        if heads.iter().any(|head| head.ingredients.contains_key(WORKFLOW)) {
            key.workflow_mode = WorkflowMode::Bytes;
        }
    }
    let said = key.workflow.is_some() || !options.look.key.hash_files.is_empty();
    let of_heads = || heads.iter().any(|it| it.ingredients.keys().any(|k| k.starts_with(WORKFLOW)));
    if !said && (heads.is_empty() || of_heads()) {
        let trees = [b, a].into_iter().filter_map(|named| named.tree.as_deref());
        let mut found = trees.map(store_workflow);
        match found.next() {
            Some(Ok(file)) => {
                notes.push(format!(
                    "compares the workflow {}, which caches a store",
                    file.display()
                ));
                key.workflow = Some(file);
            }
            Some(Err(e)) if heads.is_empty() => return Err(e),
            _ => {}
        }
    }
    Ok((key, notes))
}

/// The ingredients of a state. For a snapshot, the recorded digests count, and its commit only provides the
/// files.
fn side<'a>(named: &'a Named, key: &KeyOptions, notes: &mut Vec<String>) -> Side<'a> {
    let mut side = Side::default();
    if let Some(tree) = named.tree.as_deref() {
        let (of_tree, missing) = Side::of_tree(key, tree);
        side = of_tree;
        if named.head.is_none() {
            notes.extend(missing.into_iter().map(|why| format!("{}: {why}", named.name)));
        }
    }
    if let Some(head) = &named.head {
        // If a file's digest differs from the recorded one, the snapshot was made from other contents.
        side.ingredients.retain(|it| head.ingredients.get(&it.name) == Some(&it.digest));
        side.digests.clone_from(&head.ingredients);
    }
    side
}

fn print_change(it: &Moved) -> Result<()> {
    report::answer(format!("{:9} {}", it.state.name(), it.name))?;
    if it.state == ChangeKind::Same {
        return Ok(());
    }
    for file in &it.files {
        let sign = match file.change {
            FileChange::Changed => '~',
            FileChange::Added => '+',
            FileChange::Removed => '-',
        };
        report::answer(format!("  {sign} {}", file.path.display()))?;
    }
    for line in &it.lines {
        let sign = if line.added { '+' } else { '-' };
        let place = format!("{}:{}", line.file.display(), line.line);
        let mut rows = line.text.lines();
        let first = rows.next().unwrap_or_default();
        report::answer(format!("    {sign} {place}: {} = {first}", line.path))?;
        let rest: Vec<&str> = rows.collect();
        for row in rest.iter().take(SHOWN) {
            report::answer(format!("    {sign}     {row}"))?;
        }
        if rest.len() > SHOWN {
            let more = report::plural((rest.len() - SHOWN) as u64, "more line");
            report::answer(format!("    {sign}     … {more}"))?;
        }
    }
    if let Some(note) = &it.note {
        report::answer(format!("    {note}"))?;
    }
    if it.files.is_empty() && matches!(it.state, ChangeKind::Added | ChangeKind::Removed) {
        let which = if it.state == ChangeKind::Added { "second" } else { "first" };
        report::answer(format!("    only in the {which} state"))?;
    }
    Ok(())
}
