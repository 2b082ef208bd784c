//! Division of a rectangle into rectangles with given proportions that are as close to squares as possible.
//!
//! The algorithm is from Bruls, Huizing and van Wijk, "Squarified Treemaps" (2000).

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rect {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Rect {
    pub fn area(&self) -> f64 {
        self.width * self.height
    }

    /// Returns the rectangle without a margin of this width on every side.
    pub fn inset(&self, by: f64) -> Rect {
        let (width, height) = ((self.width - 2.0 * by).max(0.0), (self.height - 2.0 * by).max(0.0));
        Rect { x: self.x + by, y: self.y + by, width, height }
    }

    /// Returns the rectangle without a strip of this height at the top.
    pub fn below(&self, strip: f64) -> Rect {
        Rect { y: self.y + strip, height: (self.height - strip).max(0.0), ..*self }
    }
}

/// Divides `room` into one rectangle for each of `sizes`, which must be positive and should be sorted from
/// large to small.
pub fn squarify(sizes: &[f64], room: Rect) -> Vec<Rect> {
    let total: f64 = sizes.iter().sum();
    let scale = if total > 0.0 { room.area() / total } else { 0.0 };
    let areas: Vec<f64> = sizes.iter().map(|size| size * scale).collect();
    let mut rects = Vec::with_capacity(areas.len());
    let mut room = room;
    let mut rest = &areas[..];
    while !rest.is_empty() {
        let side = room.width.min(room.height);
        let mut count = 1;
        let mut sum = rest[0];
        while let Some(next) = rest.get(count) {
            let grown = sum + next;
            if worst(&rest[..=count], grown, side) > worst(&rest[..count], sum, side) {
                break;
            }
            sum = grown;
            count += 1;
        }
        let (row, others) = rest.split_at(count);
        rest = others;
        room = lay(row, sum, room, rest.is_empty(), &mut rects);
    }
    rects
}

/// The largest aspect ratio in a row of these areas along a side.
fn worst(row: &[f64], sum: f64, side: f64) -> f64 {
    let thick = sum / side;
    let ratio = |area: &f64| {
        let long = area / thick;
        (long / thick).max(thick / long)
    };
    let worst = row.iter().map(ratio).fold(0.0, f64::max);
    // If there is no space at all, adding an area does not make the row worse.
    if worst.is_finite() { worst } else { f64::MAX }
}

/// Places a row along the shorter side, and returns the remaining rectangle. The last row takes all of the
/// remaining space, to compensate for rounding.
fn lay(row: &[f64], sum: f64, room: Rect, last: bool, rects: &mut Vec<Rect>) -> Rect {
    let upright = room.width >= room.height;
    let (side, depth) = if upright { (room.height, room.width) } else { (room.width, room.height) };
    let thick = if last || side <= 0.0 { depth } else { (sum / side).min(depth) };
    let mut along = 0.0;
    for area in row {
        let long = if sum > 0.0 { side * area / sum } else { 0.0 };
        rects.push(match upright {
            true => Rect { x: room.x, y: room.y + along, width: thick, height: long },
            false => Rect { x: room.x + along, y: room.y, width: long, height: thick },
        });
        along += long;
    }
    match upright {
        true => Rect { x: room.x + thick, width: room.width - thick, ..room },
        false => Rect { y: room.y + thick, height: room.height - thick, ..room },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sizes() -> impl Strategy<Value = Vec<f64>> {
        // Sizes of very different magnitude, from large to small.
        proptest::collection::vec((1f64..10.0, 0i32..7), 1..80).prop_map(|pairs| {
            let mut sizes: Vec<f64> = pairs.into_iter().map(|(n, e)| n * 10f64.powi(e)).collect();
            sizes.sort_by(|a, b| b.total_cmp(a));
            sizes
        })
    }

    proptest! {
        #[test]
        fn tiles_fill_the_area_in_proportion_and_never_overlap(
            sizes in sizes(), width in 10f64..2000.0, height in 10f64..2000.0,
        ) {
            let room = Rect { x: 3.0, y: 5.0, width, height };
            let tiles = squarify(&sizes, room);
            prop_assert_eq!(tiles.len(), sizes.len());
            let total: f64 = sizes.iter().sum();
            let slack = 1e-6 * (width + height);
            for (tile, size) in tiles.iter().zip(&sizes) {
                let wanted = room.area() * size / total;
                prop_assert!((tile.area() - wanted).abs() <= 1e-6 * room.area(), "{} {wanted}", tile.area());
                prop_assert!(tile.x >= room.x - slack && tile.y >= room.y - slack);
                prop_assert!(tile.x + tile.width <= room.x + room.width + slack);
                prop_assert!(tile.y + tile.height <= room.y + room.height + slack);
            }
            for (at, a) in tiles.iter().enumerate() {
                for b in &tiles[at + 1..] {
                    let across = (a.x + a.width).min(b.x + b.width) - a.x.max(b.x);
                    let down = (a.y + a.height).min(b.y + b.height) - a.y.max(b.y);
                    prop_assert!(across <= slack || down <= slack, "{a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn equal_sizes_give_nearly_square_tiles() {
        let room = Rect { x: 0.0, y: 0.0, width: 600.0, height: 400.0 };
        for tile in squarify(&[1.0; 24], room) {
            assert!((tile.width / tile.height - 1.0).abs() < 0.5, "{tile:?}");
        }
    }
}
