//! A machine as an input of the target `orders` describes it, line by line; invalid lines are skipped.
//!
//! ```text
//! uid 0                                  the user that the code runs as
//! env SUDO_UID=1000                      a variable that the root helper inherits
//! everywhere                             --everywhere
//! store {"kind":"nix",…}                 the request that names the store
//! ward restores deputy                   run the guardian for that store, or the backup guardian
//! order stop                             a line that is sent to the guardian
//! impatient                              the next line comes while the last one is being handled
//! say is-active 0 active                 the output of a program: key, exit code, text
//! dir PATH UID GID MODE
//! file PATH UID GID MODE TEXT
//! link PATH UID GID TARGET
//! fifo PATH UID GID MODE
//! socket PATH UID GID MODE PID UID GID SAYS   with its listener; `nix` stands for the reply of a daemon
//! acl PATH user 1000                     an access list that lets a user or group write
//! process PID UID GID PROGRAM WORD…
//! ```
//!
//! In texts, `\n`, `\t`, `\0` and `\\` are escapes.

use super::fake_kernel::{Entry, Outcome, Peer, World, real_inode, run_in};
use nix::sys::stat::{Mode, SFlag, mknod};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use storecache_programs::Answer;

/// Maximum length of paths, files and answers of a scene, in bytes.
const TEXT_LIMIT: usize = 4096;
/// Maximum number of entries, including those of [`base`].
const ENTRIES_LIMIT: usize = 200;
/// Maximum number of symbolic links, as in the kernel. Only loops need more.
const LINKS_LIMIT: usize = 40;

/// The reply of a Nix 2.3 daemon to a client: magic, version, "done"; "done" and the answer "yes" to one
/// query.
const GREETING: [u64; 5] = [0x6478_696f, 0x115, 0x616c_7473, 0x616c_7473, 1];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Directory,
    Link(String),
    File(Vec<u8>),
    Fifo,
    Socket(Peer),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub kind: Kind,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    /// The user (true) or group (false) that an access list lets write, and its number.
    pub granted: Option<(bool, u32)>,
}

impl PartialEq for Peer {
    fn eq(&self, other: &Peer) -> bool {
        (self.pid, self.uid, self.gid) == (other.pid, other.uid, other.gid)
    }
}

impl Eq for Peer {}

#[derive(Debug, Clone, Default)]
pub struct Scene {
    pub uid: u32,
    pub variables: Vec<(String, String)>,
    pub everywhere: bool,
    pub store: Option<String>,
    /// The setup of the guardian: whether it serves a restore, and whether it is the backup guardian.
    pub ward: Option<(bool, bool)>,
    pub orders: Vec<String>,
    pub impatient: bool,
    pub answers: Vec<Answer>,
    pub nodes: BTreeMap<String, Node>,
    pub processes: Vec<u32>,
    /// Number of invalid lines.
    pub skipped: usize,
}

impl Scene {
    pub fn parse(input: &[u8]) -> Scene {
        let mut scene = Scene::default();
        for line in base() {
            scene.read(&line).unwrap_or_else(|| panic!("{line}"));
        }
        for line in String::from_utf8_lossy(input).lines() {
            let is_text = !line.contains('\0');
            if !line.trim().is_empty() && (!is_text || scene.read(line).is_none()) {
                scene.skipped += 1;
            }
        }
        scene
    }

    fn read(&mut self, line: &str) -> Option<()> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "uid" => self.uid = rest.parse().ok()?,
            "env" => {
                let (name, value) = rest.split_once('=')?;
                self.variables.push((name.into(), value.into()));
            }
            "everywhere" => self.everywhere = true,
            "store" => self.store = Some(rest.into()),
            "ward" => {
                let words: Vec<_> = rest.split(' ').collect();
                self.ward = Some((words.contains(&"restores"), words.contains(&"deputy")));
            }
            "order" => {
                if self.orders.len() >= 16 {
                    return None;
                }
                self.orders.push(rest.into());
            }
            "impatient" => self.impatient = true,
            "say" => {
                let mut words = rest.splitn(3, ' ');
                let key = words.next()?.to_owned();
                let status = words.next()?.parse().ok().filter(|it| (-200..300).contains(it))?;
                let printed = text(words.next().unwrap_or_default());
                let printed = String::from_utf8_lossy(&printed).into_owned();
                self.answers.push(Answer { key, status, printed });
            }
            "process" => self.process(rest)?,
            "acl" => {
                let mut words = rest.split(' ');
                let node = self.nodes.get_mut(words.next()?)?;
                if !matches!(node.kind, Kind::Directory | Kind::File(_)) {
                    return None;
                }
                let is_user = match words.next()? {
                    "user" => true,
                    "group" => false,
                    _ => return None,
                };
                node.granted = Some((is_user, words.next()?.parse().ok()?));
            }
            _ => self.node(word, rest)?,
        }
        Some(())
    }

    fn node(&mut self, word: &str, rest: &str) -> Option<()> {
        let mut words = rest.splitn(if word == "link" { 4 } else { 5 }, ' ');
        let path = words.next()?.to_owned();
        let (uid, gid) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let (mode, text_) = match word {
            "link" => (0o777, words.next()?),
            _ => (u32::from_str_radix(words.next()?, 8).ok()? & 0o7777, words.next().unwrap_or("")),
        };
        let kind = match word {
            "dir" => Kind::Directory,
            "file" => Kind::File(text(text_)),
            "link" if (1..TEXT_LIMIT).contains(&text_.len()) => Kind::Link(text_.into()),
            "fifo" => Kind::Fifo,
            "socket" => Kind::Socket(peer(text_)?),
            _ => return None,
        };
        // A process that waits for its parent would wait in real time.
        if path.starts_with("/proc/") && path.ends_with("/stat") || path.starts_with("/proc/1/") {
            return None;
        }
        self.put(&path, Node { kind, uid, gid, mode, granted: None })
    }

    /// Adds an entry, and the directories that lead to it.
    fn put(&mut self, path: &str, node: Node) -> Option<()> {
        if path == "/" {
            let is_directory = node.kind == Kind::Directory;
            return is_directory.then(|| _ = self.nodes.insert("/".into(), node));
        }
        let names: Vec<_> = path.strip_prefix('/')?.split('/').collect();
        let is_name = |name: &&str| !["", ".", ".."].contains(name) && !name.contains('\0');
        if !names.iter().all(is_name) || path.len() > 200 || self.nodes.len() > ENTRIES_LIMIT {
            return None;
        }
        let parent = parent(path);
        match self.nodes.get(parent).map(|node| &node.kind) {
            Some(Kind::Directory) => {}
            Some(_) => return None,
            None => self.put(parent, directory())?,
        }
        let below = format!("{path}/");
        let has_entries = self.nodes.range(below.clone()..).next();
        let has_entries = has_entries.is_some_and(|(path, _)| path.starts_with(&below));
        if has_entries && node.kind != Kind::Directory {
            return None;
        }
        self.nodes.insert(path.into(), node);
        Some(())
    }

    fn process(&mut self, rest: &str) -> Option<()> {
        let mut words = rest.splitn(5, ' ');
        let pid: u32 = words.next()?.parse().ok().filter(|pid| (2..100_000).contains(pid))?;
        let (uid, gid): (u32, u32) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let program = words.next().filter(|it| (1..TEXT_LIMIT).contains(&it.len()))?.to_owned();
        let line = text(words.next().unwrap_or_default());
        let at = format!("/proc/{pid}");
        let mut put = |name: &str, kind| {
            let node = Node { kind, uid, gid, mode: 0o444, granted: None };
            self.put(&format!("{at}/{name}"), node)
        };
        let stat = format!("{pid} (daemon) S 1{}\n", " 0".repeat(48));
        let ids = |name: &str, id: u32| format!("{name}\t{id}\t{id}\t{id}\t{id}\n");
        let status = format!(
            "Name:\tdaemon\nUmask:\t0022\n{}{}Groups:\t{gid} \nCapAmb:\t0000000000000000\n",
            ids("Uid:", uid),
            ids("Gid:", gid)
        );
        put("stat", Kind::File(stat.into()))?;
        put("status", Kind::File(status.into()))?;
        put("comm", Kind::File(b"nix-daemon\n".into()))?;
        put("cmdline", Kind::File(line.iter().map(|&b| if b == b' ' { 0 } else { b }).collect()))?;
        put("environ", Kind::File(b"PATH=/usr/bin\0".into()))?;
        put("maps", Kind::File(Vec::new()))?;
        put("exe", Kind::Link(program))?;
        put("root", Kind::Link("/".into()))?;
        put("cwd", Kind::Link("/".into()))?;
        put("ns", Kind::Link("/proc/self/ns".into()))?;
        self.processes.push(pid);
        Some(())
    }

    /// Adds a process whose parent is not init.
    pub fn add_child(&mut self, pid: u32, parent: u32) {
        let stat = format!("{pid} (storecache) S {parent}{}\n", " 0".repeat(48));
        let node = Node { kind: Kind::File(stat.into()), ..directory() };
        let _ = self.put(&format!("/proc/{pid}/stat"), node);
        self.processes.extend([pid, parent]);
    }

    /// Creates the entries in an empty directory. Returns their table.
    fn build(&self, directory: &Path) -> HashMap<u64, Entry> {
        let mut entries = HashMap::new();
        for (path, node) in &self.nodes {
            let real = directory.join(path.trim_start_matches('/'));
            let mode = Mode::from_bits_truncate(0o600);
            match &node.kind {
                Kind::Directory if path == "/" => {}
                Kind::Directory => fs::create_dir(&real).unwrap(),
                Kind::Link(target) => std::os::unix::fs::symlink(target, &real).unwrap(),
                Kind::File(content) => fs::write(&real, content).unwrap(),
                Kind::Fifo => mknod(&real, SFlag::S_IFIFO, mode, 0).unwrap(),
                Kind::Socket(_) => mknod(&real, SFlag::S_IFSOCK, mode, 0).unwrap(),
            }
            entries.insert(real_inode(&real), node.entry(inode_of(path)));
        }
        entries
    }

    /// Resolves a path below a root. Returns the result and each entry that is looked up on the way; `None`
    /// for a loop.
    pub fn resolve(&self, root: &str, path: &str) -> Option<(String, Vec<String>)> {
        let mut ahead: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut here = root.to_owned();
        let mut seen = Vec::new();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            match &name[..] {
                "" | "." => continue,
                ".." => {
                    if here != root {
                        here = parent(&here).to_owned();
                    }
                    continue;
                }
                _ => {}
            }
            let next = format!("{}/{name}", here.trim_end_matches('/'));
            seen.push(next.clone());
            match self.nodes.get(&next).map(|node| &node.kind) {
                Some(Kind::Link(target)) => {
                    links += 1;
                    if links > LINKS_LIMIT {
                        return None;
                    }
                    if target.starts_with('/') {
                        here = root.to_owned();
                    }
                    ahead.extend(target.split('/').rev().map(str::to_owned));
                }
                _ => here = next,
            }
        }
        Some((here, seen))
    }

    /// Returns the first of `entries` that a suspect could replace or create. A suspect controls where a path
    /// with such an entry leads.
    pub fn replaceable<'e>(&self, suspects: &Suspects, entries: &'e [String]) -> Option<&'e str> {
        let could = |entry: &&String| {
            let Some(directory) = self.nodes.get(parent(entry)) else { return false };
            if !suspects.can_write(directory) {
                return false;
            }
            let is_sticky = directory.mode & 0o1000 != 0 && !suspects.include(directory.uid);
            let is_theirs = self.nodes.get(*entry).is_none_or(|it| suspects.include(it.uid));
            !is_sticky || is_theirs
        };
        entries.iter().find(could).map(String::as_str)
    }
}

/// A scene with its files.
pub struct Machine {
    pub scene: Scene,
    directory: tempfile::TempDir,
    entries: HashMap<u64, Entry>,
}

impl Machine {
    pub fn new(scene: Scene) -> Machine {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let directory = tempfile::Builder::new().prefix("storecache-world-").tempdir_in(place);
        let directory = directory.expect("a directory in memory");
        let entries = scene.build(directory.path());
        Machine { scene, directory, entries }
    }

    /// Runs `work` on the machine, with this content of standard input.
    pub fn run<T: Send + 'static>(
        &self,
        input: Vec<Vec<u8>>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Outcome<T> {
        let world = World {
            directory: self.directory.path().to_owned(),
            entries: self.entries.clone(),
            uid: self.scene.uid,
            processes: self.scene.processes.clone(),
            input,
            impatient: self.scene.impatient,
        };
        run_in(world, work)
    }
}

/// Accounts that must not control what root does.
#[derive(Debug)]
pub enum Suspects {
    User {
        uid: u32,
        groups: Vec<u32>,
    },
    /// All users except root and this one.
    EverybodyBut(u32),
}

impl Suspects {
    pub fn include(&self, uid: u32) -> bool {
        match self {
            Suspects::User { uid: theirs, .. } => uid == *theirs,
            Suspects::EverybodyBut(trusted) => uid != 0 && uid != *trusted,
        }
    }

    fn include_group(&self, gid: u32) -> bool {
        match self {
            Suspects::User { groups, .. } => groups.contains(&gid),
            Suspects::EverybodyBut(_) => true,
        }
    }

    /// Returns whether a suspect may write to a file or directory, or may grant that right to itself.
    pub fn can_write(&self, node: &Node) -> bool {
        let listed = node.granted.is_some_and(|(is_user, id)| match is_user {
            true => self.include(id),
            false => self.include_group(id),
        });
        self.include(node.uid)
            || node.mode & 0o002 != 0
            || node.mode & 0o020 != 0 && self.include_group(node.gid)
            || listed
    }
}

impl Node {
    fn entry(&self, inode: u64) -> Entry {
        let Node { uid, gid, mode, .. } = *self;
        let peer = match &self.kind {
            Kind::Socket(peer) => Some(peer.clone()),
            _ => None,
        };
        let acl = self.granted.map(|(is_user, id)| access_list(is_user, id));
        Entry { inode, uid, gid, mode, acl, peer }
    }
}

/// `struct posix_acl_xattr_header` and its entries (`linux:include/uapi/linux/posix_acl_xattr.h`).
fn access_list(is_user: bool, id: u32) -> Vec<u8> {
    let entry = |tag: u16, rights: u16, id: u32| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let named = if is_user { 0x02 } else { 0x08 };
    let parts = [entry(0x01, 7, none), entry(named, 7, id), entry(0x04, 5, none)];
    let rest = [entry(0x10, 7, none), entry(0x20, 5, none)];
    [2u32.to_le_bytes().to_vec(), parts.concat(), rest.concat()].concat()
}

const NAMESPACES: [&str; 7] = ["ipc", "uts", "net", "cgroup", "mnt", "pid", "user"];

/// Returns the simulated inode of a path. Stores have fixed numbers that a record can contain; others are
/// derived from the path.
pub fn inode_of(path: &str) -> u64 {
    match path {
        "/nix/store" => 2,
        "/gnu/store" => 3,
        _ => {
            // FNV-1a: any number works that two paths are unlikely to share.
            let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            path.bytes().fold(0xcbf2_9ce4_8422_2325, mix) >> 8 | 1 << 32
        }
    }
}

fn base() -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let directories = [
        "/",
        "/nix",
        "/nix/var/nix/db",
        "/nix/var/nix/gcroots",
        "/nix/var/nix/daemon-socket",
        "/gnu/store",
        "/var/guix/db",
        "/var/guix/gcroots",
        "/var/guix/daemon-socket",
        "/run/user",
        "/var/lib",
        "/etc",
        "/usr/bin",
        "/proc/self/ns",
        "/proc/net",
        "/proc/sys/kernel/random",
        "/sys/fs/cgroup",
        "/home",
        "/mnt",
    ];
    lines.extend(directories.map(|path| format!("dir {path} 0 0 755")));
    lines.push("dir /nix/store 0 30000 1775".into());
    lines.push("dir /tmp 0 0 1777".into());
    lines.push("dir /home/user 1000 1000 755".into());
    let files = [
        ("/etc/passwd", r"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"),
        ("/etc/group", r"root:x:0:\nnixbld:x:30000:\nusers:x:100:user\nuser:x:1000:\n"),
        ("/proc/sys/kernel/random/boot_id", r"boot\n"),
        ("/proc/self/mountinfo", r"1 0 0:1 / / rw - tmpfs tmpfs rw\n"),
        ("/proc/self/fdinfo", r"mnt_id:\t1\n"),
        ("/proc/net/unix", r"Num RefCount Protocol Flags Type St Inode Path\n"),
    ];
    lines.extend(files.map(|(path, content)| format!("file {path} 0 0 644 {content}")));
    lines.push("file /usr/bin/nix-daemon 0 0 755 \u{7f}ELF".into());
    lines.extend(NAMESPACES.map(|name| format!("file /proc/self/ns/{name} 0 0 444 {name}")));
    lines
}

fn directory() -> Node {
    Node { kind: Kind::Directory, uid: 0, gid: 0, mode: 0o755, granted: None }
}

/// Returns the parent directory of an absolute path.
pub fn parent(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

fn peer(text: &str) -> Option<Peer> {
    let mut words = text.splitn(4, ' ');
    let mut number = || words.next()?.parse().ok();
    let (pid, uid, gid) = (number()?, number()?, number()?);
    let says = match words.next().unwrap_or_default() {
        "nix" => GREETING.iter().flat_map(|word| word.to_le_bytes()).collect(),
        hex => {
            let pairs = hex.as_bytes().chunks_exact(2).take(TEXT_LIMIT);
            let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
            pairs.map_while(byte).collect()
        }
    };
    Some(Peer { pid, uid, gid, says })
}

/// Decodes the escapes of a text.
fn text(written: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = written.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'0') => 0,
                Some(other) => other,
                None => b'\\',
            },
            byte => byte,
        });
    }
    bytes.truncate(TEXT_LIMIT);
    bytes
}
