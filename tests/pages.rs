//! The pages that verbs write with `--html`, as people see them.

mod support;

use support::browser::look_at_file;
use support::history::{DAY, History, WORKFLOW, workflow};

#[test]
fn a_simulation_is_a_page_with_hits_bytes_and_evictions_for_each_key() {
    let mut history = History::default();
    for day in 0..60 {
        let text = workflow(&format!("build {}", day / 20), &format!("edited {day}"));
        history.commit("main", day * DAY, &[], &[(WORKFLOW, &text)]);
    }
    let repository = history.write();
    let page = repository.path().join("simulation.html");
    let name = "<script>alert(1)</script>&'\"\u{202e}";
    let policy = format!("{name}=files:.github/**");
    let html = page.to_str().unwrap();
    let words = ["--html", html, "--entry-size", "3GB", "--policy", &policy];
    let report = repository.simulate(&words);
    let seen = look_at_file(&page).fine();
    let best = report["best"]["policy"].as_str().unwrap();
    let reason = report["best"]["reason"].as_str().unwrap();
    let of = |policy: &str, field: &str| {
        let policies = report["policies"].as_array().unwrap();
        policies.iter().find(|it| it["policy"] == policy).unwrap()[field].as_u64().unwrap()
    };
    assert!(of("bytes", "evictions") > 0);
    for words in [
        "Which key would have served the past best",
        "60 runs of .github/workflows",
        &format!("{best}: {reason}."),
        "Exact hits",
        "Hits of any kind",
        "Bytes kept",
        "entries were evicted",
        "limit",
        "<script>alert(1)</script>",
        "every commit is a run",
    ] {
        assert!(seen.text.contains(words), "{words}\n{}", seen.text);
    }
    for policy in ["bytes", "semantic", "lock", "version"] {
        let row = seen.text.lines().find(|line| line.starts_with(&format!("{policy}\t")));
        let cells: Vec<_> = row.unwrap_or_else(|| panic!("{}", seen.text)).split('\t').collect();
        assert_eq!(cells[5], of(policy, "entries_written").to_string(), "{cells:?}");
        assert_eq!(cells[8], of(policy, "evictions").to_string(), "{cells:?}");
    }
}
