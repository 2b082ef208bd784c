//! All rules by name, with the texts for `--format sarif` and the documentation.

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

        /// All rules, in the order of the documentation.
        pub const RULES: &[Rule] =
            &[$(Rule { name: $constant, title: $title, help: $help }),*];
    };
}

rules! {
    UNREADABLE "unreadable" "The file is no workflow"
        "GitHub does not run a file that is no YAML, or that has no `on` and no `jobs`."
    GUARD "guard" "A condition asks for an output that is never set"
        "actions/cache sets `cache-hit` only; what asks for another output of it never happens."
    EMPTY_HASH "empty-hash" "`hashFiles` matches no file"
        "The hash is empty then, the key is the same for ever, and a store is saved once and never again."
    UNSEEDED "unseeded" "Nothing fills the cache of the default branch"
        "An entry belongs to the ref that saved it. Only those of the default branch are for all others."
    READ_ONLY "read-only-token" "The step can never save"
        "Tokens of events that anybody can trigger may only read the cache. A refused save is one warning in the log."
    KEY_SYSTEM "key-system" "The key does not name the system"
        "A cache entry is not told apart by operating system and architecture unless its key does so."
    KEY_VERSION "key-version" "The key does not name the version of Nix or Guix"
        "The database of a newer version is of no use to an older one."
    FIXED_KEY "fixed-key" "The key never changes"
        "Entries cannot be changed. A key that is always the same is saved once, and what comes later never is."
    VOLATILE_KEY "volatile-key" "The key is another one in each run"
        "No run finds the entry of its key, and each run saves one more store, until older entries are evicted."
    KEY_LIMITS "key-limits" "The cache service refuses the key"
        "A key has at most 512 characters and no comma, and a step at most 10 keys."
    MATRIX_KEY "matrix-key" "Jobs of a matrix save under one key"
        "The first job that ends saves its store, and what the others have built is lost."
    PATH_VERSION "path-version" "Steps with one key have different paths"
        "The list of paths, with its order, is part of the version of an entry: these steps never find each other's entries."
    STORE_PATH "store-path" "A store is cached as plain files of another user"
        "actions/cache reads and writes as the user of the runner. It cannot write a store that belongs to root, and knows nothing of its database."
    NOT_SAVED_ON_FAILURE "success-only" "The store is saved when the job succeeds only"
        "A failed test then throws away a store that was good."
    TAR "tar" "A live store is packed or unpacked by hand"
        "A database that is copied while it is written to is torn; one that is put in the place of another loses rows; a store that is mounted read-only cannot be written."
    DATABASE "database" "The database of a live store is copied"
        "Rows may be in its log alone. A log that is left beside a new database undoes it silently."
    NO_ROOTS "no-roots" "The archive has no roots"
        "Without profiles and roots the next collection of garbage deletes what was restored."
    DAEMON_STOPPED "daemon-stopped" "The daemon may stay stopped"
        "A shell of a step ends at the first command that fails, and then nothing starts the daemon again."
    OWNERS "owners" "The owner of a store is changed"
        "Items of a store belong to root or to the daemon, and cannot be changed by others. The daemon refuses a store of another owner."
    STAGING "staging" "A store is copied to another directory"
        "A second copy takes the time and the disk of a whole store."
    CONTAINER "container" "The store in a container is another one"
        "What is cached on the host is not the store that the container has, unless that is mounted."
    UNPINNED "unpinned" "A version is not pinned"
        "What is installed changes without the workflow, and so without the key."
    UNKNOWN_INPUT "unknown-input" "The step has no such input"
        "The runner passes it over with a warning, so it does nothing."
    PERMISSIONS "permissions" "The token may not delete entries"
        "`keep` deletes older entries, for which the job needs `actions: write`."
    BEFORE_CHECKOUT "before-checkout" "The step comes before the checkout"
        "The workflow and the files that go into the key are not there yet."
}
