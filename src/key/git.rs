//! Commits of the git repository that the program runs in, read through git itself.
//!
//! One `git cat-file --batch` answers for all contents. Nothing is written, and nothing is fetched.

use super::tree::{Pattern, Tree};
use crate::threads;
use anyhow::{Context, Result, bail};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;

/// Links that are followed one after the other, as the kernel does.
const LINKS: usize = 40;

/// A file larger than this is not read out of a commit, in bytes.
const LARGEST: u64 = 256 << 20;

/// Where the program runs is no work tree of git, or git is not there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoRepository(String);

/// A repository, seen from a directory of its work tree.
pub struct Repository {
    /// Top of the work tree, absolute.
    top: PathBuf,
    /// Where the program runs, below the top.
    prefix: PathBuf,
    objects: Rc<RefCell<Objects>>,
}

/// What a commit, a tree or a blob is called: its hash in hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(String);

impl ObjectId {
    /// # Errors
    /// When it has other than hex digits: git would take it for something else.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() < 40 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            bail!("{text:?} is no name of a git object");
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
    /// Its content is where a symbolic link leads.
    pub is_link: bool,
}

/// Files of a commit by their paths below the top.
pub type Files = BTreeMap<PathBuf, Blob>;

impl Repository {
    /// The repository of the directory where the program runs.
    ///
    /// # Errors
    /// [`NoRepository`]
    pub fn here() -> Result<Self> {
        let no = |why: String| NoRepository(format!("{why}; run it in a work tree of git"));
        let directory = std::env::current_dir().context("find the current directory")?;
        let output = command(&directory)
            .args(["rev-parse", "--show-toplevel", "--show-prefix"])
            .output()
            .map_err(|e| no(format!("git cannot be run: {e}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or_default().trim_start_matches("fatal: ");
            // Else it is there, and git does not trust it, for example.
            let why = match said.starts_with("not a git repository") {
                true => String::new(),
                false => format!(": {said}"),
            };
            let place = directory.display();
            return Err(no(format!("{place} is in no git repository{why}")).into());
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

    /// The path below the top of what flags call `path`; nothing outside of the work tree.
    pub fn below_top(&self, path: &Path) -> Option<PathBuf> {
        below_top(&self.top, &self.prefix, path)
    }

    /// Whether history ends before its beginning, as after `actions/checkout` without `fetch-depth: 0`.
    pub fn is_shallow(&self) -> Result<bool> {
        Ok(self.ask(["rev-parse", "--is-shallow-repository"])?.starts_with(b"true"))
    }

    /// The commit that a name stands for.
    ///
    /// # Errors
    /// When there is none.
    pub fn commit(&self, name: &str) -> Result<ObjectId> {
        let wanted = format!("{name}^{{commit}}");
        let said = self.ask(["rev-parse", "--verify", "--quiet", "--end-of-options", &wanted]);
        let Ok(said) = said else {
            let shallow = match self.is_shallow()? {
                true => {
                    "; this clone is shallow: fetch all of it with `git fetch --unshallow`, or check it \
                     out with `fetch-depth: 0`"
                }
                false => "",
            };
            bail!("there is no commit {name:?} in this repository{shallow}");
        };
        ObjectId::parse(String::from_utf8_lossy(&said).trim())
    }

    /// All files of a commit.
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
            // Other repositories are commits here.
            if kind == Some("blob") {
                let id = ObjectId::parse(facts.next().unwrap_or_default())?;
                let blob = Blob { id, is_link: mode == "120000" };
                files.insert(PathBuf::from(OsString::from_vec(path.to_vec())), blob);
            }
        }
        Ok(files)
    }

    /// The tree of these files; `name` is what people call it.
    pub fn tree(&self, name: &str, files: Rc<Files>) -> CommitTree {
        CommitTree {
            name: name.to_owned(),
            files,
            top: self.top.clone(),
            prefix: self.prefix.clone(),
            objects: Rc::clone(&self.objects),
        }
    }

    /// What git prints to a question.
    ///
    /// # Errors
    /// With what git says, when it fails.
    pub fn ask<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Result<Vec<u8>> {
        let mut command = command(&self.top);
        let output = command.args(words).output().context("run git")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("git: {}", said.trim().trim_start_matches("fatal: "));
        }
        Ok(output.stdout)
    }

    /// A git that runs beside us, for long answers. Its standard output is piped.
    pub fn start<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Result<Child> {
        let mut command = command(&self.top);
        command.args(words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("run git")
    }

    /// The same, with something to read on its standard input.
    pub fn start_with<'a>(
        &self,
        words: impl IntoIterator<Item = &'a str>,
        input: Vec<u8>,
    ) -> Result<Child> {
        let mut command = command(&self.top);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("run git")?;
        let pipe = child.stdin.take();
        // Whoever wrote all of it before reading would wait for a git that waits to be read. It ends
        // with git; that git did not read everything shows in its exit code.
        let write = move || pipe.map(|mut pipe| pipe.write_all(&input));
        threads::start("that asks git", write)?;
        Ok(child)
    }

    /// What a pattern calls the file at `path` below the top, if it reaches there.
    pub fn called(&self, path: &Path, pattern: &Pattern) -> Option<PathBuf> {
        called(&self.top, &self.prefix, path, pattern)
    }

    /// The content of a blob.
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
    // Nothing is refreshed in the index, nobody is asked, and messages are in English.
    command.envs([("GIT_OPTIONAL_LOCKS", "0"), ("GIT_TERMINAL_PROMPT", "0"), ("LC_ALL", "C")]);
    // What a partial clone lacks stays where it is.
    command.env("GIT_NO_LAZY_FETCH", "1");
    command
}

/// `git cat-file --batch`
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
        // `ID blob SIZE`, or `ID missing` where only a part was cloned.
        let size = head.trim_end().rsplit(' ').next().and_then(|size| size.parse::<u64>().ok());
        let Some(size) = size else {
            bail!("the git object {} is not here: {}", id.as_str(), head.trim_end());
        };
        if size > LARGEST {
            bail!("the git object {} has {size} bytes, which is too large for a key", id.as_str());
        }
        let mut content = vec![0; size as usize + 1];
        self.answers.read_exact(&mut content).with_context(context)?;
        content.pop();
        Ok(content)
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        // It ends when its input does.
        self.orders = None;
        let _ = self.child.wait();
    }
}

/// The files of a commit, or of any list of blobs.
pub struct CommitTree {
    name: String,
    files: Rc<Files>,
    top: PathBuf,
    prefix: PathBuf,
    objects: Rc<RefCell<Objects>>,
}

impl CommitTree {
    /// The file itself, where links lead to one.
    fn resolved(&self, mut path: PathBuf) -> Result<Option<&Blob>> {
        for _ in 0..LINKS {
            match self.files.get(&path) {
                Some(blob) if blob.is_link => {
                    let target = self.objects.borrow_mut().read(&blob.id)?;
                    let target = Path::new(OsStr::from_bytes(&target));
                    let beside = path.parent().unwrap_or(Path::new("")).join(target);
                    match normal(&beside).filter(|_| target.is_relative()) {
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
    normal(&path)
}

/// Without dots; nothing where it leads above its start.
pub(super) fn normal(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if !clean.pop() => return None,
            Component::ParentDir => {}
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}
