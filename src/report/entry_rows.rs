//! The contents of a backend in numbers: the data that `list` and `usage` print, and that pages are drawn
//! from. Fields may be added but never renamed: other programs read them.

use serde::Serialize;

/// One entry. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, Serialize)]
pub struct EntryRow {
    /// The backend's identifier: GitHub's number, or the name of a file.
    pub id: String,
    /// The key, with the generation if it has one.
    pub key: String,
    pub generation: Option<String>,
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// The layout of the entry.
    pub version: Option<String>,
    /// Kind of store, if it follows from the layout.
    pub store: Option<String>,
    pub system: Option<String>,
    /// In bytes.
    pub size: u64,
    /// Size as a fraction of the limit.
    pub share: f64,
    pub created: Option<String>,
    pub last_used: Option<String>,
    /// Seconds since it was made.
    pub age: Option<i64>,
    /// Seconds since it was last used.
    pub unused_for: Option<i64>,
    /// Whether storecache wrote it, judging by its name.
    pub ours: bool,
    /// The entry that it is a delta on, if that can be read.
    pub base: Option<String>,
    /// Digest of the contents, if they can be read.
    pub content: Option<String>,
    /// Why this version of storecache cannot use it.
    pub unreadable: Option<String>,
}

/// A number of entries, and their total size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Amount {
    pub entries: u64,
    pub bytes: u64,
    /// Size as a fraction of the limit.
    pub share: f64,
}

/// Size of a group of entries.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    pub name: String,
    #[serde(flatten)]
    pub amount: Amount,
    /// Seconds since the last use of any of them.
    pub unused_for: Option<i64>,
}

/// Entries with the same content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Copies {
    /// The newest first.
    pub keys: Vec<String>,
    pub ids: Vec<String>,
    /// Size in bytes of all but the first.
    pub bytes: u64,
    /// Only key and size were compared, because the contents cannot be read from here.
    pub guess: bool,
}

/// Forecast of the next eviction.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Eviction {
    /// Bytes that are assumed to be saved before.
    pub more: u64,
    /// Whether the backend evicts anything; if not, this is what GitHub would do.
    pub happens: bool,
    /// Days without a use after which an entry is evicted.
    pub idle_days: u32,
    pub idle: Vec<String>,
    pub idle_bytes: u64,
    /// Entries that are evicted because of the limit, the least recently used first.
    pub pushed_out: Vec<String>,
    pub pushed_out_bytes: u64,
    /// Bytes above the limit even after all evictions, because more than the limit is saved.
    pub above: u64,
}

/// Cost of keeping everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Bytes that are free of charge.
    pub included: u64,
    /// Bytes above that.
    pub above: u64,
    /// Price of a GiB per month, by the hourly peak.
    pub usd_per_gib_month: f64,
    pub usd_per_month: f64,
}

/// The use of space in a backend, and the entries that could be deleted.
#[derive(Debug, Clone, Serialize)]
pub struct Usage {
    pub backend: String,
    /// The time of this count.
    pub at: String,
    /// The limit in bytes.
    pub limit: u64,
    pub total: Amount,
    /// Entries that storecache wrote, judging by their names.
    pub ours: Amount,
    /// Groups by the stem of the key, the largest first.
    pub by_prefix: Vec<Part>,
    pub by_ref: Vec<Part>,
    /// The most recent first.
    pub by_age: Vec<Part>,
    pub by_last_use: Vec<Part>,
    pub duplicates: Vec<Copies>,
    /// Generations of a key and ref that are older than the newest.
    pub superseded: Amount,
    /// Entries of closed pull requests, written by any tool.
    pub closed: Amount,
    pub unreadable: Amount,
    /// Entries that `prune` would delete.
    pub prunable: Amount,
    pub eviction: Eviction,
    pub cost: Cost,
    pub entries: Vec<EntryRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
