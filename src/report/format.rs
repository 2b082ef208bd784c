//! Formatting of numbers for people.

use storecache_runtime::untrusted_text::escape;

/// A size in bytes with a decimal unit, as in `1.4 GB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ if value < 9.95 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// A size in bytes with a unit in steps of 1024, as in `1.4 GiB`, which GitHub uses.
pub fn binary(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ if value < 99.95 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// An age in seconds, as in `5 h` or `12 d`.
pub fn age(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// Aligned columns, one line for each row. The first `right` columns are right-aligned, and the last one is
/// not padded. Every cell is escaped, so a cell cannot start a new line.
pub fn columns<const N: usize>(rows: &[[String; N]], right: usize) -> Vec<String> {
    let escaped = |row: &[String; N]| row.each_ref().map(|cell| escape(cell).into_owned());
    let rows: Vec<[String; N]> = rows.iter().map(escaped).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).enumerate().map(|(at, (cell, width))| match at {
            _ if at < right => format!("{cell:>width$}"),
            _ if at + 1 == N => cell.clone(),
            _ => format!("{cell:<width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Parses a size as people write it: `500K`, `10M`, `1.5GiB` in steps of 1024, `10MB` in steps of 1000.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let exponent = match unit.chars().next() {
        None | Some('b') => 0,
        Some(first) => "kmgt".find(first)? as i32 + 1,
    };
    let step: f64 = match unit.get(exponent.min(1) as usize..)? {
        "b" if exponent > 0 => 1000.0,
        "" | "b" | "ib" => 1024.0,
        _ => return None,
    };
    let value = number.parse::<f64>().ok()? * step.powi(exponent);
    (value.is_finite() && value < u64::MAX as f64).then_some(value as u64)
}

/// A duration in seconds, as in `0.3 s` or `2 min 5 s`.
pub fn seconds(value: f64) -> String {
    if value < 0.0995 {
        format!("{:.0} ms", value * 1000.0)
    } else if value < 59.95 {
        format!("{value:.1} s")
    } else {
        let whole = value.round() as u64;
        format!("{} min {} s", whole / 60, whole % 60)
    }
}

/// A count with its noun, as in `1 item` or `2 items`.
pub fn plural(count: u64, noun: &str) -> String {
    match noun.strip_suffix('y') {
        Some(stem) if count != 1 && !stem.ends_with(['a', 'e', 'o', 'u']) => {
            format!("{count} {stem}ies")
        }
        _ => format!("{count} {noun}{}", if count == 1 { "" } else { "s" }),
    }
}

/// Two columns, one line for each row: padded names, and escaped values.
pub fn table(rows: &[(&str, String)]) -> Vec<String> {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:<width$}  {}", escape(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_two_digits_and_a_unit() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_440), "1.4 kB");
        assert_eq!(bytes(999_900), "1.0 MB");
        assert_eq!(bytes(23_400_000), "23 MB");
        assert_eq!(seconds(0.012), "12 ms");
        assert_eq!(seconds(3.21), "3.2 s");
        assert_eq!(seconds(125.0), "2 min 5 s");
        assert_eq!(binary(1023), "1023 B");
        assert_eq!(binary(10 << 30), "10.0 GiB");
        assert_eq!(binary((412 << 20) + 1), "412 MiB");
        assert_eq!(
            [0, 61, 7199, 172_799, 172_800, -5].map(age),
            ["0 s", "1 min", "1 h", "47 h", "2 d", "0 s"]
        );
        assert_eq!(plural(1, "item"), "1 item");
        assert_eq!((plural(2, "entry"), plural(2, "day")), ("2 entries".into(), "2 days".into()));
        assert_eq!(plural(0, "item"), "0 items");
        assert_eq!(plural(2, "entry"), "2 entries");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["1", "é", "x"], ["22", "", "long"], ["3", "ab", ""]]
            .map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows, 1), [" 1  é   x", "22      long", " 3  ab"]);

        let rows = [["a\nb".to_owned(), "c".to_owned()], ["d".to_owned(), String::new()]];
        assert_eq!(columns(&rows, 0), [r"a\nb  c", "d"]);
        assert_eq!(
            table(&[("a", "b\nc".to_owned()), ("long", String::new())]),
            [r"a     b\nc", "long  "]
        );
    }

    #[test]
    fn parse_bytes_accepts_common_size_notations() {
        for (text, size) in [
            ("0", 0),
            ("17", 17),
            ("17 B", 17),
            ("500K", 500 << 10),
            ("10m", 10 << 20),
            ("1.5GiB", 3 << 29),
            ("10MB", 10_000_000),
            ("2 T", 2 << 40),
        ] {
            assert_eq!(parse_bytes(text), Some(size), "{text}");
        }
        for wrong in ["", "M", "-1", "1e3", "1X", "1KBB", "1ib", ".", "99999999999T", "1 é"] {
            assert_eq!(parse_bytes(wrong), None, "{wrong}");
        }
    }
}
