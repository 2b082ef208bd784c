//! Computes keys as numbers: for each state of the files the key of each policy, and the required content of
//! the store of a job.

use super::super::git::{ObjectId, Repository};
use super::super::history::{FilePattern, FileState, States};
use super::super::ingredients::gather;
use crate::simulate::{KeyPart, KeyPolicy};
use crate::{KeyOptions, WorkflowMode};
use anyhow::Result;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use storecache_entry::Digest;

/// Files that pin the inputs of a store.
pub const LOCKS: &str = "**/{flake.lock,channels.scm,npins/sources.json,nix/sources.json}";

/// Files that declare the contents of a store.
pub const MANIFESTS: &str = "**/{manifest.scm,guix.scm,*.nix}";

/// The ingredients of the keys of all policies, and those that determine the required content of a store.
pub struct PolicyInputs {
    /// Each distinct pattern once.
    pub watched: Vec<FilePattern>,
    policies: Vec<Vec<PolicyPart>>,
    truth: Vec<PolicyPart>,
}

#[derive(Debug, Clone, Copy)]
enum PolicyPart {
    Bytes,
    Semantic,
    /// The files of a pattern, by its index.
    Files(usize),
}

/// The workflow that keys are made from.
pub struct Workflow<'o> {
    /// As given in flags.
    pub file: &'o Path,
    /// Path below the top of the work tree.
    pub path: PathBuf,
    /// Options that select the parts of it that count.
    pub options: &'o KeyOptions,
}

/// The keys and requirements of every state.
pub struct KeysAndNeeds {
    /// For each policy, the hash in the key of each state.
    pub keys: Vec<Vec<u128>>,
    /// The required content of the store in each state, as a number; equal numbers mean equal content.
    pub needs: Vec<usize>,
    /// The result of reading the workflow of each state.
    pub workflow: Vec<Read>,
}

/// The result of reading a workflow in a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    Well,
    /// The commit does not have it.
    Absent,
    /// It cannot be interpreted, so all of it counts.
    NotUnderstood,
    /// The clone does not have its blob, so the id of the blob counts.
    NotHere,
}

impl PolicyInputs {
    /// Builds the recipe of these policies.
    ///
    /// # Errors
    /// If a pattern is not valid.
    pub fn new(policies: &[KeyPolicy], truth: &[String], workflow: bool) -> Result<Self> {
        let mut recipe =
            PolicyInputs { watched: Vec::new(), policies: Vec::new(), truth: Vec::new() };
        for policy in policies {
            let parts = policy.parts.iter().map(|part| recipe.part(part));
            let parts = parts.collect::<Result<_>>()?;
            recipe.policies.push(parts);
        }
        recipe.truth = match truth {
            [] => {
                let workflow = workflow.then_some(PolicyPart::Semantic);
                let files = [recipe.everywhere(LOCKS)?, recipe.everywhere(MANIFESTS)?];
                workflow.into_iter().chain(files).collect()
            }
            patterns => {
                let files = patterns.iter().map(|text| recipe.files(FilePattern::here(text)?));
                files.collect::<Result<_>>()?
            }
        };
        Ok(recipe)
    }

    fn part(&mut self, part: &KeyPart) -> Result<PolicyPart> {
        match part {
            KeyPart::Bytes => Ok(PolicyPart::Bytes),
            KeyPart::Semantic => Ok(PolicyPart::Semantic),
            KeyPart::Lock => self.everywhere(LOCKS),
            KeyPart::Files(text) => self.files(FilePattern::here(text)?),
        }
    }

    fn everywhere(&mut self, text: &str) -> Result<PolicyPart> {
        self.files(FilePattern::everywhere(text)?)
    }

    fn files(&mut self, watched: FilePattern) -> Result<PolicyPart> {
        let known = self.watched.iter().position(|other| other.is_same(&watched));
        Ok(PolicyPart::Files(known.unwrap_or_else(|| {
            self.watched.push(watched);
            self.watched.len() - 1
        })))
    }

    /// Computes the keys and requirements of all states. Calls `done` after each workflow is read.
    pub fn apply(
        &self,
        repository: &Repository,
        workflow: Option<&Workflow>,
        states: &States,
        done: &mut dyn FnMut(),
    ) -> KeysAndNeeds {
        let mut reader = Reader { repository, known: HashMap::new() };
        let mut digests = |files| {
            done();
            workflow.map(|workflow| reader.read(workflow, files)).unwrap_or_default()
        };
        let read: Vec<Digests> = states.workflows.iter().map(&mut digests).collect();
        let hash = |parts: &[PolicyPart], state: &FileState| {
            let digests = &read[state.workflow];
            let part = |part: &PolicyPart| match part {
                PolicyPart::Bytes => digests.bytes,
                PolicyPart::Semantic => digests.semantic,
                PolicyPart::Files(number) => state.sums[*number],
            };
            // A sum of 0 means that no file matches. The parts are in the order of the policy.
            let parts: Vec<_> = parts.iter().map(|it| part(it).to_be_bytes()).collect();
            first_half(&Digest::of_parts(parts.iter().map(|part| part.as_slice())))
        };
        let all = |parts: &[PolicyPart]| -> Vec<u128> {
            states.distinct.iter().map(|state| hash(parts, state)).collect()
        };
        let mut numbers = HashMap::new();
        let needs = all(&self.truth).into_iter().map(|hash| {
            let next = numbers.len();
            *numbers.entry(hash).or_insert(next)
        });
        KeysAndNeeds {
            needs: needs.collect(),
            keys: self.policies.iter().map(|parts| all(parts)).collect(),
            workflow: states.distinct.iter().map(|state| read[state.workflow].fate).collect(),
        }
    }
}

/// The digests of a workflow that go into keys.
#[derive(Debug, Clone, Copy)]
struct Digests {
    bytes: u128,
    semantic: u128,
    fate: Read,
}

impl Default for Digests {
    fn default() -> Self {
        Digests { bytes: 0, semantic: 0, fate: Read::Absent }
    }
}

/// The files that a semantic hash was made from, and the hash.
type Made = (Vec<(PathBuf, ObjectId)>, u128);

/// Reads workflows, each only once.
struct Reader<'r> {
    repository: &'r Repository,
    /// By the blob of the workflow.
    known: HashMap<ObjectId, (Digests, Vec<Made>)>,
}

impl Reader<'_> {
    fn read(&mut self, workflow: &Workflow, files: &Rc<super::super::git::Files>) -> Digests {
        let Some(blob) = files.get(&workflow.path) else { return Digests::default() };
        let same =
            |(path, id): &(PathBuf, ObjectId)| files.get(path).is_some_and(|it| it.id == *id);
        if let Some((digests, made)) = self.known.get(&blob.id) {
            // The files that it calls by path may have changed although the workflow did not.
            if let Some((_, semantic)) = made.iter().find(|(files, _)| files.iter().all(same)) {
                return Digests { semantic: *semantic, ..*digests };
            }
        }
        let tree = self.repository.tree("a commit", Rc::clone(files));
        let with = |workflow_mode| {
            let options = KeyOptions {
                key: None,
                workflow: Some(workflow.file.to_owned()),
                workflow_mode,
                hash_files: Vec::new(),
                in_job: false,
                ..workflow.options.clone()
            };
            gather(&options, &tree)
        };
        let digest = |made: &[super::super::Ingredient]| {
            made.first().map(|it| first_half(&it.digest)).unwrap_or_default()
        };
        let Ok(bytes) = with(WorkflowMode::Bytes) else {
            let name = first_half(&Digest::hash(blob.id.as_str().as_bytes()));
            return Digests { bytes: name, semantic: name, fate: Read::NotHere };
        };
        let bytes = digest(&bytes);
        let Ok(made) = with(WorkflowMode::Semantic) else {
            return Digests { bytes, semantic: bytes, fate: Read::NotUnderstood };
        };
        let digests = Digests { bytes, semantic: digest(&made), fate: Read::Well };
        let read = made.iter().flat_map(|it| &it.files);
        let blob_of = |file: &PathBuf| {
            let path = self.repository.below_top(file)?;
            let id = files.get(&path)?.id.clone();
            Some((path, id))
        };
        let read = read.map(blob_of).collect::<Option<Vec<_>>>();
        let known = self.known.entry(blob.id.clone()).or_insert((digests, Vec::new()));
        // Files that are only reached through symbolic links are not in `files`, so the result cannot be
        // reused.
        known.1.extend(read.map(|read| (read, digests.semantic)));
        digests
    }
}

fn first_half(digest: &Digest) -> u128 {
    let (half, _) = digest.as_bytes().split_at(16);
    half.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}
