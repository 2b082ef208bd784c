mod support;
use support::injector::*;
use support::runs::*;
use support::{Fixture, Role, World};
use std::collections::BTreeMap;
#[test]
fn count() {
    let role = if std::env::var("GUIX").is_ok() { Role::Guix } else { Role::Mid };
    let world = World::with_fixture(role, Fixture::Small);
    world.start_daemon();
    for verb in ["save", "restore"] {
        if verb == "restore" { world.wipe_store(); }
        let injector = Injector::counting();
        let words = [verb].into_iter().chain(flags(&world)).chain(["--json"]);
        let started = std::time::Instant::now();
        let out = world.storecache_as("runner", words).under(&injector).run();
        println!("{out} {:?}", started.elapsed());
        let mut counts = BTreeMap::new();
        for call in injector.calls() { *counts.entry((call.half, call.kind)).or_insert(0) += 1; }
        println!("{verb} {} {counts:#?}", injector.calls().len());
        std::fs::write(format!("/tmp/inject/{verb}-{role:?}.txt"), injector.calls().iter().map(|c| format!("{c:?}\n")).collect::<String>()).unwrap();
    }
}
