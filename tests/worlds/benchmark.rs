//! The benchmark against other programs, on a store that is too small for meaningful figures.

#[path = "../../benches/peers/mod.rs"]
mod peers;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Scratch, idle_machine};
use peers::record::{Quantity, Record, Wanted};
use peers::{Bench, PARTS, US, plot, table};

/// The parts that need nothing beyond what the other tests need.
const TESTED_PARTS: [&str; 5] = ["unpack-small", "unpack-tmpfs", "pack-small", "partial", "delta"];

fn text(number: usize) -> String {
    (0..2000).map(|line| format!("{}\n", (number + 7) * (line + 13) * 7919 % 65_537)).collect()
}

#[test]
fn bench_run_records_peers_and_renders_table_and_plot() {
    let scratch = Scratch::new();
    let trees = scratch.path().join("trees");
    for item in 0..40 {
        let directory = trees.join(format!("package-{item}/share"));
        fs::create_dir_all(&directory).unwrap();
        for file in 0..3 {
            fs::write(directory.join(format!("file-{file}")), text(item * 3 + file)).unwrap();
        }
    }
    let bench = Bench::on_trees(1, &trees).unwrap();
    let mut record = Record { rounds: 1, ..Record::default() };
    for name in TESTED_PARTS {
        let part = PARTS.iter().find(|part| part.name == name).unwrap();
        let work = bench.run(part).unwrap();
        assert_eq!(work.name, name);
        assert_eq!(work.series[0].name, US);
        assert!(work.series.len() > 1, "{name} has peers");
        for series in &work.series {
            assert_eq!(series.samples.len(), 1, "{name} {}", series.name);
        }
        record.works.push(work);
    }
    // This holds at any size: if less is needed, less is fetched and written.
    for (name, at_least) in [("partial", 4.0), ("delta", 4.0)] {
        let work = record.works.iter().find(|work| work.name == name).unwrap();
        let bytes = work.figures.iter().find(|figure| figure.quantity == Quantity::Bytes).unwrap();
        let ratio = work.ratio(bytes).unwrap();
        assert!(ratio.median > at_least, "{name}: {ratio:?}");
    }

    let kept = serde_json::to_string(&record).unwrap();
    let mut read = Record::parse(&kept).unwrap();
    let again = Record { works: vec![record.works[1].clone()], ..Record::default() };
    read.update(again, &PARTS.map(|part| part.name));
    assert_eq!(read.works.iter().map(|work| work.name.as_str()).collect::<Vec<_>>(), TESTED_PARTS);

    let [(name, all), (_, chosen)] = table::pages(&record);
    let page = table::in_page(&file(name), &all).unwrap();
    assert!(page.contains("| restore, 90 % present | "), "{page}");
    assert_eq!(table::in_page(&page, &all).unwrap(), page);
    assert!(!chosen.contains("| restore, 90 % present | "), "{chosen}");
    assert!(chosen.contains("| save, 3 % of the items new | "), "{chosen}");
    let svg = plot::svg(&record);
    assert_eq!(svg.matches("<path").count(), count_bars(&record), "{svg}");
    assert!(svg.contains("zstd -dc | tar -x") && !svg.contains("NaN"), "{svg}");
}

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn tables_of_the_pages_match_the_record() {
    let record = Record::parse(&file("docs/bench.json")).unwrap();
    for (name, rows) in table::pages(&record) {
        let page = file(name);
        let written = table::in_page(&page, &rows).unwrap();
        assert_eq!(page, written, "{name}: scripts/bench --write makes the table");
    }
    let [_, (_, chosen)] = table::pages(&record);
    assert_eq!(chosen.lines().filter(|line| line.starts_with("| ")).count(), 6, "{chosen}");
}

#[test]
fn busy_machine_is_refused() {
    let mut busy = Command::new("bash").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let refused = idle_machine::require();
    busy.kill().unwrap();
    busy.wait().unwrap();
    let refused = refused.unwrap_err();
    assert!(refused.starts_with("the machine is busy: "), "{refused}");
}

fn count_bars(record: &Record) -> usize {
    record.works.iter().map(|work| work.series.len()).sum()
}

#[test]
fn bench_ratio_uses_medians_and_is_compared_with_its_target() {
    let sample =
        |seconds: f64| format!(r#"{{"seconds": {seconds}, "on_disk": {seconds}, "processor": 0}}"#);
    let series = |name: &str, seconds: [f64; 3]| {
        let samples = seconds.map(sample).join(",");
        format!(r#"{{"name": "{name}", "script": "true", "samples": [{samples}]}}"#)
    };
    let figure = r#"{"of": "peer", "over": "storecache", "quantity": "seconds", "wanted": {"atleast": 2.0}}"#;
    let (ours, theirs) = (series("storecache", [1.0, 9.0, 2.0]), series("peer", [6.0, 5.0, 3.0]));
    let record = format!(
        r#"{{"machine": {{}}, "rounds": 3, "works": [{{"name": "w", "title": "t", "about": "a",
            "series": [{ours}, {theirs}], "figures": [{figure}]}}]}}"#
    );
    let record = Record::parse(&record).unwrap();
    let work = &record.works[0];
    let ratio = work.ratio(&work.figures[0]).unwrap();
    assert_eq!((ratio.median, ratio.most), (2.5, 6.0));
    assert!((ratio.least - 5.0 / 9.0).abs() < 1e-9);
    assert_eq!(work.figures[0].wanted, Wanted::AtLeast(2.0));
    assert_eq!(work.figures[0].wanted.reached(2.5), Some(true));
    assert_eq!(Wanted::AtMost(1.1).reached(1.2), Some(false));
    assert_eq!(Wanted::Within(0.02).reached(0.985), Some(true));
    assert_eq!(Wanted::Nothing.reached(1.0), None);
}
