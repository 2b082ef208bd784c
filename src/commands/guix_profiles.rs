//! `--profiles`: saves the Guix profiles of the current user and restores them as new generations.
//!
//! Profiles belong to their user, so the user process does all of this. Failures become warnings: the items
//! are restored whether or not a profile leads to them.

use super::resolve;
use crate::config::{Restore, Save, StoreOptions};
use crate::report::{self, Outcome, Profile};
use anyhow::{Context, Result, anyhow, bail};
use rustix::process::getuid;
use std::path::{Path, PathBuf};
use std::time::Instant;
use storecache_daemon::Client;
use storecache_runtime::advice::{WithAdvice, in_one_line};
use storecache_snapshot::{BaseItem, ItemEntry, Opened, ProfileFacts};
use storecache_store::{
    ItemName, Layout, PROFILES, Person, Profiles, StoreKind, is_plain_name, make_shortcut,
    profile_item, profile_path,
};

/// Refuses stores that have no profiles.
pub fn check(wanted: bool, store: &StoreOptions) -> Result<()> {
    if !wanted {
        return Ok(());
    }
    match resolve::kind(store)? {
        StoreKind::Guix => Ok(()),
        kind @ (StoreKind::Nix | StoreKind::Plain) => bail!(
            "--profiles is for Guix, and this is a {kind} store; leave it out, or name another store \
             with --store guix"
        ),
    }
}

/// Profiles that were saved or restored, and warnings about the others.
#[derive(Default)]
pub struct ProfileReport {
    pub profiles: Vec<Profile>,
    pub warnings: Vec<String>,
}

/// Returns the items that the profiles lead to, and warnings about profiles that are left out. Must be called before
/// the database is frozen, so that the frozen database contains these items.
pub fn find(options: &Save) -> (Vec<ProfileFacts>, Vec<String>) {
    if !options.profiles {
        return Default::default();
    }
    find_below(&options.store.root).unwrap_or_else(|e| {
        (Vec::new(), vec![format!("left out the profiles: {}", in_one_line(e.as_ref()))])
    })
}

fn find_below(root: &Path) -> Result<(Vec<ProfileFacts>, Vec<String>)> {
    let layout = Layout::new(StoreKind::Guix, root)?;
    let person = person(root)?;
    let (mut found, mut warnings) = (Vec::new(), Vec::new());
    for name in PROFILES {
        match profile_item(&layout, &person.name, name) {
            Ok(Some(item)) => {
                found.push(ProfileFacts { name: name.into(), item: item.to_string().into() });
            }
            Ok(None) => {}
            Err(e) => {
                warnings.push(format!("left out the profile {name}: {}", in_one_line(e.as_ref())))
            }
        }
    }
    if found.is_empty() {
        warnings.push(format!("{} has no profiles to save", person.name));
    }
    Ok((found, warnings))
}

/// Returns the report of the profiles of a snapshot, when the packed items are known.
pub fn packed(
    profiles: &[ProfileFacts],
    items: &[ItemEntry],
    inherited: &[BaseItem],
) -> ProfileReport {
    let mut report = ProfileReport::default();
    for ProfileFacts { name, item } in profiles {
        let inherited = inherited.iter().any(|there| *item == *there.name);
        if !inherited && !items.iter().any(|packed| *item == *packed.name) {
            report.warnings.push(format!(
                "the profile {name} points to {item}, which is not among the items; it is restored \
                 only where that item exists already"
            ));
        }
        let (name, item) = (name.raw().to_owned(), item.raw().to_owned());
        report.profiles.push(Profile { name, generation: None, item });
    }
    report
}

/// Restores the profiles of a snapshot whose items are restored, if the options ask for it. The items in `skipped` were
/// not restored.
pub fn restore(options: &Restore, opened: &Opened, skipped: &[(String, String)]) -> ProfileReport {
    if !options.profiles {
        return ProfileReport::default();
    }
    let warn = |warning| ProfileReport { warnings: vec![warning], ..ProfileReport::default() };
    if opened.head.profiles.is_empty() {
        return warn("the snapshot has no profiles; save one with --profiles".into());
    }
    match Return::begin(options, opened, skipped) {
        Ok(mut all) => all.run(),
        Err(e) => warn(format!("no profile was restored: {}", in_one_line(e.as_ref()))),
    }
}

/// The restore of the profiles of a snapshot.
struct Return<'a> {
    options: &'a Restore,
    opened: &'a Opened,
    /// Items that were not restored, each with the reason.
    skipped: &'a [(String, String)],
    layout: Layout,
    person: Person,
    /// Connection that protects the items from collectors until their generations do. A daemon also creates
    /// the profile directory of each user who connects. Source: Guix `nix/nix-daemon/nix-daemon.cc`,
    /// `createUser`.
    daemon: Result<Client>,
}

impl<'a> Return<'a> {
    fn begin(
        options: &'a Restore,
        opened: &'a Opened,
        skipped: &'a [(String, String)],
    ) -> Result<Self> {
        let layout = Layout::new(StoreKind::Guix, &options.store.root)?;
        let person = person(&options.store.root)?;
        let daemon = match options.dry_run {
            true => Err(anyhow!("the daemon was not asked in a dry run")),
            false => Client::open(&layout.socket(), Instant::now() + options.store.daemon_timeout),
        };
        Ok(Return { options, opened, skipped, layout, person, daemon })
    }

    fn run(&mut self) -> ProfileReport {
        let mut report = ProfileReport::default();
        for name in PROFILES {
            let Some(saved) = self.opened.head.profiles.iter().find(|saved| saved.name == name)
            else {
                continue;
            };
            let led = match self.one(name, saved.item.raw()) {
                Ok(generation) => {
                    if generation.is_some() {
                        let (name, item) = (name.into(), saved.item.raw().to_owned());
                        report.profiles.push(Profile { name, generation, item });
                    }
                    self.lead_from_home(name)
                }
                Err(e) => Err(e.context(format!("did not restore the profile {name}"))),
            };
            report.warnings.extend(led.err().map(|e| in_one_line(e.as_ref())));
        }
        report
    }

    /// Returns the generation that was made, or would be made in a dry run; `None` if a generation leads to
    /// the item already.
    fn one(&mut self, name: &str, item: &str) -> Result<Option<u64>> {
        let item =
            ItemName::parse(item).with_context(|| format!("not a valid target: {item:?}"))?;
        if !self.is_there(&item)? {
            bail!("{item} was not restored");
        }
        let person = &self.person.name;
        let Some(profiles) = Profiles::open(&self.layout, person)? else {
            return match &self.daemon {
                _ if self.options.dry_run => Ok(Some(1)),
                Ok(_) => bail!("the daemon did not create a profile directory for {person}"),
                Err(e) => bail!(
                    anyhow!(
                        "{person} has no profile directory, and no daemon creates it ({})",
                        in_one_line(e.as_ref())
                    )
                    .hint("start the daemon and restore again")
                ),
            };
        };
        if self.options.dry_run { profiles.plan(name, &item) } else { profiles.add(name, &item) }
    }

    /// Creates the link from the user's home to a profile, if nothing exists there.
    fn lead_from_home(&self, profile: &str) -> Result<()> {
        let root = &self.options.store.root;
        let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        // These variables apply to this machine's root only, and under sudo they may belong to another user.
        let ours = root == Path::new("/") && std::env::var_os("SUDO_UID").is_none();
        let home = variable("HOME").filter(|_| ours).unwrap_or_else(|| self.person.home.clone());
        let Ok(below) = home.strip_prefix("/") else { return Ok(()) };
        if self.options.dry_run || !root.join(below).is_dir() {
            return Ok(());
        }
        let config = variable("XDG_CONFIG_HOME").filter(|_| ours);
        let link = match profile {
            "current-guix" => config.unwrap_or(home.join(".config")).join("guix/current"),
            _ => home.join(".guix-profile"),
        };
        make_shortcut(root, &link, &profile_path(&self.layout, &self.person.name, profile))
    }

    /// Whether an item is valid or, without a daemon, present.
    fn is_there(&mut self, item: &ItemName) -> Result<bool> {
        if self.skipped.iter().any(|(name, _)| name == item.as_str()) {
            return Ok(false);
        }
        match &mut self.daemon {
            Ok(daemon) => {
                let path = format!("{}/{item}", self.layout.store_dir);
                daemon.keep(&path).and_then(|()| daemon.is_valid(&path)).context("query the daemon")
            }
            Err(_) => {
                let packed = self.opened.index.holds(item.as_str());
                Ok(packed || self.layout.store().join(item.as_str()).exists())
            }
        }
    }
}

/// The user who runs this process. Guix itself uses the user's name, which the daemon reads from the same
/// table.
fn person(root: &Path) -> Result<Person> {
    let uid = getuid().as_raw();
    if let Some(person) = Person::find(root, uid)? {
        return Ok(person);
    }
    let name = std::env::var("USER").ok().filter(|name| is_plain_name(name));
    let name = name.with_context(|| {
        format!("there is no name for user {uid} in {}", root.join("etc/passwd").display())
    })?;
    Ok(Person { name, home: PathBuf::new() })
}

/// Prints what was done.
pub fn print(outcome: &Outcome) {
    for Profile { name, generation, item } in &outcome.profiles {
        report::status(match generation {
            None => format!("with the profile {name}: {item}"),
            Some(number) => {
                let verb = if outcome.dry_run { "would add" } else { "added" };
                format!("{verb} generation {number} of {name}: {item}")
            }
        });
    }
}
