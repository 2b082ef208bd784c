//! Package stores on disk: directories, database, locks, closures, GC roots, staging.
//!
//! - `store_kind`, `layout`: the kinds of store, their directories and files
//! - `frozen_database`, `merge_database`, `untrusted_db`, `row_validation`: the database of a store and that of a snapshot
//! - `closure`, `selection`, `completeness`: items and their references
//! - `staging`, `install_items`, `gc_roots`, `recovery`: how items are placed, protected and removed again
//! - `locks`, `remount`, `owner`, `profiles`: everything else that the package managers share with us
//!
//! This crate contains everything that storecache knows about the files of Nix and Guix. It must not know
//! backends or keys, and it never starts or stops a daemon.

#![deny(clippy::disallowed_macros, clippy::disallowed_methods)]

mod account;
mod closure;
mod completeness;
mod db_error;
mod filesystem_root;
mod frozen_database;
mod gc_roots;
mod index_check;
mod install_items;
mod integrity;
mod item;
mod layout;
mod locks;
mod merge_database;
mod nar_hash;
mod owner;
mod profiles;
mod recovery;
mod remount;
mod row_validation;
mod selection;
mod staging;
mod store_kind;
mod temp_db;
mod untrusted_db;

pub use account::{Person, is_plain_name, make_shortcut};
pub use closure::{References, RestoreSelection, Skipped, choose};
pub use completeness::{Completeness, Contents, ItemPattern};
pub use db_error::{BadDatabase, of_snapshot};
pub use filesystem_root::{in_root, refuse_root_in_store};
pub use frozen_database::{Frozen, LiveDatabase, SnapshotDatabase, check_database, freeze};
pub use gc_roots::{Roots, live_roots};
pub use index_check::{ListedItem, Listing, NarSize, SnapshotRows};
pub use install_items::Placement;
pub use item::{ItemName, ValidItem};
pub use layout::Layout;
pub use locks::{
    Holder, Lock, LockKind, LockMode, LockTimeout, describe as describe_holders, held_by, lock,
    lock_open, make_lock_file,
};
pub use merge_database::{Merge, Rows};
pub use nar_hash::parse_sha256;
pub use owner::{Owner, strangers};
pub use profiles::{PROFILES, Profiles, profile_item, profile_path};
pub use recovery::{clean_up, record_plan, undo};
pub use remount::{StaysReadOnly, is_read_only, make_writable};
pub use selection::{Candidate, beyond, closures_of};
pub use staging::{AbandonedStaging, Staging, aside, clean_stale, left_by_dead_runs};
pub use store_kind::{StoreKind, system, systems};
pub use temp_db::{TempDb, clean_refuges};
