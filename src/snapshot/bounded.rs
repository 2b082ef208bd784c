//! Lists of an index, which are refused while they are read if they are longer than any real one.

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// Frames of a snapshot at most, and items. A million items of a store take over 300 MiB in an index.
pub const LIST_LIMIT: usize = 1 << 20;

/// Reads a list of at most [`LIST_LIMIT`] values.
pub fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(List(PhantomData))
}

/// The same for a list that is optional; called where there is one.
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
