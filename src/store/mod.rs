//! Package stores on disk: directories, database, locks, closures, GC roots, staging.
//!
//! This module contains everything that storecache knows about the files of Nix and Guix. It must not know
//! backends or keys, and it never starts or stops a daemon.

mod blame;
mod closure;
mod completeness;
mod culprit;
mod database;
mod filesystem_root;
mod foreign;
mod integrity;
mod item;
mod kind;
mod layout;
mod listing;
mod locks;
mod merge;
mod nar_hash;
mod owner;
mod person;
mod placement;
mod profiles;
mod recovery;
mod refuge;
mod roots;
mod row;
mod selection;
mod staging;
mod writable;

pub use blame::Blame;
pub use closure::{Choice, References, Skipped, choose};
pub use completeness::{Completeness, Contents, ItemPattern};
pub use culprit::{BadDatabase, of_snapshot};
pub use database::{Frozen, LiveDatabase, SnapshotDatabase, check_database, freeze};
pub use filesystem_root::{in_root, refuse_root_in_store};
pub use item::{ItemName, ValidItem};
pub use kind::{StoreKind, system, systems};
pub use layout::Layout;
pub use listing::{ListedItem, Listing, NarSize, SnapshotRows};
pub use locks::{
    Held, Holder, Lock, LockKind, LockMode, describe as describe_holders, held_by, lock, lock_open,
    make_lock_file,
};
pub use merge::{Merge, Rows};
pub use nar_hash::parse_sha256;
pub use owner::{Owner, strangers};
pub use person::{Person, is_plain_name, make_shortcut};
pub use placement::Placement;
pub use profiles::{PROFILES, Profiles, profile_item, profile_path};
pub use recovery::{clean_up, record_plan, undo};
pub use refuge::{Refuge, clean_refuges};
pub use roots::{Roots, live_roots};
pub use selection::{Candidate, beyond, closures_of};
pub use staging::{AbandonedStaging, Staging, aside, clean_stale, left_by_dead_runs};
pub use writable::{StaysReadOnly, is_read_only, make_writable};
