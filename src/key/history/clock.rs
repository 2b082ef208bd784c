//! Times of commits, made to go forward.

/// Makes the times of successive commits never go back. Clocks are wrong at times, and a rebase keeps
/// some of them; so the most times that are in order are believed, and every other commit is taken to
/// be of the moment of the one before it. One clock that is years ahead moves nobody else.
pub fn straighten(times: &mut [i64]) {
    let Some(believed) = longest_in_order(times) else { return };
    // What comes before the first time that is believed is of that moment.
    let mut now = times[believed[0]];
    let mut believed = believed.into_iter().peekable();
    for (at, time) in times.iter_mut().enumerate() {
        if believed.next_if_eq(&at).is_some() {
            now = *time;
        }
        *time = now;
    }
}

/// Positions of a longest run of times, not all next to each other, that never goes back.
fn longest_in_order(times: &[i64]) -> Option<Vec<usize>> {
    // Patience sorting: of all runs of one length, the position of the smallest last time.
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
    fn one_wrong_clock_moves_nobody_else() {
        assert_eq!(straight(&[]), [0; 0]);
        assert_eq!(straight(&[10, 20, 30]), [10, 20, 30]);
        // Years ahead, at the epoch, at the very start, and a rebase of two.
        assert_eq!(straight(&[10, 9_999, 20, 30]), [10, 10, 20, 30]);
        assert_eq!(straight(&[10, 20, 0, 30]), [10, 20, 20, 30]);
        assert_eq!(straight(&[9_999, 10, 20]), [10, 10, 20]);
        assert_eq!(straight(&[10, 20, 11, 12, 30, 40]), [10, 10, 11, 12, 30, 40]);
    }

    proptest! {
        #[test]
        fn times_never_go_back_and_those_in_order_stay(times in prop::collection::vec(0..50i64, 0..40)) {
            let made = straight(&times);
            prop_assert!(made.is_sorted());
            let mut sorted = times.clone();
            sorted.sort_unstable();
            prop_assert_eq!(straight(&sorted), sorted);
            prop_assert!(made.iter().all(|time| times.contains(time)));
        }
    }
}
