//! Deserializing the lists of an index. A list that is longer than any real one is refused while it is read.

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// Maximum number of frames of a snapshot, and of items. In an index, a million items of a store take over 300
/// MiB.
pub const LIST_LIMIT: usize = 1 << 20;

/// Reads a list of at most [`LIST_LIMIT`] values.
pub fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(List(PhantomData))
}

/// As [`list`], for an optional list. Called only if the list is present.
pub fn some_list<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    list(deserializer).map(Some)
}

struct List<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {LIST_LIMIT} values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = values.next_element()? {
            if list.len() == LIST_LIMIT {
                return Err(A::Error::custom(format!("a list of over {LIST_LIMIT} values")));
            }
            list.push(value);
        }
        Ok(list)
    }
}
