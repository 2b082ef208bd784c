//! Treemaps of two levels: groups, and tiles in them, with areas in proportion to their sizes.
//!
//! Like charts, they are drawn for wide and for narrow screens. A label is drawn only if it fits; the tooltip
//! has the whole name.

use super::escape::{escape, escape_name, fit, width};
use super::figure::{figure, open_svg, short};
use super::squarify::{Rect, squarify};
use crate::report::{binary, bytes, plural};
use std::fmt::Write;

#[derive(Debug, Clone, Default)]
pub struct Treemap {
    pub title: String,
    /// Description of the treemap for screen readers, also shown below the title.
    pub text: String,
    pub groups: Vec<Group>,
    /// Whether sizes have units in steps of 1024, as on GitHub.
    pub binary: bool,
    /// The meaning of [`Tile::dashed`], for the legend.
    pub dashed: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Group {
    pub name: String,
    pub tiles: Vec<Tile>,
}

#[derive(Debug, Clone, Default)]
pub struct Tile {
    /// The text on the tile, if it fits.
    pub label: String,
    /// The text of the tooltip, besides the size.
    pub name: String,
    /// In bytes.
    pub size: u64,
    pub dashed: bool,
}

/// Maximum number of groups; smaller groups are merged into one. `TILES` is the maximum for the tiles of a
/// group.
const GROUPS: usize = 12;
const TILES: usize = 100;
/// A tile smaller than this, in square units, is merged with others.
const SMALLEST: f64 = 40.0;
/// Number of colors for groups in the style; the style has one more, which is for merged groups.
const COLOURS: usize = 7;
const COLLECTED: usize = 7;

struct Form {
    class: &'static str,
    room: Rect,
    letters: f64,
}

const FORMS: [Form; 2] = [
    Form {
        class: "wide",
        room: Rect { x: 0.0, y: 0.0, width: 760.0, height: 430.0 },
        letters: 12.0,
    },
    Form {
        class: "narrow",
        room: Rect { x: 0.0, y: 0.0, width: 340.0, height: 480.0 },
        letters: 12.0,
    },
];

/// A group with the tiles that are shown.
struct Shown {
    name: String,
    tiles: Vec<Tile>,
    colour: usize,
}

impl Shown {
    fn size(&self) -> f64 {
        sum(&self.tiles)
    }
}

fn sum(tiles: &[Tile]) -> f64 {
    tiles.iter().map(|tile| tile.size as f64).sum()
}

impl Treemap {
    pub(super) fn html(&self) -> String {
        let groups = self.shown();
        let inside = (!groups.is_empty()).then(|| self.inside(&groups));
        figure(&self.title, &self.text, inside)
    }

    fn inside(&self, groups: &[Shown]) -> String {
        let mut out = String::new();
        for form in &FORMS {
            self.draw(groups, form, &mut out);
        }
        let is_dashed = groups.iter().flat_map(|group| &group.tiles).any(|tile| tile.dashed);
        if let (true, Some(text)) = (is_dashed, &self.dashed) {
            let _ = writeln!(
                out,
                "<ul class=\"legend\"><li><svg class=\"key\" viewBox=\"0 0 26 12\" aria-hidden=\"true\"><rect \
                 class=\"dashed\" x=\"1.5\" y=\"1.5\" width=\"23\" height=\"9\"/></svg>{}</li></ul>",
                escape(text)
            );
        }
        out
    }

    /// The groups from large to small, limited in number, with tiles from large to small.
    fn shown(&self) -> Vec<Shown> {
        let mut groups: Vec<Shown> = Vec::new();
        for group in &self.groups {
            let mut tiles: Vec<Tile> =
                group.tiles.iter().filter(|tile| tile.size > 0).cloned().collect();
            tiles.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)));
            if !tiles.is_empty() {
                groups.push(Shown { name: group.name.clone(), tiles, colour: COLLECTED });
            }
        }
        groups.sort_by(|a, b| b.size().total_cmp(&a.size()).then_with(|| a.name.cmp(&b.name)));
        if groups.len() > GROUPS {
            let rest = groups.split_off(GROUPS - 1);
            let name = plural(rest.len() as u64, "other group");
            let collect = |group: Shown| {
                let size =
                    group.tiles.iter().fold(0, |sum: u64, tile| sum.saturating_add(tile.size));
                let dashed = group.tiles.iter().all(|tile| tile.dashed);
                Tile { label: group.name.clone(), name: group.name, size, dashed }
            };
            groups.push(Shown {
                name,
                tiles: rest.into_iter().map(collect).collect(),
                colour: COLLECTED,
            });
        }
        for (number, group) in groups.iter_mut().enumerate().take(GROUPS - 1) {
            group.colour = number % COLOURS;
        }
        groups
    }

    fn draw(&self, groups: &[Shown], form: &Form, out: &mut String) {
        let size = (form.room.width, form.room.height);
        *out += &open_svg("map", form.class, size, form.letters, &self.title, &self.text);
        let sizes: Vec<f64> = groups.iter().map(Shown::size).collect();
        for (group, room) in groups.iter().zip(squarify(&sizes, form.room)) {
            self.draw_group(group, room, form, out);
        }
        out.push_str("</svg>\n");
    }

    fn draw_group(&self, group: &Shown, room: Rect, form: &Form, out: &mut String) {
        let room = room.inset(1.5);
        let strip = form.letters * 1.5;
        let _ = write!(out, "<g class=\"g{}\">", group.colour);
        let mut inside = room;
        if let Some(name) = self.heading(group, room, strip, form) {
            let _ = writeln!(
                out,
                "<g><title>{}\n{}</title><rect class=\"head\" {}/><text class=\"head\" x=\"{}\" y=\"{}\">{}</text></g>",
                escape_name(&group.name),
                self.size(group.size() as u64),
                place(Rect { height: strip, ..room }),
                short(room.x + 5.0),
                short(room.y + strip - form.letters * 0.4),
                escape(&name),
            );
            inside = room.below(strip);
        }
        // The number of tiles that are worth drawing depends on the space.
        let share = inside.area() / group.size();
        let large = group.tiles.iter().filter(|tile| tile.size as f64 * share >= SMALLEST).count();
        let tiles = collected(&group.tiles, TILES.min(large + 1));
        let sizes: Vec<f64> = tiles.iter().map(|tile| tile.size as f64).collect();
        for (tile, rect) in tiles.iter().zip(squarify(&sizes, inside)) {
            self.draw_tile(tile, &group.name, rect.inset(0.5), form, out);
        }
        out.push_str("</g>\n");
    }

    fn size(&self, count: u64) -> String {
        if self.binary { binary(count) } else { bytes(count) }
    }

    fn draw_tile(&self, tile: &Tile, group: &str, rect: Rect, form: &Form, out: &mut String) {
        let size = self.size(tile.size);
        let within =
            if group == tile.name { String::new() } else { format!("\nin {}", escape_name(group)) };
        let dashed = if tile.dashed { " class=\"dashed\"" } else { "" };
        let _ = write!(
            out,
            "<g><title>{}\n{size}{within}</title><rect{dashed} {}/>",
            escape_name(&tile.name),
            place(rect)
        );
        let (margin, line) = (4.0, form.letters * 1.25);
        let room = rect.width - 2.0 * margin;
        if let Some(label) =
            fit(&tile.label, form.letters, room).filter(|_| rect.height >= line + 4.0)
        {
            let (x, y) = (short(rect.x + margin), rect.y + line + 1.0);
            let _ = write!(out, "<text x=\"{x}\" y=\"{}\">{}</text>", short(y), escape(&label));
            if rect.height >= 2.0 * line + 6.0 && width(&size, form.letters) <= room {
                let _ = write!(out, "<text x=\"{x}\" y=\"{}\">{size}</text>", short(y + line));
            }
        }
        out.push_str("</g>\n");
    }

    /// The heading above the tiles of a group. It takes space from the tiles, so small groups have no
    /// heading, and groups with a single tile of the same name do not have one either.
    fn heading(&self, group: &Shown, room: Rect, strip: f64, form: &Form) -> Option<String> {
        let alone = matches!(&group.tiles[..], [tile] if tile.label == group.name);
        if alone || room.height <= 4.0 * strip || room.width <= 60.0 {
            return None;
        }
        // Bold letters are wider.
        let (letters, room) = (form.letters * 1.15, room.width - 10.0);
        let with_size = format!("{} · {}", group.name, self.size(group.size() as u64));
        match width(&with_size, letters) <= room {
            true => Some(with_size),
            false => fit(&group.name, letters, room),
        }
    }
}

/// Returns at most `most` tiles: the largest, and the others merged into one. `tiles` are sorted from large
/// to small.
fn collected(tiles: &[Tile], most: usize) -> Vec<Tile> {
    let most = most.max(1);
    if tiles.len() <= most {
        return tiles.to_vec();
    }
    let (kept, rest) = tiles.split_at(most - 1);
    let name = plural(rest.len() as u64, "other");
    let size = rest.iter().fold(0, |sum: u64, tile| sum.saturating_add(tile.size));
    let dashed = rest.iter().all(|tile| tile.dashed);
    let mut tiles = kept.to_vec();
    tiles.push(Tile { label: name.clone(), name, size, dashed });
    tiles.sort_by_key(|tile| std::cmp::Reverse(tile.size));
    tiles
}

fn place(rect: Rect) -> String {
    let Rect { x, y, width, height } = rect;
    format!(
        "x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"",
        short(x),
        short(y),
        short(width),
        short(height)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(name: &str, size: u64) -> Tile {
        Tile { label: name.into(), name: name.into(), size, dashed: false }
    }

    #[test]
    fn large_treemap_is_small_and_keeps_the_total() {
        let group = |number: u64| Group {
            name: format!("group {number}"),
            tiles: (1..=500)
                .map(|size| tile(&format!("tile {number} {size}"), size * (number + 1)))
                .collect(),
        };
        let map = Treemap {
            title: "map".into(),
            groups: (0..300).map(group).collect(),
            ..Treemap::default()
        };
        let shown = map.shown();
        assert_eq!(shown.len(), GROUPS);
        let total: f64 = map.groups.iter().map(|group| sum(&group.tiles)).sum();
        assert_eq!(shown.iter().map(Shown::size).sum::<f64>(), total);
        let html = map.html();
        assert!(html.contains("289 other groups"), "{html}");
        assert!(html.len() < 300_000, "{}", html.len());
    }

    #[test]
    fn small_tiles_are_merged_into_a_count() {
        let mut tiles: Vec<_> =
            (0..300).map(|number| tile(&format!("small {number}"), 1)).collect();
        tiles.push(tile("large", 1_000_000));
        tiles.push(tile("medium", 900_000));
        let groups = vec![Group { name: "group".into(), tiles }];
        let html = Treemap { title: "map".into(), groups, ..Treemap::default() }.html();
        for label in [">large<", ">medium<", "300 others"] {
            assert!(html.contains(label), "{label}: {html}");
        }
    }

    #[test]
    fn empty_treemap_has_no_tile() {
        let empty = Group { name: "empty".into(), tiles: vec![tile("zero", 0)] };
        let map = Treemap { title: "map".into(), groups: vec![empty], ..Treemap::default() };
        assert!(map.html().contains("nothing to show"));
    }

    #[test]
    fn huge_sizes_give_finite_coordinates() {
        let tiles = vec![tile("a", u64::MAX), tile("b", u64::MAX), tile("c", 1)];
        let map = Treemap {
            title: "map".into(),
            groups: vec![Group { name: "g".into(), tiles }],
            ..Treemap::default()
        };
        let html = map.html();
        assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
    }
}
