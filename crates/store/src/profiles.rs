//! The Guix profiles of one user. A profile is a link to a generation, which is a link to an item.
//!
//! They are in `profiles/per-user/NAME` of the state directory, which belongs to that user, and so does
//! everything that this module writes. Both kinds of link are GC roots: the collector keeps the items that they
//! lead to. Source: guix 1.5 `guix/profiles.scm`, `guix/scripts/pull.scm`.

use super::{ItemName, Layout};
use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, ResolveFlags, fstat, open, openat2, readlinkat, renameat,
    symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use storecache_runtime::advice::WithAdvice;

/// The profiles that a snapshot can contain: those of `guix pull` and `guix install`.
pub const PROFILES: [&str; 2] = ["current-guix", "guix-profile"];

/// More links than this are a loop.
const LINKS: usize = 8;
/// How often to retry when another process creates a generation at the same time.
const TRIES: usize = 16;

/// Returns the item that a profile leads to, following links inside the state directory only; `None` if the
/// profile does not exist.
///
/// # Errors
/// If the profile leads anywhere else.
pub fn profile_item(layout: &Layout, person: &str, profile: &str) -> Result<Option<ItemName>> {
    let first = PathBuf::from(profile_path(layout, person, profile));
    let mut at = first.clone();
    for _ in 0..LINKS {
        let on_disk = layout.on_disk(&at.to_string_lossy());
        let target = match std::fs::read_link(&on_disk) {
            Ok(target) => target,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && at == first => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("follow {}", at.display())),
        };
        at = clean(&at.parent().unwrap_or(&at).join(target));
        if let Some(item) = ItemName::from_path(&at.to_string_lossy(), layout.store_dir) {
            return Ok(Some(item));
        }
        if !at.starts_with(layout.state_dir) {
            bail!("{} leads to {}, which is not an item", first.display(), at.display());
        }
    }
    bail!("{} is a loop of symbolic links", first.display())
}

/// Returns the path of a profile, as programs inside the store's root see it.
pub fn profile_path(layout: &Layout, person: &str, profile: &str) -> String {
    format!("{}/{profile}", directory_of(layout, person))
}

/// Returns the directory of one user's profiles, as programs inside the store's root see it.
fn directory_of(layout: &Layout, person: &str) -> String {
    format!("{}/profiles/per-user/{person}", layout.state_dir)
}

/// The open profile directory of the current user.
pub struct Profiles {
    directory: OwnedFd,
    /// As programs inside the store's root see it.
    path: String,
    store_dir: &'static str,
}

/// The change that makes a profile lead to an item.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// Such a generation exists, and the profile does not.
    Switch(u64),
    /// Create a generation with this number.
    Make(u64),
}

impl Profiles {
    /// Opens the directory of the user `person`, who runs this program; `None` if it does not exist.
    ///
    /// # Errors
    /// If it belongs to another user, or is reached through a symbolic link: writes would go somewhere else.
    pub fn open(layout: &Layout, person: &str) -> Result<Option<Self>> {
        let path = directory_of(layout, person);
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let state = open(layout.state(), flags | OFlags::PATH, Mode::empty())
            .with_context(|| layout.state().display().to_string())?;
        let below = format!("profiles/per-user/{person}");
        let stay = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let directory = match openat2(&state, below, flags | OFlags::RDONLY, Mode::empty(), stay) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => {
                bail!(anyhow!("{path} is reached through a symbolic link").hint("remove the link"))
            }
            Err(e) => return Err(e).context(path),
        };
        let us = rustix::process::geteuid();
        if fstat(&directory)?.st_uid != us.as_raw() {
            bail!(
                anyhow!("{path} belongs to another user")
                    .hint(format!("change its owner to {person}"))
            );
        }
        Ok(Some(Profiles { directory, path, store_dir: layout.store_dir }))
    }

    /// Returns the generation that [`Profiles::add`] would switch to; `None` if there is nothing to do.
    pub fn plan(&self, profile: &str, item: &ItemName) -> Result<Option<u64>> {
        Ok(match self.step(profile, item)? {
            Step::Nothing => None,
            Step::Switch(number) | Step::Make(number) => Some(number),
        })
    }

    /// Creates the next generation of a profile and switches to it. Returns its number, or `None` if a
    /// generation of the profile leads to `item` already. Of the existing links, only that of the profile
    /// changes.
    ///
    /// # Errors
    /// Also if the profile exists and does not lead to a generation, because then another program manages it.
    /// Nothing was changed in this case.
    pub fn add(&self, profile: &str, item: &ItemName) -> Result<Option<u64>> {
        for _ in 0..TRIES {
            match self.step(profile, item)? {
                Step::Nothing => return Ok(None),
                Step::Switch(number) => return self.switch(profile, number).map(Some),
                Step::Make(number) => {
                    let link = generation(profile, number);
                    let target = format!("{}/{item}", self.store_dir);
                    match symlinkat(target, &self.directory, &link) {
                        Ok(()) => {}
                        // Another process has just created it: look for a free number again.
                        Err(Errno::EXIST) => continue,
                        Err(e) => return Err(e).context(format!("create {}/{link}", self.path)),
                    }
                    return self.switch(profile, number).map(Some).inspect_err(|_| {
                        let _ = unlinkat(&self.directory, &link, AtFlags::empty());
                    });
                }
            }
        }
        bail!("{}: another process keeps creating generations of {profile}", self.path)
    }

    fn step(&self, profile: &str, item: &ItemName) -> Result<Step> {
        let leads_there =
            |target: &str| ItemName::from_path(target, self.store_dir).as_ref() == Some(item);
        let generations = self.generations(profile)?;
        let same = generations.iter().find(|(_, target)| leads_there(target));
        let Some(current) = self.link(profile)? else {
            let next = generations.last().map_or(0, |(number, _)| *number);
            return Ok(same.map_or(Step::Make(next + 1), |(number, _)| Step::Switch(*number)));
        };
        if same.is_some() || leads_there(&current) {
            return Ok(Step::Nothing);
        }
        let (directory, name) = current.rsplit_once('/').unwrap_or(("", &current));
        let number = number(profile, name).filter(|_| ["", &self.path].contains(&directory));
        let Some(number) = number else {
            bail!("{}/{profile} leads to {current}, which is not a generation of it", self.path);
        };
        let last = generations.last().map_or(0, |(number, _)| *number);
        Ok(Step::Make(last.max(number) + 1))
    }

    /// Returns the generations of a profile by number, with the targets of their links.
    fn generations(&self, profile: &str) -> Result<Vec<(u64, String)>> {
        let mut found = Vec::new();
        for entry in Dir::read_from(&self.directory).with_context(|| self.path.clone())? {
            let entry = entry.with_context(|| self.path.clone())?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if let Some(number) = number(profile, name) {
                found.push((number, self.link(name)?.unwrap_or_default()));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Returns the target of a link; `None` if the name does not exist.
    fn link(&self, name: &str) -> Result<Option<String>> {
        match readlinkat(&self.directory, name, Vec::new()) {
            Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::INVAL) => bail!("{}/{name} is not a symbolic link", self.path),
            Err(e) => Err(e).context(format!("read {}/{name}", self.path)),
        }
    }

    /// Makes the profile lead to one of its generations, atomically.
    fn switch(&self, profile: &str, number: u64) -> Result<u64> {
        let pivot = format!(".storecache-{}-{profile}", std::process::id());
        // Left by a killed run with the same process ID.
        let _ = unlinkat(&self.directory, &pivot, AtFlags::empty());
        let switched = symlinkat(generation(profile, number), &self.directory, &pivot)
            .and_then(|()| renameat(&self.directory, &pivot, &self.directory, profile));
        if switched.is_err() {
            let _ = unlinkat(&self.directory, &pivot, AtFlags::empty());
        }
        switched.with_context(|| format!("switch {}/{profile}", self.path))?;
        Ok(number)
    }
}

fn generation(profile: &str, number: u64) -> String {
    format!("{profile}-{number}-link")
}

/// Returns the number in the name of a generation. `u64::MAX` is not accepted, because no generation could
/// follow it.
fn number(profile: &str, name: &str) -> Option<u64> {
    let digits = name.strip_prefix(profile)?.strip_prefix('-')?.strip_suffix("-link")?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|&number| plain && number < u64::MAX)
}

/// Removes `.` and `..` components from a path.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreKind;
    use std::collections::BTreeMap;
    use std::fs::{create_dir_all, read_dir, read_link, write};
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    const PERSON: &str = "var/guix/profiles/per-user/me";

    /// A root that has the state directory of a user called "me".
    fn root() -> (TempDir, Layout) {
        let root = tempfile::tempdir().unwrap();
        create_dir_all(root.path().join(PERSON)).unwrap();
        let layout = Layout::new(StoreKind::Guix, root.path()).unwrap();
        (root, layout)
    }

    fn item(letter: char) -> ItemName {
        ItemName::parse(&format!("{}-{letter}", "0".repeat(32))).unwrap()
    }

    fn store_path(letter: char) -> String {
        format!("/gnu/store/{}", item(letter))
    }

    fn links(root: &TempDir) -> BTreeMap<String, String> {
        let entries = read_dir(root.path().join(PERSON)).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let link = |path: PathBuf| {
            let target = read_link(&path).map(|target| text(&target)).unwrap_or_default();
            (text(path.file_name().unwrap().as_ref()), target)
        };
        entries.map(|entry| link(entry.unwrap().path())).collect()
    }

    fn put(root: &TempDir, wanted: &[(&str, &str)]) {
        for (name, target) in wanted {
            symlink(target, root.path().join(PERSON).join(name)).unwrap();
        }
    }

    #[test]
    fn first_generation_creates_the_profile() {
        let (root, layout) = root();
        let profiles = Profiles::open(&layout, "me").unwrap().unwrap();
        assert_eq!(profiles.plan("current-guix", &item('a')).unwrap(), Some(1));
        assert!(links(&root).is_empty());
        assert_eq!(profiles.add("current-guix", &item('a')).unwrap(), Some(1));
        let made = [
            ("current-guix".to_owned(), "current-guix-1-link".to_owned()),
            ("current-guix-1-link".to_owned(), store_path('a')),
        ];
        assert_eq!(links(&root), BTreeMap::from(made));
        assert_eq!(profile_item(&layout, "me", "current-guix").unwrap(), Some(item('a')));
        assert_eq!(profile_item(&layout, "me", "guix-profile").unwrap(), None);
    }

    #[test]
    fn new_generation_is_added_after_existing_ones() {
        let (root, layout) = root();
        put(
            &root,
            &[
                ("guix-profile", "guix-profile-2-link"),
                ("guix-profile-2-link", &store_path('b')),
                ("guix-profile-9-link", &store_path('c')),
                ("guix-profile-11-link.new", &store_path('c')),
                ("guix-profile-x-link", &store_path('d')),
                ("current-guix-40-link", &store_path('a')),
            ],
        );
        let before = links(&root);
        let profiles = Profiles::open(&layout, "me").unwrap().unwrap();
        assert_eq!(profiles.add("guix-profile", &item('a')).unwrap(), Some(10));
        let mut after = links(&root);
        assert_eq!(after.remove("guix-profile-10-link"), Some(store_path('a')));
        let switched = after.insert("guix-profile".into(), "guix-profile-2-link".into());
        assert_eq!(switched.as_deref(), Some("guix-profile-10-link"));
        assert_eq!(after, before);
    }

    #[test]
    fn existing_generation_of_the_item_is_kept() {
        let (root, layout) = root();
        put(
            &root,
            &[
                ("current-guix", "/var/guix/profiles/per-user/me/current-guix-1-link"),
                ("current-guix-1-link", &store_path('a')),
                ("current-guix-2-link", &store_path('b')),
            ],
        );
        let before = links(&root);
        let profiles = Profiles::open(&layout, "me").unwrap().unwrap();
        for letter in ['a', 'b'] {
            assert_eq!(profiles.plan("current-guix", &item(letter)).unwrap(), None);
            assert_eq!(profiles.add("current-guix", &item(letter)).unwrap(), None);
        }
        assert_eq!(links(&root), before);
    }

    #[test]
    fn a_generation_without_a_profile_is_switched_to() {
        let (root, layout) = root();
        put(&root, &[("current-guix-3-link", &store_path('a'))]);
        let profiles = Profiles::open(&layout, "me").unwrap().unwrap();
        assert_eq!(profiles.add("current-guix", &item('a')).unwrap(), Some(3));
        assert_eq!(links(&root)["current-guix"], "current-guix-3-link");
    }

    #[test]
    fn profile_without_a_generation_link_is_left_alone() {
        let (root, layout) = root();
        let direct = store_path('b');
        put(&root, &[("current-guix", &direct), ("guix-profile", "../you/guix-profile-1-link")]);
        write(root.path().join(PERSON).join("other"), "file").unwrap();
        let before = links(&root);
        let profiles = Profiles::open(&layout, "me").unwrap().unwrap();
        for profile in ["current-guix", "guix-profile", "other"] {
            profiles.plan(profile, &item('a')).unwrap_err();
            profiles.add(profile, &item('a')).unwrap_err();
        }
        assert_eq!(profiles.add("current-guix", &item('b')).unwrap(), None);
        assert_eq!(links(&root), before);
    }

    #[test]
    fn profile_link_outside_of_the_state_directory_is_refused() {
        let (root, layout) = root();
        let outside = root.path().join("outside");
        symlink(store_path('a'), &outside).unwrap();
        put(
            &root,
            &[
                ("through", "/var/guix/profiles/per-user/me/../me/generation"),
                ("generation", &store_path('a')),
                ("outside", outside.to_str().unwrap()),
                ("up", "../../../../../outside"),
                ("circle", "circle"),
                ("dangling", "nothing"),
                ("below", &format!("{}/bin", store_path('a'))),
            ],
        );
        assert_eq!(profile_item(&layout, "me", "through").unwrap(), Some(item('a')));
        for profile in ["outside", "up", "circle", "dangling", "below"] {
            profile_item(&layout, "me", profile).unwrap_err();
        }
    }

    #[test]
    fn missing_or_linked_profile_directory_is_not_used() {
        let (root, layout) = root();
        let per_user = root.path().join("var/guix/profiles/per-user");
        symlink("me", per_user.join("alias")).unwrap();
        assert!(Profiles::open(&layout, "nobody").unwrap().is_none());
        let error = Profiles::open(&layout, "alias").err().unwrap();
        assert!(error.to_string().contains("symbolic link"), "{error:#}");
    }
}
