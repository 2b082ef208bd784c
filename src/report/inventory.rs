//! What a backend holds, in numbers: the data that `list` and `usage` print, and that a page is drawn
//! from. Fields may be added, never renamed: other programs read this.

use serde::Serialize;

/// One entry. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, Serialize)]
pub struct EntryRow {
    /// What the backend knows it by: GitHub's number, or the name of a file.
    pub id: String,
    /// With the generation, if it has one.
    pub key: String,
    pub generation: Option<String>,
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// Its layout.
    pub version: Option<String>,
    /// Kind of store, where the layout tells.
    pub store: Option<String>,
    pub system: Option<String>,
    /// In bytes.
    pub size: u64,
    /// Of the budget, 1 being all of it.
    pub share: f64,
    pub created: Option<String>,
    pub last_used: Option<String>,
    /// Seconds since it was made.
    pub age: Option<i64>,
    /// Seconds since it was last used.
    pub unused_for: Option<i64>,
    /// Whether a storecache has named it.
    pub ours: bool,
    /// The entry that it is a delta on, where that can be read.
    pub base: Option<String>,
    /// Digest of what it holds, where that can be read.
    pub content: Option<String>,
    /// Why this storecache cannot use it.
    pub unreadable: Option<String>,
}

/// So many entries, and their size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Amount {
    pub entries: u64,
    pub bytes: u64,
    /// Of the budget.
    pub share: f64,
}

/// What entries with something in common take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    pub name: String,
    #[serde(flatten)]
    pub amount: Amount,
    /// Seconds since the last use of any.
    pub unused_for: Option<i64>,
}

/// Entries that hold the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Copies {
    /// The newest first.
    pub keys: Vec<String>,
    pub ids: Vec<String>,
    /// Of all but the first.
    pub bytes: u64,
    /// Only key and size were compared: what they hold cannot be read from here.
    pub guess: bool,
}

/// What goes at the next eviction.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Eviction {
    /// Bytes that are saved before.
    pub more: u64,
    /// Whether the backend evicts anything; else this is what GitHub would do.
    pub happens: bool,
    /// Days without a use after which an entry goes.
    pub idle_days: u32,
    pub idle: Vec<String>,
    pub idle_bytes: u64,
    /// What is pushed out, the least recently used first.
    pub pushed_out: Vec<String>,
    pub pushed_out_bytes: u64,
    /// Bytes above the limit that are left even so: what is saved is larger than that itself.
    pub above: u64,
}

/// What it costs to keep everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Bytes that are free of charge.
    pub included: u64,
    /// Bytes above that.
    pub above: u64,
    /// For a GiB and month, by the hourly peak.
    pub usd_per_gib_month: f64,
    pub usd_per_month: f64,
}

/// What takes how much room, and what of it could go.
#[derive(Debug, Clone, Serialize)]
pub struct Usage {
    pub backend: String,
    /// When this was counted.
    pub at: String,
    /// The budget in bytes.
    pub limit: u64,
    pub total: Amount,
    /// What a storecache has named.
    pub ours: Amount,
    /// By what keys have in common, the largest first.
    pub by_prefix: Vec<Part>,
    pub by_ref: Vec<Part>,
    /// The youngest first.
    pub by_age: Vec<Part>,
    pub by_last_use: Vec<Part>,
    pub duplicates: Vec<Copies>,
    /// Older generations of a key and ref than the newest.
    pub superseded: Amount,
    /// Entries of closed pull requests, of any tool.
    pub closed: Amount,
    pub unreadable: Amount,
    /// What `prune` would delete.
    pub prunable: Amount,
    pub eviction: Eviction,
    pub cost: Cost,
    pub entries: Vec<EntryRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
