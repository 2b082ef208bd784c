//! Scales of axes: the meaning of their numbers, the position of ticks, and the format of labels.

use crate::report::{binary, bytes};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// The meaning of a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scale {
    /// Seconds since 1970, shown in UTC.
    Time,
    Bytes,
    /// Bytes with units in steps of 1024, as on GitHub.
    Binary,
    /// A fraction from 0 to 1, shown as a percentage.
    Share,
    #[default]
    Count,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    pub at: f64,
    pub label: String,
}

const MINUTE: f64 = 60.0;
const HOUR: f64 = 60.0 * MINUTE;
const DAY: f64 = 24.0 * HOUR;
/// Distances between ticks of time, in seconds; `MONTHS` has the longer ones.
const STEPS: [f64; 13] = [
    MINUTE,
    5.0 * MINUTE,
    15.0 * MINUTE,
    30.0 * MINUTE,
    HOUR,
    3.0 * HOUR,
    6.0 * HOUR,
    12.0 * HOUR,
    DAY,
    2.0 * DAY,
    4.0 * DAY,
    7.0 * DAY,
    14.0 * DAY,
];
/// Longer distances between ticks of time, in months.
const MONTHS: [i64; 11] = [1, 2, 3, 6, 12, 24, 60, 120, 600, 2400, 24_000];
/// The first Monday of 1970: weeks begin on Monday.
const MONDAY: f64 = 4.0 * DAY;

/// Whether a number can be shown on an axis. Numbers outside of this range are errors of a clock or a
/// counter.
pub fn is_sane(value: f64) -> bool {
    value.is_finite() && value.abs() <= 1e18
}

impl Scale {
    /// A single value for people.
    pub fn show(self, value: f64) -> String {
        match self {
            Scale::Time => match moment(value) {
                Some(time) => time.strftime("%Y-%m-%d %H:%M").to_string(),
                None => "no time".into(),
            },
            Scale::Bytes => bytes(value.max(0.0) as u64),
            Scale::Binary => binary(value.max(0.0) as u64),
            Scale::Share => format!("{} %", trimmed(value * 100.0, 1)),
            Scale::Count => grouped(value),
        }
    }

    /// Upper end of an axis that starts at 0, or at the least value if that is negative, and includes `most`.
    pub fn top(self, most: f64, ticks: usize) -> f64 {
        match self {
            Scale::Share if most <= 1.0 => 1.0,
            _ if most <= 0.0 => 1.0,
            _ => {
                let step = self.step(most, ticks);
                (most / step).ceil() * step
            }
        }
    }

    /// Returns at most `most` + 1 ticks between `low` and `high`.
    pub fn ticks(self, low: f64, high: f64, most: usize) -> Vec<Tick> {
        if !is_sane(low) || !is_sane(high) || high <= low || most == 0 {
            return Vec::new();
        }
        if self == Scale::Time {
            return time_ticks(low, high, most);
        }
        let step = self.step(high - low, most);
        let places = multiples(low, high, step, 0.0);
        places.map(|at| Tick { at, label: self.label(at, high.abs().max(low.abs())) }).collect()
    }

    fn step(self, span: f64, ticks: usize) -> f64 {
        if self == Scale::Binary {
            let unit = 1024f64.powi(binary_unit(span) as i32);
            return Scale::Count.step(span / unit, ticks) * unit;
        }
        let least = span / ticks.max(1) as f64;
        let magnitude = 10f64.powf(least.log10().floor());
        let nice = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * magnitude);
        let step = nice.into_iter().find(|step| *step >= least * 0.999).unwrap_or(10.0 * magnitude);
        // There are no fractions of a byte or of a run.
        if self == Scale::Share { step } else { step.max(1.0) }
    }

    /// A label of the axis; all labels have the unit of the largest.
    fn label(self, value: f64, largest: f64) -> String {
        match self {
            Scale::Bytes => {
                const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
                let unit = (largest.max(1.0).log10() / 3.0 + 1e-9).floor() as usize;
                let unit = unit.min(UNITS.len() - 1);
                match trimmed(value / 1000f64.powi(unit as i32), 2) {
                    zero if zero == "0" => zero,
                    number => format!("{number} {}", UNITS[unit]),
                }
            }
            Scale::Binary => {
                let unit = binary_unit(largest);
                match trimmed(value / 1024f64.powi(unit as i32), 2) {
                    zero if zero == "0" => zero,
                    number => format!("{number} {}", BINARY[unit]),
                }
            }
            _ => self.show(value),
        }
    }
}

const BINARY: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// The largest unit that is not larger than the size.
fn binary_unit(size: f64) -> usize {
    let unit = (size.max(1.0).log2() / 10.0 + 1e-9).floor() as usize;
    unit.min(BINARY.len() - 1)
}

fn moment(seconds: f64) -> Option<Timestamp> {
    Timestamp::from_second(seconds as i64).ok()
}

/// A number with at most `digits` decimal digits.
fn trimmed(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// Whole numbers with commas, others with two decimal digits.
fn grouped(value: f64) -> String {
    let text = trimmed(value, 2);
    let whole = text.split('.').next().unwrap_or_default();
    let digits = whole.trim_start_matches('-');
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    let sign = if whole.starts_with('-') { "-" } else { "" };
    format!("{sign}{out}{}", &text[whole.len()..])
}

/// The multiples of `step`, counted from `origin`, in a range.
fn multiples(low: f64, high: f64, step: f64, origin: f64) -> impl Iterator<Item = f64> {
    let first = ((low - origin) / step - 1e-9).ceil();
    let last = ((high - origin) / step + 1e-9).floor();
    // Callers ask for few multiples, so this only guards against errors.
    let count = (last - first + 1.0).clamp(0.0, 1000.0) as usize;
    (0..count).map(move |number| origin + (first + number as f64) * step)
}

fn time_ticks(low: f64, high: f64, most: usize) -> Vec<Tick> {
    let (Some(first), Some(last)) = (moment(low), moment(high)) else { return Vec::new() };
    let span = high - low;
    if let Some(step) = STEPS.into_iter().find(|step| span / step <= most as f64) {
        let one_day = first.strftime("%F").to_string() == last.strftime("%F").to_string();
        let format = match step {
            step if step >= DAY => "%b %-d",
            _ if one_day => "%H:%M",
            _ => "%b %-d %H:%M",
        };
        let origin = if step >= 7.0 * DAY { MONDAY } else { 0.0 };
        let places = multiples(low, high, step, origin);
        return places.filter_map(|at| tick(at, format)).collect();
    }
    let month = |time: Timestamp| {
        let date = time.to_zoned(TimeZone::UTC).date();
        i64::from(date.year()) * 12 + i64::from(date.month()) - 1
    };
    let (from, to) = (month(first), month(last));
    let fits = |step: &i64| (to - from) / step <= most as i64;
    let step = MONTHS.into_iter().find(fits).unwrap_or(240_000);
    let format = if step < 12 { "%b %Y" } else { "%Y" };
    let months = (from.div_euclid(step)..=to.div_euclid(step)).map(|number| number * step);
    let starts = months.filter_map(|month| {
        let year = i16::try_from(month.div_euclid(12)).ok()?;
        let date = Date::new(year, month.rem_euclid(12) as i8 + 1, 1).ok()?;
        let start = date.at(0, 0, 0, 0).to_zoned(TimeZone::UTC).ok()?;
        Some(start.timestamp().as_second() as f64)
    });
    starts.filter(|at| (low..=high).contains(at)).filter_map(|at| tick(at, format)).collect()
}

fn tick(at: f64, format: &str) -> Option<Tick> {
    Some(Tick { at, label: moment(at)?.strftime(format).to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(scale: Scale, low: f64, high: f64, most: usize) -> Vec<String> {
        scale.ticks(low, high, most).into_iter().map(|tick| tick.label).collect()
    }

    fn second(text: &str) -> f64 {
        text.parse::<Timestamp>().unwrap().as_second() as f64
    }

    #[test]
    fn sizes_have_round_ticks_in_one_unit() {
        assert_eq!(
            labels(Scale::Bytes, 0.0, 1e10, 5),
            ["0", "2 GB", "4 GB", "6 GB", "8 GB", "10 GB"]
        );
        assert_eq!(labels(Scale::Bytes, 0.0, 1.5e9, 3), ["0", "0.5 GB", "1 GB", "1.5 GB"]);
        let gib = 1024f64.powi(3);
        assert_eq!(labels(Scale::Binary, 0.0, 2.0 * gib, 2), ["0", "1 GiB", "2 GiB"]);
        assert_eq!(Scale::Binary.top(9.3 * gib, 5), 10.0 * gib);
        assert_eq!(labels(Scale::Bytes, 0.0, 3.0, 5), ["0", "1 B", "2 B", "3 B"]);
        assert_eq!(Scale::Bytes.top(9.3e9, 5), 1e10);
    }

    #[test]
    fn share_axis_ends_at_one_hundred_percent() {
        assert_eq!(Scale::Share.top(0.3, 5), 1.0);
        assert_eq!(
            labels(Scale::Share, 0.0, 1.0, 5),
            ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]
        );
        assert_eq!(Scale::Share.show(0.934), "93.4 %");
    }

    #[test]
    fn counts_are_whole_and_grouped() {
        assert_eq!(labels(Scale::Count, 0.0, 2.0, 5), ["0", "1", "2"]);
        assert_eq!(Scale::Count.show(1_234_567.0), "1,234,567");
        assert_eq!(Scale::Count.show(-1234.5), "-1,234.5");
        assert_eq!(Scale::Count.show(999.0), "999");
    }

    #[test]
    fn time_ticks_fall_on_hours_days_months_and_years() {
        let (low, high) = (second("2026-01-15T09:10:00Z"), second("2026-01-15T12:10:00Z"));
        assert_eq!(labels(Scale::Time, low, high, 4), ["10:00", "11:00", "12:00"]);
        let high = second("2026-01-18T09:10:00Z");
        assert_eq!(labels(Scale::Time, low, high, 4), ["Jan 16", "Jan 17", "Jan 18"]);
        let high = second("2026-07-01T00:00:00Z");
        let months = ["Mar 2026", "May 2026", "Jul 2026"];
        assert_eq!(labels(Scale::Time, low, high, 4), months);
        let high = second("2030-02-01T00:00:00Z");
        assert_eq!(labels(Scale::Time, low, high, 5), ["2027", "2028", "2029", "2030"]);
        assert_eq!(Scale::Time.show(low), "2026-01-15 09:10");
    }

    proptest! {
        #[test]
        fn ticks_are_few_and_within_the_range(
            low in -1e12f64..1e12, span in 1e-3f64..1e12, most in 1usize..12,
            scale in prop_oneof![Just(Scale::Time), Just(Scale::Bytes), Just(Scale::Binary), Just(Scale::Share), Just(Scale::Count)],
        ) {
            let high = low + span;
            let ticks = scale.ticks(low, high, most);
            prop_assert!(ticks.len() <= most + 1, "{ticks:?}");
            prop_assert!(ticks.windows(2).all(|pair| pair[0].at < pair[1].at));
            let slack = span * 1e-6 + 1e-6;
            prop_assert!(ticks.iter().all(|t| t.at >= low - slack && t.at <= high + slack), "{ticks:?}");
        }

        #[test]
        fn axis_covers_the_largest_value(most in 0f64..1e18) {
            prop_assert!(Scale::Bytes.top(most, 5) >= most * 0.999_999);
        }
    }
}
