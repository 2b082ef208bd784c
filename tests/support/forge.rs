//! Snapshots that nobody should have made.
