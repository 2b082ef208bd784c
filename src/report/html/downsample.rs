//! Reduction of long series: to a few points that look the same when drawn, and to a few ranges that cover
//! all values.

/// Values of a series in one of the equal parts of an axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    pub least: f64,
    pub most: f64,
    pub last: f64,
}

/// Returns in which of `parts` equal parts of a range a position is.
pub fn part_of(at: f64, (low, high): (f64, f64), parts: usize) -> usize {
    let share = (at - low) / (high - low);
    ((share * parts as f64) as usize).min(parts.saturating_sub(1))
}

/// Returns the points of each part that are needed to draw the same line: the first, the last, the least and
/// the largest. `points` must be sorted.
pub fn thinned(points: &[(f64, f64)], range: (f64, f64), parts: usize) -> Vec<(f64, f64)> {
    let mut kept = Vec::new();
    for run in points.chunk_by(|a, b| part_of(a.0, range, parts) == part_of(b.0, range, parts)) {
        let by_value = |a: &usize, b: &usize| run[*a].1.total_cmp(&run[*b].1);
        let least = (0..run.len()).min_by(by_value);
        let most = (0..run.len()).max_by(by_value);
        let mut places = vec![0, run.len() - 1];
        places.extend(least.into_iter().chain(most));
        places.sort_unstable();
        places.dedup();
        kept.extend(places.into_iter().map(|at| run[at]));
    }
    kept
}

/// Returns the values of a series in each part. `points` must be sorted.
pub fn parts(points: &[(f64, f64)], range: (f64, f64), count: usize) -> Vec<Option<Part>> {
    let mut parts: Vec<Option<Part>> = vec![None; count];
    for &(at, value) in points {
        let Some(part) = parts.get_mut(part_of(at, range, count)) else { continue };
        *part = Some(match *part {
            None => Part { least: value, most: value, last: value },
            Some(Part { least, most, .. }) => {
                Part { least: least.min(value), most: most.max(value), last: value }
            }
        });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_thinned_line_is_short_and_keeps_its_ends_and_peaks(
            values in proptest::collection::vec(-1e9f64..1e9, 1..3000), count in 1usize..50,
        ) {
            let points: Vec<_> = values.iter().enumerate().map(|(at, v)| (at as f64, *v)).collect();
            let range = (0.0, values.len() as f64);
            let thin = thinned(&points, range, count);
            prop_assert!(thin.len() <= 4 * count);
            prop_assert_eq!(thin.first(), points.first());
            prop_assert_eq!(thin.last(), points.last());
            let ends = |points: &[(f64, f64)]| points.iter().fold((f64::MAX, f64::MIN), |(a, b), p| (a.min(p.1), b.max(p.1)));
            prop_assert_eq!(ends(&thin), ends(&points));
            prop_assert!(thin.windows(2).all(|pair| pair[0].0 < pair[1].0));
            let told = parts(&points, range, count);
            let most = told.iter().flatten().map(|part| part.most).fold(f64::MIN, f64::max);
            prop_assert_eq!(most, ends(&points).1);
        }
    }
}
