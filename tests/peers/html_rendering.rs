//! Tests of HTML pages as Chromium shows them: in light and dark, on a screen and on a phone, without scripts.

use crate::support::browser::{render_file, render_html};
use crate::support::git_history::history_of_ten_thousand_commits;
use storecache::report::html::{
    Chart, Events, Group, Page, Scale, Section, Series, Shape, Table, Tile, Treemap,
};

/// 2025-11-01 in UTC.
const START: f64 = 1_761_955_200.0;
const DAY: f64 = 86_400.0;

fn tile(name: &str, size: u64) -> Tile {
    Tile {
        label: name.into(),
        name: format!("{}-{name}", "0".repeat(32)),
        size,
        dashed: size.is_multiple_of(7),
    }
}

/// Returns a number that depends on `number` alone, so that pages are the same each time.
fn noise(number: usize) -> f64 {
    let mixed = (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((mixed ^ (mixed >> 29)) % 10_000) as f64 / 10_000.0
}

fn hits(points: usize) -> Chart {
    let series = |(number, name): (usize, &str)| Series {
        name: name.into(),
        shape: if number == 0 { Shape::Area } else { Shape::Line },
        points: (0..points)
            .map(|at| {
                let share = 0.25 * number as f64 + 0.2 * noise(at / 7 + number * 31) + 0.02;
                (START + at as f64 * 365.0 * DAY / points as f64, share)
            })
            .collect(),
    };
    let names = ["bytes", "semantic", "lock files only", "version only"];
    Chart {
        title: "Share of jobs with an exact hit".into(),
        text: "Mean of the last 50 jobs, by the policy that makes the key.".into(),
        y: Scale::Share,
        series: names.into_iter().enumerate().map(series).collect(),
        ..Chart::default()
    }
}

fn kept(points: usize) -> Chart {
    let at = |number: usize| START + number as f64 * 365.0 * DAY / points as f64;
    let size = |number: usize| {
        (3e9 + 4e8 * (number * 20 / points) as f64 + 3e9 * noise(number / 3)).min(1e10)
    };
    Chart {
        title: "Bytes kept".into(),
        y: Scale::Bytes,
        series: vec![Series {
            name: "semantic".into(),
            shape: Shape::Steps,
            points: (0..points).map(|number| (at(number), size(number))).collect(),
        }],
        limit: Some(("limit of the repository".into(), 1e10)),
        events: Some(Events {
            name: "evictions".into(),
            at: (0..points / 9).map(|number| (at(number * 7), format!("entry {number}"))).collect(),
        }),
        ..Chart::default()
    }
}

fn map(groups: usize, tiles: usize) -> Treemap {
    let names = [
        "gcc-13.2.0",
        "glibc-2.39",
        "python3-3.12.4",
        "perl-5.38",
        "llvm-18",
        "texlive-2024",
        "icu4c-74",
    ];
    let group = |number: usize| Group {
        name: format!("{}{}", names[number % 7], if number < 7 { "" } else { "-doc" }),
        tiles: (0..tiles)
            .map(|at| {
                tile(
                    names[(number + at) % 7],
                    (4e8 * noise(number * 50 + at) / (at + 1) as f64) as u64,
                )
            })
            .collect(),
    };
    Treemap {
        title: "Which item brings which megabytes".into(),
        text: "Grouped by the item that alone brings them.".into(),
        groups: (0..groups).map(group).collect(),
        dashed: Some("restored, and not read by the job".into()),
        ..Treemap::default()
    }
}

fn table(rows: usize) -> Table {
    let mut table = Table::new("Policies over the last year")
        .text("Policy")
        .number("Exact")
        .number("Prefix")
        .number("Misses")
        .number("Uploaded")
        .number("Kept, GB hours");
    for row in 0..rows {
        table.row([
            format!("policy {row}"),
            "93.4 %".into(),
            "5.1 %".into(),
            "1.5 %".into(),
            "41 GB".into(),
            "8,192".into(),
        ]);
    }
    table
}

fn page(sections: Vec<Section>) -> Page {
    Page {
        title: "storecache usage".into(),
        subtitle: "example/repository, 2026-11-01".into(),
        sections,
    }
}

fn ordinary() -> Page {
    page(vec![
        Section::new("Overview")
            .paragraph(
                "The key that hashes what the workflow means would have been hit most often.",
            )
            .figures([
                ("Entries", "312"),
                ("Size", "8.4 GB"),
                ("Of the limit", "84 %"),
                ("Saved", "41 min"),
            ])
            .table(table(4)),
        Section::new("Over time").chart(hits(365)).chart(kept(365)),
        Section::new("Size of a snapshot").treemap(map(6, 14)),
    ])
}

#[test]
fn page_is_readable_in_light_dark_and_on_every_screen() {
    let seen = render_html("ordinary", &ordinary().render()).fine();
    assert_eq!(seen.shots.len(), 5);
    for text in [
        "storecache usage",
        "Bytes kept",
        "84 %",
        "lock files only",
        "limit of the repository",
        "10 GB",
    ] {
        assert!(seen.text.contains(text), "{text} is not in {}", seen.text);
    }
}

#[test]
fn a_page_without_data_says_so() {
    let nothing = page(vec![
        Section::new("Nothing")
            .chart(Chart { title: "No points".into(), ..Chart::default() })
            .treemap(Treemap { title: "No tiles".into(), ..Treemap::default() })
            .table(Table::new("No rows").text("Name").number("Size")),
        Section::new("One of each")
            .chart(Chart {
                title: "One point".into(),
                y: Scale::Bytes,
                series: vec![
                    Series { name: "one".into(), points: vec![(START, 0.0)], ..Series::default() },
                    Series { name: "none".into(), ..Series::default() },
                ],
                ..Chart::default()
            })
            .treemap(map(1, 1))
            .table(table(1)),
    ]);
    let seen = render_html("empty", &nothing.render()).fine();
    assert_eq!(seen.text.matches("There is nothing to show yet.").count(), 2, "{}", seen.text);
    render_html("bare", &Page { title: "Bare".into(), ..Page::default() }.render()).fine();
}

#[test]
fn page_with_ten_thousand_runs_is_below_one_megabyte() {
    let huge = page(vec![
        Section::new("Over time").chart(hits(10_000)).chart(kept(10_000)),
        Section::new("Map").treemap(map(400, 500)),
        Section::new("Table").table(table(10_000)),
    ]);
    let html = huge.render();
    assert!(html.len() < 1_000_000, "{} bytes", html.len());
    let seen = render_html("huge", &html).fine();
    assert!(seen.text.contains("and 9800 more rows"));
}

#[test]
fn the_page_of_a_simulation_shows_every_policy_over_time() {
    let repository = history_of_ten_thousand_commits().write();
    let place = tempfile::tempdir().unwrap();
    let page = place.path().join("simulation.html");
    let hostile = "<b>both</b>=semantic+lock";
    let words = ["--since", "2y", "--entry-size", "1GB", "--policy", hostile, "--html"];
    repository.attempt(&[&words[..], &[page.to_str().unwrap()]].concat()).ok();
    assert!(std::fs::metadata(&page).unwrap().len() < 1_000_000);
    let seen = render_file(&page).fine();
    for text in ["Exact hits", "Bytes kept", "semantic", "version", "<b>both</b>", "10 GB"] {
        assert!(seen.text.contains(text), "{text} is not in {}", seen.text);
    }
}

/// Returns names that an attacker could choose for a key, a branch or an item.
fn hostile() -> Vec<String> {
    let mut names: Vec<String> = [
        "<script>document.title='owned';alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "' onmouseover='alert(1)",
        "</title></style></svg><iframe src=https://example.org/>",
        "]]><!--",
        "&lt;b&gt;&#60;",
        "javascript:alert(1)",
        "{{7*7}} ${7*7} %s %n",
        "abc\u{202E}gpj.exe",
        "\u{2066}isolated\u{2069}\u{200B}\u{FEFF}",
        "nul\0bell\u{7}escape\u{1b}[31m",
        "z\u{300}\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}\u{307}\u{308}\u{309}algo",
        "\u{5D0}\u{5D1}\u{5D2} \u{627}\u{644}\u{639}\u{631}\u{628}\u{64A}\u{629} 123",
        "\u{FDFD}\u{FDFD}\u{FDFD}\u{FDFD}",
        "👩‍👩‍👧‍👦 漢字漢字漢字漢字",
        "line\nbreak\r\nand\ttab",
        "",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("W".repeat(5_000));
    names.push("無".repeat(400));
    names
}

#[test]
fn hostile_names_show_as_text_and_do_nothing() {
    let names = hostile();
    let series = names.iter().map(|name| Series {
        name: name.clone(),
        points: vec![
            (START, 1.0),
            (f64::NAN, 2.0),
            (f64::INFINITY, 1e300),
            (START + DAY, f64::NAN),
            (START + 9.0 * DAY, 4.0),
        ],
        ..Series::default()
    });
    let series: Vec<_> = series.collect();
    let charts = series.chunks(6).zip(&names).map(|(series, name)| Chart {
        title: name.clone(),
        text: name.clone(),
        y: Scale::Count,
        series: series.to_vec(),
        limit: Some((name.clone(), 5.0)),
        events: Some(Events {
            name: name.clone(),
            at: names.iter().map(|name| (START + DAY, name.clone())).collect(),
        }),
    });
    let group = |name: &String| Group {
        name: name.clone(),
        tiles: names
            .iter()
            .map(|name| Tile {
                label: name.clone(),
                name: name.clone(),
                size: 1 << 20,
                dashed: false,
            })
            .collect(),
    };
    let mut rows = Table::new(names[0].clone()).text(&names[1]).number(&names[2]);
    names.iter().for_each(|name| rows.row([name, name]));
    let mut section = Section::new(names[3].clone()).paragraph(names[4].clone()).table(rows);
    section = names.iter().fold(section, |section, name| section.paragraph(name.clone()));
    section = section.figures(names.iter().map(|name| (name.clone(), name.clone())));
    section = charts.fold(section, Section::chart);
    section = section.treemap(Treemap {
        title: names[0].clone(),
        text: names[1].clone(),
        groups: names.iter().map(group).collect(),
        dashed: Some(names[2].clone()),
        ..Treemap::default()
    });
    let title = names[3].clone();
    let html =
        Page { title: title.clone(), subtitle: names[0].clone(), sections: vec![section] }.render();
    assert!(!html.contains(['\u{202E}', '\0', '\u{1b}', '\u{200B}']));

    let seen = render_html("hostile", &html).fine();
    for name in [&names[0], &names[1], &names[2], &names[3], &names[5]] {
        assert!(seen.text.contains(name.as_str()), "{name} does not show");
    }
}

/// The checks of these tests find each problem in a page that has all of them.
#[test]
fn page_checks_find_every_problem() {
    let seen = render_html(
        "wrong",
        "<!doctype html><title>x</title><style>p { color: #aaa; background: #fff } td { width: 9px }</style>\
         <p>pale</p><pre style='width: 1300px'>wide</pre><script>alert('run')</script>\
         <img src='https://example.org/x.png' alt=''>\
         <table><tr><td>a b c d e f g h i j k</table>\
         <svg class='plot wide' viewBox='0 0 100 100' width=500 height=500>\
         <text x=10 y=50>one</text><text x=12 y=51>two</text><text x=90 y=20>outside</text></svg>\
         <svg class='map wide' aria-label='m' viewBox='0 0 100 100' width=500 height=500>\
         <g><rect fill='#fff' width=20 height=20 /><text y=15>beyond</text></g>\
         <rect fill='#fff' width=9 height=9 /></svg>",
    );
    for problem in [
        "light 1200: contrast 2.32 of \"pale\"",
        "light 390: the page scrolls sideways",
        "an element that does not belong here",
        "an attribute style",
        "asks for https://example.org/x.png",
        "light 700: dialog: run",
        "\"one\" lies over \"two\"",
        "\"outside\" leaves its drawing",
        "\"beyond\" leaves its tile",
        "two tiles lie over each other",
        "a drawing without a name",
        "\"a b c d e f g h i j k\" is squeezed",
        "headings",
        "1200: dark is as light",
    ] {
        assert!(
            seen.problems.iter().any(|found| found.contains(problem)),
            "{problem}: {:#?}",
            seen.problems
        );
    }
    render_html("blank", "<!doctype html><title>x</title><h1></h1>")
        .problems
        .iter()
        .find(|found| found.ends_with("nothing shows"))
        .expect("an empty page is found");
}

#[test]
fn page_loads_no_external_resources() {
    let html = ordinary().render();
    for word in ["<script", "http:", "https:", "url(", "@import", "src=", "href="] {
        assert!(!html.contains(word), "{word}");
    }
    assert!(html.contains("content=\"default-src 'none'; style-src 'unsafe-inline'\""));
}

/// Returns the distance between two colors in CIELAB, as seen by an eye without one kind of cone. Source of the
/// matrices: Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
/// Deficiency" (2009), at severity 1.
fn apart(a: [f64; 3], b: [f64; 3], eye: &[[f64; 3]; 3]) -> f64 {
    let times = |matrix: &[[f64; 3]; 3], v: [f64; 3]| {
        matrix.map(|row| row.iter().zip(v).map(|(m, v)| m * v).sum::<f64>().clamp(0.0, 1.1))
    };
    let lab = |colour: [f64; 3]| {
        let linear = colour.map(|part| match part <= 0.04045 {
            true => part / 12.92,
            false => ((part + 0.055) / 1.055f64).powf(2.4),
        });
        let xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]];
        let [x, y, z] = times(&xyz, times(eye, linear).map(|part| part.min(1.0)));
        let root = |t: f64| if t > 0.008856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 };
        let [x, y, z] = [root(x / 0.95047), root(y), root(z / 1.08883)];
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    };
    let (a, b) = (lab(a), lab(b));
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn series_colors_differ_for_color_blind_readers() {
    let eyes = [
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ],
    ];
    let html = ordinary().render();
    let colours = |number: usize| -> Vec<[f64; 3]> {
        let name = format!("--s{number}: #");
        let found = html.match_indices(&name).map(|(at, _)| &html[at + name.len()..][..6]);
        let part =
            |hex: &str, at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap() as f64 / 255.0;
        found.map(|hex| [0, 2, 4].map(|at| part(hex, at))).collect()
    };
    let all: Vec<_> = (0..Chart::SERIES).map(colours).collect();
    for scheme in 0..2 {
        for (at, a) in all.iter().enumerate() {
            for (other, b) in all.iter().enumerate().skip(at + 1) {
                for eye in &eyes {
                    let apart = apart(a[scheme], b[scheme], eye);
                    assert!(apart > 15.0, "{at} and {other} in scheme {scheme}: {apart}");
                }
            }
        }
    }
}
