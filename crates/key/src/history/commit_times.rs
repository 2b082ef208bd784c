//! Makes commit times monotonic.

/// Adjusts the times of successive commits so that they never decrease. Clocks are sometimes wrong, and a
/// rebase keeps some of the old times. So a longest non-decreasing subsequence is trusted, and every other
/// commit gets the time of the commit before it. A single clock that is years ahead does not affect other
/// commits.
pub fn straighten(times: &mut [i64]) {
    let Some(believed) = longest_in_order(times) else { return };
    // Commits before the first trusted time get that time.
    let mut now = times[believed[0]];
    let mut believed = believed.into_iter().peekable();
    for (at, time) in times.iter_mut().enumerate() {
        if believed.next_if_eq(&at).is_some() {
            now = *time;
        }
        *time = now;
    }
}

/// Returns the positions of a longest non-decreasing subsequence.
fn longest_in_order(times: &[i64]) -> Option<Vec<usize>> {
    // Patience sorting: for each length, the position of the smallest last time of a subsequence of that
    // length.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(times.len());
    for (at, time) in times.iter().enumerate() {
        let length = ends.partition_point(|end| times[*end] <= *time);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(length) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let mut chain: Vec<usize> =
        std::iter::successors(ends.last().copied(), |at| before[*at]).collect();
    chain.reverse();
    (!chain.is_empty()).then_some(chain)
}

#[cfg(test)]
mod tests {
    use super::straighten;
    use proptest::prelude::*;

    fn straight(times: &[i64]) -> Vec<i64> {
        let mut times = times.to_vec();
        straighten(&mut times);
        times
    }

    #[test]
    fn one_wrong_commit_time_does_not_move_the_others() {
        assert_eq!(straight(&[]), [0; 0]);
        assert_eq!(straight(&[10, 20, 30]), [10, 20, 30]);
        // Years ahead, at the epoch, at the very start, and a rebase of two commits.
        assert_eq!(straight(&[10, 9_999, 20, 30]), [10, 10, 20, 30]);
        assert_eq!(straight(&[10, 20, 0, 30]), [10, 20, 20, 30]);
        assert_eq!(straight(&[9_999, 10, 20]), [10, 10, 20]);
        assert_eq!(straight(&[10, 20, 11, 12, 30, 40]), [10, 10, 11, 12, 30, 40]);
    }

    proptest! {
        #[test]
        fn straightened_times_never_decrease(times in prop::collection::vec(0..50i64, 0..40)) {
            let made = straight(&times);
            prop_assert!(made.is_sorted());
            let mut sorted = times.clone();
            sorted.sort_unstable();
            prop_assert_eq!(straight(&sorted), sorted);
            prop_assert!(made.iter().all(|time| times.contains(time)));
        }
    }
}
