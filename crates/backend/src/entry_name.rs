//! Names of entries: key, dot, generation.

use anyhow::{Result, bail};
use jiff::civil::{DateTime, date};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::fmt;

/// The time when a save began its entry, in a form that sorts by time: `20261122T095523.123456Z`, UTC. If the clock
/// was set back, the generation is later than the clock, because the generations of a key only go forward.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(String);

impl Generation {
    /// Returns the current time, but never a time before the year 2000. A clock that was never set returns a time in
    /// the last century, and lookups do not search for entries of that age.
    fn now() -> Self {
        let first = date(2000, 1, 1).at(0, 0, 0, 0);
        let first = TimeZone::UTC.to_timestamp(first).unwrap_or_default();
        Self::at(Timestamp::now().max(first))
    }

    /// Returns the next generation of a key that has the generations `known`.
    fn after<'a>(known: impl Iterator<Item = &'a Generation>) -> Self {
        let newest = known.max().filter(|newest| **newest >= Self::now());
        newest.map_or_else(Self::now, Self::next)
    }

    /// Returns the generation that follows this one: one microsecond later, or one higher if the digits are not a
    /// valid time.
    fn next(&self) -> Self {
        let later = |time: Timestamp| time.checked_add(SignedDuration::from_micros(1)).ok();
        if let Some(next) = self.time().and_then(later).map(Self::at).filter(|next| next > self) {
            return next;
        }
        let mut text = self.0.clone().into_bytes();
        for digit in text.iter_mut().rev().filter(|byte| byte.is_ascii_digit()) {
            if *digit != b'9' {
                *digit += 1;
                break;
            }
            *digit = b'0';
        }
        Generation(String::from_utf8_lossy(&text).into_owned())
    }

    fn at(time: Timestamp) -> Self {
        Generation(time.strftime("%Y%m%dT%H%M%S.%6fZ").to_string())
    }

    /// Returns the time, or `None` if the digits are not a valid time.
    pub fn time(&self) -> Option<Timestamp> {
        let time = DateTime::strptime("%Y%m%dT%H%M%S.%fZ", &self.0).ok()?;
        TimeZone::UTC.to_timestamp(time).ok()
    }

    fn parse(text: &str) -> Option<Self> {
        let shape = "00000000T000000.000000Z";
        let fits = text.len() == shape.len()
            && text.bytes().zip(shape.bytes()).all(|(byte, wanted)| match wanted {
                b'0' => byte.is_ascii_digit(),
                other => byte == other,
            });
        fits.then(|| Generation(text.to_owned()))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Key and generation of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EntryName {
    pub key: String,
    pub generation: Generation,
}

impl EntryName {
    /// Returns the name for the next entry of `key`, later than all entries of that key in `known`.
    pub fn after(key: &str, known: &[EntryName]) -> Self {
        let known = known.iter().filter(|name| name.key == key);
        EntryName {
            key: key.to_owned(),
            generation: Generation::after(known.map(|it| &it.generation)),
        }
    }

    pub fn new(key: &str) -> Self {
        Self::after(key, &[])
    }

    /// Parses the output of [`fmt::Display`].
    pub fn parse(text: &str) -> Option<Self> {
        // The generation contains a dot.
        let (rest, fraction) = text.rsplit_once('.')?;
        let (key, seconds) = rest.rsplit_once('.')?;
        let generation = Generation::parse(&format!("{seconds}.{fraction}"))?;
        (!key.is_empty()).then(|| EntryName { key: key.to_owned(), generation })
    }

    /// Returns the name as a file name: bytes that a file name cannot hold, and `%`, become `%XX`.
    pub fn to_file_name(&self) -> Result<String> {
        let name = escaped(&self.to_string());
        // NAME_MAX is 255 on Linux; the rest is left for the extension.
        if name.len() > 240 || name.starts_with('.') {
            bail!("the key {:?} is too long for a file name, or starts with a dot", self.key);
        }
        Ok(name)
    }

    pub fn from_file_name(name: &str) -> Option<Self> {
        let mut bytes = name.bytes();
        let mut text = Vec::with_capacity(name.len());
        while let Some(byte) = bytes.next() {
            if byte == b'%' {
                let mut digit = || (bytes.next()? as char).to_digit(16);
                text.push((digit()? * 16 + digit()?) as u8);
            } else {
                text.push(byte);
            }
        }
        Self::parse(&String::from_utf8(text).ok()?)
    }
}

/// Escapes the bytes of `text` that a file name cannot hold as `%XX`. A prefix of `text` is escaped to a prefix of
/// the result.
pub fn escaped(text: &str) -> String {
    let escape = |byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => (byte as char).to_string(),
        b'-' | b'_' | b'.' | b'+' | b'=' | b'@' | b'~' | b'#' => (byte as char).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.key, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_key_round_trips_through_a_file_name() {
        for key in ["storecache-nix-x86_64-linux-2.8.0-ab", "a/b c%é", "k.20261122T095523.123456Z"]
        {
            let name = EntryName::new(key);
            let file = name.to_file_name().unwrap();
            assert!(!file.contains('/'));
            assert_eq!(EntryName::from_file_name(&file), Some(name));
        }
        assert_eq!(EntryName::from_file_name("key"), None);
        assert_eq!(EntryName::from_file_name("key.20261122T095523Z"), None);
    }

    #[test]
    fn generations_sort_by_time() {
        let at = |seconds| Generation::at(Timestamp::from_second(seconds).unwrap());
        assert!(at(1_700_000_000) < at(1_700_000_001));
        assert_eq!(at(0).to_string(), "19700101T000000.000000Z");
        assert_eq!(at(1_700_000_001).time(), Timestamp::from_second(1_700_000_001).ok());
        assert_eq!(at(1_700_000_000).next().to_string(), "20231114T221320.000001Z");
        let odd = EntryName::parse("k.20261399T996199.123456Z").unwrap();
        assert_eq!(odd.generation.time(), None);
        assert_eq!(odd.generation.next().to_string(), "20261399T996199.123457Z");
    }

    #[test]
    fn next_generation_is_later_even_if_the_clock_went_back() {
        let ahead = EntryName::parse("k.20991231T235959.999999Z").unwrap();
        let next = EntryName::after("k", &[EntryName::new("k"), ahead.clone()]);
        assert_eq!(next.to_string(), "k.21000101T000000.000000Z");
        assert!(
            EntryName::after("other", std::slice::from_ref(&ahead)).generation < ahead.generation
        );
        let past = EntryName::parse("k.20010101T000000.000000Z").unwrap();
        assert!(EntryName::after("k", &[past]).generation > Generation::at(Timestamp::UNIX_EPOCH));
    }
}
