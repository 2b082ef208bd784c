//! All rules by name, with the texts for `--format sarif`.

/// A kind of mistake.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// One or two words, which never change.
    pub name: &'static str,
    /// Short description of the mistake.
    pub title: &'static str,
    /// Why it matters, and what to do.
    pub help: &'static str,
}

macro_rules! rules {
    ($($constant:ident $name:literal $title:literal $help:literal)*) => {
        $(pub const $constant: &str = $name;)*

        /// All rules.
        pub const RULES: &[Rule] =
            &[$(Rule { name: $constant, title: $title, help: $help }),*];
    };
}

rules! {
    UNREADABLE "unreadable" "The file is not a workflow"
        "GitHub does not run a file that is not valid YAML, or that has no `on` or no `jobs`."
    GUARD "guard" "A condition uses an output that is never set"
        "actions/cache sets only `cache-hit`, so its other outputs are always empty."
    EMPTY_HASH "empty-hash" "`hashFiles` matches no file"
        "The hash is then empty and the key never changes, so the store is saved once and never again."
    UNSEEDED "unseeded" "Nothing fills the cache of the default branch"
        "An entry belongs to the ref that saved it. Only the entries of the default branch are available to all other branches."
    READ_ONLY_TOKEN "read-only-token" "The step can never save"
        "Tokens of events that anyone can trigger can only read the cache. A refused save is only a warning in the log."
    KEY_SYSTEM "key-system" "The key does not name the system"
        "The cache distinguishes operating systems and architectures only if the key names them."
    KEY_VERSION "key-version" "The key does not name the version of Nix or Guix"
        "An older version cannot use the database of a newer one."
    FIXED_KEY "fixed-key" "The key never changes"
        "Entries cannot be changed. A key that never changes is saved once, and later changes of the store are not saved."
    VOLATILE_KEY "volatile-key" "The key differs in each run"
        "No run finds the entry of its key, and each run saves one more store, until older entries are evicted."
    KEY_LIMITS "key-limits" "The cache service refuses the key"
        "A key has at most 512 characters and no comma, and a step at most 10 keys."
    MATRIX_KEY "matrix-key" "Matrix jobs save under the same key"
        "Only the first job to finish saves its store, and the builds of the others are lost."
    PATH_VERSION "path-version" "Steps with the same key have different paths"
        "The list of paths and its order are part of the version of an entry, so these steps never find each other's entries."
    STORE_PATH "store-path" "A store is cached as plain files of another user"
        "actions/cache reads and writes as the user of the runner. It cannot write a store that belongs to root, and does not handle its database."
    SUCCESS_ONLY "success-only" "The store is saved only when the job succeeds"
        "A failed test then discards a good store."
    TAR "tar" "A live store is packed or unpacked by hand"
        "A database that is copied during a write is inconsistent; replacing a database loses rows; a store that is mounted read-only cannot be written."
    DATABASE "database" "The database of a live store is copied"
        "Some rows may be only in its log. An old log that is left beside a new database silently undoes it."
    NO_ROOTS "no-roots" "The archive has no roots"
        "Without profiles and roots, the next garbage collection deletes the restored items."
    DAEMON_STOPPED "daemon-stopped" "The daemon may stay stopped"
        "The shell of a step exits at the first command that fails, and then nothing starts the daemon again."
    OWNERS "owners" "The owner of a store is changed"
        "Store items belong to root or to the daemon, and other users cannot change them. The daemon refuses a store of another owner."
    STAGING "staging" "A store is copied to another directory"
        "A second copy takes as much space as the store, and time to copy it."
    CONTAINER "container" "The container has its own store"
        "The cached store of the host is not the store in the container, unless it is mounted there."
    UNPINNED "unpinned" "A version is not pinned"
        "The installed version changes while the workflow, and so the key, does not."
    UNKNOWN_INPUT "unknown-input" "The step has no such input"
        "The runner ignores it with a warning, so it has no effect."
    PERMISSIONS "permissions" "The token may not delete entries"
        "`keep` deletes older entries, for which the job needs `actions: write`."
    BEFORE_CHECKOUT "before-checkout" "The step comes before the checkout"
        "The workflow and the files that go into the key do not exist yet."
}
