//! Reads commits of the git repository that contains the current directory, by running git.
//!
//! One `git cat-file --batch` process serves all reads of blobs. This module writes nothing and fetches
//! nothing.

use anyhow::{Context, Result, anyhow, bail};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use storecache_runtime::advice::{Advice, WithAdvice};
use storecache_runtime::threads;
use storecache_workflow::file_source::{Pattern, Tree, normalize};

/// Maximum number of symbolic links to follow in a row, as in the kernel.
const LINKS: usize = 40;

/// Largest blob that is read out of a commit, in bytes.
const LARGEST: u64 = 256 << 20;

/// Why no repository can be opened.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The current directory is not in a git work tree, or git is not installed.
    #[error("{why}")]
    NoRepository {
        why: String,
        #[source]
        advice: Advice,
    },
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// A git repository, seen from a directory of its work tree.
pub struct Repository {
    /// Top of the work tree, absolute.
    top: PathBuf,
    /// The current directory, relative to the top.
    prefix: PathBuf,
    objects: Rc<RefCell<Objects>>,
}

/// The hash of a commit, a tree or a blob, in hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(String);

impl ObjectId {
    /// Parses an object id.
    ///
    /// # Errors
    /// If it is shorter than 40 digits or not hexadecimal: git would take it for another kind of name.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() < 40 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            bail!("not a valid git object ID: {text:?}");
        }
        Ok(ObjectId(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A file of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Blob {
    pub id: ObjectId,
    /// Whether this is a symbolic link, so that its content is the target.
    pub is_link: bool,
}

/// Files of a commit by their paths below the top of the work tree.
pub type Files = BTreeMap<PathBuf, Blob>;

impl Repository {
    /// Opens the repository that contains the current directory.
    ///
    /// # Errors
    /// If there is none, or if git fails.
    pub fn here() -> Result<Self, RepositoryError> {
        let no = |why| {
            let advice = Advice::hint("run this command in a git work tree");
            RepositoryError::NoRepository { why, advice }
        };
        let directory = std::env::current_dir().context("find the current directory")?;
        let output = command(&directory)
            .args(["rev-parse", "--show-toplevel", "--show-prefix"])
            .output()
            .map_err(|e| no(format!("cannot run git: {e}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or_default().trim_start_matches("fatal: ");
            // Report other errors in full, such as a repository with an owner that git does not trust.
            let why = match said.starts_with("not a git repository") {
                true => String::new(),
                false => format!(": {said}"),
            };
            let place = directory.display();
            return Err(no(format!("{place} is not in a git repository{why}")));
        }
        let mut lines = output.stdout.split(|byte| *byte == b'\n');
        let mut path = || PathBuf::from(OsStr::from_bytes(lines.next().unwrap_or_default()));
        let (top, prefix) = (path(), path());
        let objects = Rc::new(RefCell::new(Objects::start(&top)?));
        Ok(Repository { top, prefix: prefix.components().collect(), objects })
    }

    /// Top of the work tree.
    pub fn top(&self) -> &Path {
        &self.top
    }

    /// Converts `path`, as given in a flag, to a path below the top. Returns `None` if it is outside the work
    /// tree.
    pub fn below_top(&self, path: &Path) -> Option<PathBuf> {
        below_top(&self.top, &self.prefix, path)
    }

    /// Returns whether the clone is shallow, as after `actions/checkout` without `fetch-depth: 0`.
    pub fn is_shallow(&self) -> Result<bool> {
        Ok(self.ask(["rev-parse", "--is-shallow-repository"])?.starts_with(b"true"))
    }

    /// Resolves a name to a commit.
    ///
    /// # Errors
    /// If there is no such commit.
    pub fn commit(&self, name: &str) -> Result<ObjectId> {
        let wanted = format!("{name}^{{commit}}");
        let said = self.ask(["rev-parse", "--verify", "--quiet", "--end-of-options", &wanted]);
        let Ok(said) = said else {
            let missing = anyhow!("there is no commit {name:?} in this repository");
            return Err(match self.is_shallow()? {
                true => missing.note("this clone is shallow").hint(
                    "run `git fetch --unshallow`, or set `fetch-depth: 0` for actions/checkout",
                ),
                false => missing,
            });
        };
        ObjectId::parse(String::from_utf8_lossy(&said).trim())
    }

    /// Returns all files of a commit.
    pub fn files(&self, commit: &ObjectId) -> Result<Files> {
        let listed = self.ask(["ls-tree", "-r", "-z", "--full-tree", commit.as_str()])?;
        let rows = listed.split(|byte| *byte == 0).filter(|row| !row.is_empty());
        let mut files = Files::new();
        for row in rows {
            let tab = row.iter().position(|byte| *byte == b'\t').context("git ls-tree: no path")?;
            let (facts, path) =
                (String::from_utf8_lossy(&row[..tab]).into_owned(), &row[tab + 1..]);
            let mut facts = facts.split(' ');
            let (mode, kind) = (facts.next().unwrap_or_default(), facts.next());
            // Submodules are listed as commits; skip them.
            if kind == Some("blob") {
                let id = ObjectId::parse(facts.next().unwrap_or_default())?;
                let blob = Blob { id, is_link: mode == "120000" };
                files.insert(PathBuf::from(OsString::from_vec(path.to_vec())), blob);
            }
        }
        Ok(files)
    }

    /// Returns a tree of these files; `name` identifies it in messages.
    pub fn tree(&self, name: &str, files: Rc<Files>) -> CommitTree {
        CommitTree {
            name: name.to_owned(),
            files,
            top: self.top.clone(),
            prefix: self.prefix.clone(),
            objects: Rc::clone(&self.objects),
        }
    }

    /// Runs git and returns its standard output.
    ///
    /// # Errors
    /// If git fails; the message contains its standard error.
    pub fn ask<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Result<Vec<u8>> {
        let mut command = command(&self.top);
        let output = command.args(words).output().context("run git")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("git: {}", said.trim().trim_start_matches("fatal: "));
        }
        Ok(output.stdout)
    }

    /// Starts git with a piped standard output, for long outputs.
    pub fn start<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Result<Child> {
        let mut command = command(&self.top);
        command.args(words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("run git")
    }

    /// As [`Repository::start`], but writes `input` to the standard input of git.
    pub fn start_with<'a>(
        &self,
        words: impl IntoIterator<Item = &'a str>,
        input: Vec<u8>,
    ) -> Result<Child> {
        let mut command = command(&self.top);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("run git")?;
        let pipe = child.stdin.take();
        // Write on a thread: if we wrote everything before reading, git could block on its output while we
        // block on its input. The thread ends with git, and if git did not read all of its input, its exit
        // code shows that.
        let write = move || pipe.map(|mut pipe| pipe.write_all(&input));
        threads::start("that writes to git", write)?;
        Ok(child)
    }

    /// Returns the file at `path` below the top as a name of the kind that `pattern` matches. Returns `None`
    /// if the pattern cannot reach the file.
    pub fn called(&self, path: &Path, pattern: &Pattern) -> Option<PathBuf> {
        called(&self.top, &self.prefix, path, pattern)
    }

    /// Returns the content of a blob.
    pub fn content(&self, id: &ObjectId) -> Result<Vec<u8>> {
        self.objects.borrow_mut().read(id)
    }
}

fn called(top: &Path, prefix: &Path, path: &Path, pattern: &Pattern) -> Option<PathBuf> {
    if pattern.is_absolute() {
        return Some(top.join(path));
    }
    let mut start = prefix.to_owned();
    let mut name = PathBuf::new();
    for _ in 0..pattern.levels_up() {
        start = start.parent()?.to_owned();
        name.push("..");
    }
    Some(name.join(path.strip_prefix(start).ok()?))
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(directory).stdin(Stdio::null());
    // Do not refresh the index, do not prompt, and print messages in English.
    command.envs([("GIT_OPTIONAL_LOCKS", "0"), ("GIT_TERMINAL_PROMPT", "0"), ("LC_ALL", "C")]);
    // Do not fetch objects that are missing in a partial clone.
    command.env("GIT_NO_LAZY_FETCH", "1");
    command
}

/// A running `git cat-file --batch`.
struct Objects {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Objects {
    fn start(top: &Path) -> Result<Self> {
        let mut command = command(top);
        command.args(["cat-file", "--batch"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("run git cat-file")?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("git cat-file has no output")?);
        Ok(Objects { child, orders, answers })
    }

    fn read(&mut self, id: &ObjectId) -> Result<Vec<u8>> {
        let context = || format!("read the git object {}", id.as_str());
        let orders = self.orders.as_mut().with_context(context)?;
        orders.write_all(format!("{}\n", id.as_str()).as_bytes()).with_context(context)?;
        let mut head = String::new();
        self.answers.read_line(&mut head).with_context(context)?;
        // The header is `ID blob SIZE`, or `ID missing` for an object that a partial clone does not have.
        let size = head.trim_end().rsplit(' ').next().and_then(|size| size.parse::<u64>().ok());
        let Some(size) = size else {
            bail!("the git object {} cannot be read: {}", id.as_str(), head.trim_end());
        };
        if size > LARGEST {
            bail!("the git object {} is too large for a key: {size} bytes", id.as_str());
        }
        let mut content = vec![0; size as usize + 1];
        self.answers.read_exact(&mut content).with_context(context)?;
        content.pop();
        Ok(content)
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        // The process exits when its input is closed.
        self.orders = None;
        let _ = self.child.wait();
    }
}

/// The files of a commit, or any other set of blobs.
pub struct CommitTree {
    name: String,
    files: Rc<Files>,
    top: PathBuf,
    prefix: PathBuf,
    objects: Rc<RefCell<Objects>>,
}

impl CommitTree {
    /// Follows symbolic links from `path` to a regular file.
    fn resolved(&self, mut path: PathBuf) -> Result<Option<&Blob>> {
        for _ in 0..LINKS {
            match self.files.get(&path) {
                Some(blob) if blob.is_link => {
                    let target = self.objects.borrow_mut().read(&blob.id)?;
                    let target = Path::new(OsStr::from_bytes(&target));
                    let beside = path.parent().unwrap_or(Path::new("")).join(target);
                    match normalize(&beside).filter(|_| target.is_relative()) {
                        Some(next) => path = next,
                        None => return Ok(None),
                    }
                }
                other => return Ok(other),
            }
        }
        Ok(None)
    }
}

impl Tree for CommitTree {
    fn describe(&self) -> String {
        self.name.clone()
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let Some(path) = below_top(&self.top, &self.prefix, path) else { return Ok(None) };
        match self.resolved(path)? {
            Some(blob) => self.objects.borrow_mut().read(&blob.id).map(Some),
            None => Ok(None),
        }
    }

    fn matching(&self, pattern: &Pattern) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for (path, blob) in self.files.iter() {
            let called = called(&self.top, &self.prefix, path, pattern);
            let Some(called) = called.filter(|called| pattern.fits(called)) else { continue };
            if !blob.is_link || self.resolved(path.clone())?.is_some() {
                found.push(called);
            }
        }
        found.sort();
        Ok(found)
    }
}

fn below_top(top: &Path, prefix: &Path, path: &Path) -> Option<PathBuf> {
    let path = match path.is_absolute() {
        true => path.strip_prefix(top).ok()?.to_owned(),
        false => prefix.join(path),
    };
    normalize(&path)
}
