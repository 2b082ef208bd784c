//! Every flag of every command, and how flags become options.

mod backend;
mod doctor;
mod examples;
mod help;
mod inventory;
mod key;
mod lint;
mod patience;
mod quarantine;
mod simulate;
mod suggest;
mod trust;

pub use backend::TOKENS;
pub use doctor::DoctorArgs;
pub use help::HelpArgs;
pub use inventory::{ListArgs, PruneArgs, UsageArgs};
pub use key::{KeyPart, KeyVerbArgs};
pub use lint::LintArgs;
pub use simulate::SimulateArgs;
pub use suggest::SuggestArgs;
pub use trust::SIGN_KEYS;

use backend::{BETWEEN_CHANGES, BackendArgs, Network, backend};
use quarantine::QuarantineArgs;

use crate::budget::Budget;
use crate::daemon::DaemonChoice;
use crate::options::{
    BackendOptions, Baseline, Delta, JobStatus, KeyOptions, Look, OutputOptions, Policy, Restore,
    Save, SavePolicy, StoreOptions, WorkflowMode,
};
use crate::report;
use crate::store::{ItemPattern, StoreKind};
use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use patience::PatienceArgs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use trust::{SignArgs, TrustArgs, TrustedKeysArgs};

/// Snapshot a Nix or Guix store, or any root-owned directories, into a plain zstd tarball and restore
/// it on the next run.
#[derive(Debug, Parser)]
#[command(name = "storecache", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = examples::text(""), mut_subcommands(examples::add))]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Save the store as a snapshot; the daemon keeps running
    Save(SaveArgs),
    /// Restore what is missing from the newest snapshot that fits
    Restore(RestoreArgs),
    /// Print the key and the prefixes that are tried after it
    Key(KeyVerbArgs),
    /// Show what a snapshot is and holds
    Inspect(InspectArgs),
    /// Check a snapshot to the last byte, without touching a store
    Verify(LookArgs),
    /// Look at the store, its database and its daemon, and say what to mend
    Doctor(DoctorArgs),
    /// List every entry of a backend
    List(ListArgs),
    /// Say what takes room in a backend, what of it could go, and what goes next
    Usage(UsageArgs),
    /// Say which entries can go, and delete them with --apply
    Prune(PruneArgs),
    /// Look for mistakes in workflows that make a cache useless
    Lint(LintArgs),
    /// Print help, a manual page, or completions for a shell
    Help(HelpArgs),
    /// A step of a job; its inputs and the job come from the environment
    #[command(hide = true)]
    Action(ActionArgs),
    /// The half that runs as root; speaks a protocol on its standard input
    #[command(hide = true)]
    Privileged(PrivilegedArgs),
}

#[derive(Debug, Args)]
pub struct SaveArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    patience: PatienceArgs,
    /// Do everything but write, and say what would be written
    #[arg(long)]
    dry_run: bool,
    /// Compression level of zstd
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
    /// Pack items together into large frames, and look for what repeats over all of each: smaller, but
    /// slower, and a restore that lacks some items only reads more
    #[arg(long)]
    long: bool,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Take along which items your Guix profiles lead to (guix pull, guix install)
    #[arg(long)]
    profiles: bool,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    sign: SignArgs,
    #[command(flatten)]
    trust: TrustArgs,
    /// What the restore of this job has left with --state
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Items that were valid before the restore, as --state tells
    #[arg(long, value_enum, default_value_t = Baseline::Exclude)]
    baseline: Baseline,
    /// Save only the closures of these items: paths, or names with or without the hash, with
    /// wildcards; repeatable
    #[arg(long, value_name = "ITEM")]
    roots: Vec<String>,
    /// Leave behind what was used least recently, so that the rest is at most this large (NAR size),
    /// as in 500M or 8G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<u64>,
    /// Save all items, also those that a snapshot holds which this one could be a delta on
    #[arg(long)]
    full: bool,
    /// Save all items when those that are new are more than this part of the base, by size
    #[arg(long, value_name = "SHARE", default_value_t = 0.4, value_parser = share)]
    rebase_at: f64,
    /// Whether an entry of dir: is on the disk before it is there, so that not even a power cut leaves one
    /// that is cut short
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Sync::Auto)]
    sync: Sync,
    /// Delete older entries of the same key after the save, but for the newest N and what they need
    #[arg(long, value_name = "N")]
    keep: Option<NonZeroUsize>,
    #[command(flatten)]
    quarantine: QuarantineArgs,
    /// Append a summary of the job, in Markdown
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct PolicyArgs {
    /// When to save
    #[arg(long, value_enum, default_value_t = Policy::Always)]
    policy: Policy,
    /// With --policy auto, how much the store has to have grown since the newest entry of the key,
    /// as in 500K or 10M
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = size)]
    min_growth: u64,
    /// How the job has ended, for --policy auto
    #[arg(long, value_enum)]
    job_status: Option<JobStatus>,
    /// With --policy auto, save although the job failed
    #[arg(long)]
    save_on_failure: bool,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    patience: PatienceArgs,
    /// Do everything but write, and say what would be restored
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Look up and report what there is, and restore nothing
    #[arg(long)]
    lookup_only: bool,
    /// What to do with a plain directory that holds something else
    #[arg(long, value_enum, default_value_t = Mode::Add)]
    mode: Mode,
    /// Whether all of it is on the disk before it becomes valid, so that not even a power cut makes the
    /// database claim what is not there
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Sync::Auto)]
    sync: Sync,
    #[command(flatten)]
    trust: TrustArgs,
    /// What is checked before the run counts as done: that every row has its item on the disk and the daemon
    /// calls it valid, or before that also that the content of each has the hash that its row says
    #[arg(long, value_enum, default_value_t = Verify::Rows)]
    verify: Verify,
    /// Bring your Guix profiles back too, as new generations
    #[arg(long)]
    profiles: bool,
    /// Say whether the closure of this item is complete afterwards: its path, or its name with or
    /// without the hash, with wildcards; repeatable
    #[arg(long, value_name = "ITEM")]
    require: Vec<String>,
    /// Leave here what the save of this job wants to know
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    #[command(flatten)]
    quarantine: QuarantineArgs,
    /// Append a summary, in Markdown
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Exit with 3 when nothing was found, or when something required is not complete
    #[arg(long)]
    fail_on_miss: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Leave it alone
    Add,
    /// Swap it by rename
    Replace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Verify {
    /// Rows against the disk
    Rows,
    /// Content against rows too
    Content,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sync {
    /// Unless the machine is GitHub's own and ends with the job
    Auto,
    Always,
    /// Leave the moment to the kernel
    Never,
}

impl Sync {
    /// Source: docs.github.com, "Default environment variables".
    fn wanted(self) -> bool {
        let ends_with_the_job =
            || std::env::var_os("RUNNER_ENVIRONMENT").is_some_and(|kind| kind == "github-hosted");
        match self {
            Sync::Auto => !ends_with_the_job(),
            Sync::Always => true,
            Sync::Never => false,
        }
    }
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    #[command(flatten)]
    look: LookArgs,
    /// List the items with their sizes
    #[arg(long)]
    items: bool,
    /// Show which item brings how much, and what was restored and never read
    #[arg(long)]
    blame: bool,
    /// Write that as a page of HTML, with a map of all items
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct LookArgs {
    /// The snapshot file; looked up by key when not given
    file: Option<PathBuf>,
    #[command(flatten)]
    trusted: TrustedKeysArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct ActionArgs {
    #[command(subcommand)]
    pub part: ActionPart,
}

#[derive(Debug, Subcommand)]
pub enum ActionPart {
    /// Where the step stands in the job
    Main,
    /// After all other steps of the job
    Post,
    /// Print the table of inputs
    Inputs(TableArgs),
    /// Print the table of outputs
    Outputs(TableArgs),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct TableArgs {
    /// As the README has it
    #[arg(long)]
    pub markdown: bool,
    /// As action.yml has it
    #[arg(long)]
    pub yaml: bool,
}

#[derive(Debug, Args)]
pub struct PrivilegedArgs {
    /// Start the daemon again when told to, or when the root half dies
    #[arg(long, conflicts_with = "everywhere")]
    pub guardian: bool,
    /// Use root's rights wherever the other half points, and not only on stores that root has put in
    /// place: for who may become root anyway
    #[arg(long)]
    pub everywhere: bool,
}

#[derive(Debug, Args)]
struct CommonArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    backends: BackendArgs,
    /// Threads that compress or unpack [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Debug, Args)]
struct MemoryArgs {
    /// Memory that all processes of the run may take, as in 192M [default: 256M with up to two threads,
    /// 512M with sixteen]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
}

impl MemoryArgs {
    fn on(&self, threads: usize) -> Budget {
        Budget::new(self.memory, threads)
    }
}

#[derive(Debug, Args)]
struct StoreArgs {
    /// Kind of store
    #[arg(long, value_enum, default_value_t = Store::Auto)]
    store: Store,
    /// Directory of a plain store; repeatable
    #[arg(long = "path", value_name = "DIR")]
    paths: Vec<PathBuf>,
    /// File-system root that the store belongs to, as of a chroot
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Who runs the daemon
    #[arg(long, value_enum, default_value_t = Daemon::Auto)]
    daemon: Daemon,
    /// Shell command that stops the daemon, for --daemon command
    #[arg(long, value_name = "COMMAND")]
    daemon_stop: Option<String>,
    /// Shell command that starts the daemon, for --daemon command
    #[arg(long, value_name = "COMMAND")]
    daemon_start: Option<String>,
    /// Seconds to wait for locks that somebody else holds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    lock_timeout: u64,
    /// Seconds to wait until the daemon has stopped, or answers again
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    daemon_timeout: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Store {
    Auto,
    Guix,
    Nix,
    Plain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Daemon {
    /// Whoever runs the process that listens on the daemon's socket
    Auto,
    /// Units of systemd
    Systemd,
    /// A service of the shepherd of SHEPHERD_SOCKET, of the user, or of the system
    Shepherd,
    /// A process that nobody else starts again
    Process,
    /// The commands of --daemon-stop and --daemon-start
    Command,
    /// Leave it alone
    None,
}

#[derive(Debug, Args)]
struct KeyArgs {
    /// The exact key, instead of one made from the flags below
    #[arg(long)]
    key: Option<String>,
    /// Prefix to try after the key; repeatable
    #[arg(long = "restore-key", value_name = "PREFIX")]
    restore_keys: Vec<String>,
    /// First part of the key
    #[arg(long, value_name = "TEXT", default_value = KeyOptions::PREFIX)]
    key_prefix: String,
    /// Version of the package manager, instead of asking it
    // Not the program's own version, which is asked for before the verb.
    #[arg(long = "version", value_name = "VERSION", id = "package_manager_version")]
    version: Option<String>,
    /// Files whose content goes into the key; repeatable
    #[arg(long, value_name = "GLOB")]
    hash_files: Vec<String>,
    /// Workflow file that goes into the key
    #[arg(long, value_name = "FILE")]
    workflow: Option<PathBuf>,
    /// How the workflow goes into the key
    #[arg(long, value_enum, default_value_t = WorkflowMode::Semantic)]
    workflow_mode: WorkflowMode,
    /// Job of the workflow that the key is for [default: the one that keeps a store]
    #[arg(long, value_name = "NAME")]
    workflow_job: Option<String>,
    /// Step of the workflow that matters, by its id, name or action, with wildcards; repeatable
    /// [default: all of the job]
    #[arg(long, value_name = "STEP")]
    workflow_steps: Vec<String>,
    /// Action whose version does not count, with wildcards, besides actions/checkout, actions/cache and
    /// actions/upload-artifact; with ! in front one whose version does; repeatable
    #[arg(long, value_name = "ACTION")]
    ignore_pins: Vec<String>,
}

#[derive(Debug, Args)]
struct OutputArgs {
    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

impl SaveArgs {
    pub fn options(self) -> Result<Save> {
        let common = self.common.options()?;
        check_profiles(self.profiles, common.store.kind)?;
        let limited = !self.roots.is_empty() || self.max_size.is_some();
        if limited && common.store.kind == Some(StoreKind::Plain) {
            bail!("--roots and --max-size are for stores with items, not for --store plain");
        }
        self.roots.iter().try_for_each(|pattern| ItemPattern::parse(pattern).map(drop))?;
        let sync = self.sync.wanted();
        let backends = common.backends.into_iter().map(|backend| match backend {
            BackendOptions::Directory { path, .. } => BackendOptions::Directory { path, sync },
            other => other,
        });
        Ok(Save {
            store: common.store,
            key: common.key,
            backends: backends.collect(),
            output: common.output,
            clocks: self.patience.clocks(),
            dry_run: self.dry_run,
            level: self.level,
            long: self.long,
            memory: self.memory.on(common.threads).saving(self.level, self.long)?,
            profiles: self.profiles,
            state: self.state,
            baseline: self.baseline,
            roots: self.roots,
            max_size: self.max_size,
            policy: self.policy.options()?,
            signing: self.sign.signing(self.trust.options()?)?,
            delta: (!self.full).then_some(Delta { rebase_at: self.rebase_at }),
            keep: self.keep,
            quarantine: self.quarantine.options(),
            summary: self.summary,
        })
    }
}

impl PolicyArgs {
    fn options(self) -> Result<SavePolicy> {
        if self.save_on_failure && self.policy != Policy::Auto {
            bail!("--save-on-failure is for --policy auto");
        }
        Ok(SavePolicy {
            policy: self.policy,
            min_growth: self.min_growth,
            job_status: self.job_status,
            save_on_failure: self.save_on_failure,
        })
    }
}

impl RestoreArgs {
    pub fn options(self) -> Result<Restore> {
        let common = self.common.options()?;
        let replace = self.mode == Mode::Replace;
        if replace && common.store.kind != Some(StoreKind::Plain) {
            bail!("--mode replace is for --store plain");
        }
        if !self.require.is_empty() && common.store.kind == Some(StoreKind::Plain) {
            bail!("--require is for stores with items, not for --store plain");
        }
        self.require.iter().try_for_each(|pattern| ItemPattern::parse(pattern).map(drop))?;
        let verify_content = self.verify == Verify::Content;
        if verify_content && common.store.kind == Some(StoreKind::Plain) {
            bail!("--verify content is for stores with a database, not for --store plain");
        }
        check_profiles(self.profiles, common.store.kind)?;
        Ok(Restore {
            store: common.store,
            key: common.key,
            backends: common.backends,
            output: common.output,
            clocks: self.patience.clocks(),
            dry_run: self.dry_run,
            memory: self.memory.on(common.threads).restoring()?,
            lookup_only: self.lookup_only,
            replace,
            trust: self.trust.options()?,
            verify_content,
            sync: self.sync.wanted(),
            require: self.require,
            profiles: self.profiles,
            state: self.state,
            quarantine: self.quarantine.options(),
            summary: self.summary,
            fail_on_miss: self.fail_on_miss,
        })
    }
}

impl InspectArgs {
    pub fn options(self) -> Result<Look> {
        let look = self.look.options()?;
        Ok(Look { items: self.items, blame: self.blame, html: self.html, ..look })
    }
}

impl LookArgs {
    pub fn options(self) -> Result<Look> {
        // A plain store is looked up by its key, not by its directories.
        let common = self.common.options_with(StoreArgs::options_without_paths)?;
        Ok(Look {
            file: self.file,
            store: common.store,
            key: common.key,
            backends: common.backends,
            output: common.output,
            items: false,
            blame: false,
            html: None,
            trust: self.trusted.trust()?,
            threads: common.threads,
        })
    }
}

struct Common {
    store: StoreOptions,
    key: KeyOptions,
    backends: Vec<BackendOptions>,
    output: OutputOptions,
    threads: usize,
}

impl CommonArgs {
    fn options(self) -> Result<Common> {
        self.options_with(StoreArgs::options)
    }

    fn options_with(self, store: fn(StoreArgs) -> Result<StoreOptions>) -> Result<Common> {
        let processors = || std::thread::available_parallelism().map_or(1, Into::into);
        Ok(Common {
            store: store(self.store)?,
            key: self.key.options()?,
            backends: self.backends.options()?,
            output: self.output.options(),
            threads: self.threads.unwrap_or_else(processors).clamp(1, 256),
        })
    }
}

impl StoreArgs {
    fn options(self) -> Result<StoreOptions> {
        if self.store == Store::Plain && self.paths.is_empty() {
            bail!("--store plain needs --path DIR, once for each directory");
        }
        self.options_without_paths()
    }

    fn options_without_paths(self) -> Result<StoreOptions> {
        if self.store != Store::Plain && !self.paths.is_empty() {
            bail!("--path is for --store plain");
        }
        let kind = match self.store {
            Store::Auto => None,
            Store::Guix => Some(StoreKind::Guix),
            Store::Nix => Some(StoreKind::Nix),
            Store::Plain => Some(StoreKind::Plain),
        };
        let daemon = match (self.daemon, self.daemon_stop, self.daemon_start) {
            (Daemon::Command, Some(stop), Some(start)) => DaemonChoice::Command { stop, start },
            (Daemon::Command, ..) => {
                bail!("--daemon command needs --daemon-stop and --daemon-start")
            }
            (_, Some(_), _) | (_, _, Some(_)) => {
                bail!("--daemon-stop and --daemon-start are for --daemon command")
            }
            (Daemon::Auto, ..) => DaemonChoice::Auto,
            (Daemon::Systemd, ..) => DaemonChoice::Systemd,
            (Daemon::Process, ..) => DaemonChoice::Process,
            (Daemon::None, ..) => DaemonChoice::None,
            (Daemon::Shepherd, ..) => DaemonChoice::Shepherd,
        };
        Ok(StoreOptions {
            kind,
            root: absolute(&self.root)?,
            paths: distinct(self.paths.iter().map(|path| absolute(path)).collect::<Result<_>>()?)?,
            daemon,
            shepherds: shepherds(),
            lock_patience: Duration::from_secs(self.lock_timeout),
            daemon_patience: Duration::from_secs(self.daemon_timeout),
        })
    }
}

impl KeyArgs {
    fn options(self) -> Result<KeyOptions> {
        let keys = self.key.iter().chain(&self.restore_keys).chain([&self.key_prefix]);
        for key in keys {
            // The cache service of GitHub allows no more, and entries move between backends.
            if key.is_empty() || key.contains(',') || key.encode_utf16().count() > 512 {
                bail!("the key {key:?} is empty, has a comma, or is longer than 512 characters");
            }
        }
        Ok(KeyOptions {
            key: self.key,
            restore_keys: self.restore_keys,
            prefix: self.key_prefix,
            version: self.version,
            hash_files: self.hash_files,
            workflow: self.workflow,
            workflow_mode: self.workflow_mode,
            workflow_job: self.workflow_job,
            workflow_steps: self.workflow_steps,
            ignore_pins: self.ignore_pins,
            in_job: false,
        })
    }
}

impl OutputArgs {
    fn options(self) -> OutputOptions {
        OutputOptions { json: self.json, quiet: self.quiet, in_job: false }
    }
}

/// A part of something, more than nothing.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share: &f64| share.is_finite() && *share >= 0.0);
    share.ok_or_else(|| "a share is a number such as 0.4".into())
}

fn size(text: &str) -> Result<u64, String> {
    report::parse_bytes(text).ok_or_else(|| "a size is a number with K, M, G or T behind it".into())
}

/// Where nobody says which kind of store it is, that is seen later.
fn check_profiles(wanted: bool, kind: Option<StoreKind>) -> Result<()> {
    match kind {
        Some(StoreKind::Nix | StoreKind::Plain) if wanted => {
            bail!("--profiles is for --store guix")
        }
        _ => Ok(()),
    }
}

/// Where the user's own shepherds may listen (`shepherd/support.scm`).
fn shepherds() -> Vec<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let runtime = set("XDG_RUNTIME_DIR").map(|directory| directory.join("shepherd/socket"));
    let sockets = [set("SHEPHERD_SOCKET"), runtime].into_iter().flatten();
    sockets.filter_map(|socket| absolute(&socket).ok()).collect()
}

/// Sorted, each once, and none inside another: each is swapped as a whole.
fn distinct(mut paths: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    paths.sort();
    paths.dedup();
    if let Some(pair) = paths.windows(2).find(|pair| pair[1].starts_with(&pair[0])) {
        bail!("--path {} is inside --path {}", pair[1].display(), pair[0].display());
    }
    Ok(paths)
}

/// An absolute path without dots, whether it exists or not.
fn absolute(path: &Path) -> Result<PathBuf> {
    use std::path::Component;
    let full = std::path::absolute(path).with_context(|| path.display().to_string())?;
    if full.to_str().is_none() {
        bail!("the path {} is not UTF-8, and a snapshot could not name it", full.display());
    }
    let mut clean = PathBuf::new();
    for component in full.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn paths_become_absolute_without_dots() {
        assert_eq!(absolute(Path::new("/a/./b/../c")).unwrap(), Path::new("/a/c"));
        assert!(absolute(Path::new("a")).unwrap().is_absolute());
    }
}
