//! Restores of a whole closure from a local cache: storecache, and Nix with its binary cache in files.
//!
//! They run in a test world with the newest Nix, or with that of Debian 13, while its daemon runs. storecache has to
//! stop and start the daemon. `nix copy` runs through the daemon, as it does for all users except root, and past the
//! daemon, as root can, which is its fastest way. For comparison, another contender only creates the files, which is
//! the lower bound for all of them.

use std::time::Duration;

use anyhow::Result;

use super::record::{Figure, Quantity, Wanted, Work};
use super::rounds::{Contender, bytes_below, rounds};
use super::shell::sh;
use super::{Bench, UNSYNCED, US, files};
use crate::support::{Role, World};

const COPY: &str = "nix copy --from file://";
const PAST: &str = "nix copy past the daemon";
const FILES: &str = "the files alone";
const LONG: Duration = Duration::from_secs(600);

/// Measures against Nix 2.34.
pub fn newest(bench: &Bench) -> Result<Work> {
    let work = restore(bench, Role::New)?;
    Ok(Work { name: "nix".into(), title: "restore a closure into a running Nix".into(), ..work })
}

/// Measures against Nix 2.26.
pub fn of_debian(bench: &Bench) -> Result<Work> {
    let work = restore(bench, Role::Mid)?;
    let title = "restore a closure into a running Nix 2.26".into();
    Ok(Work { name: "nix-debian".into(), title, ..work })
}

fn restore(bench: &Bench, role: Role) -> Result<Work> {
    let corpus = bench.small()?;
    let world = World::new(role);
    let store = world.host("/nix");
    sh(&format!("cp -a {}/nix/. {}", corpus.root.display(), store.display()))?;
    world.start_daemon();
    let top = format!("/nix/store/{}", corpus.top);
    let nix = "nix --extra-experimental-features nix-command copy --no-check-sigs";
    let cache = "file:///cache/binary-cache";
    let copy = format!("{nix} --to '{cache}?compression=zstd' {top}");
    world.command(["bash", "-c", &copy]).timeout(LONG).ok();
    let ours = "storecache restore --store nix --backend dir:/cache --key bench --quiet --json";
    let saved = ours.replace("restore", "save");
    world.command(["bash", "-c", &saved]).user("runner").timeout(LONG).ok();

    let list = bench.ground.directory("list")?.join("files.json");
    files::list(&corpus.root.join("nix/store"), &list)?;
    let wiped = || {
        world.wipe_store();
        Ok(())
    };
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let enter = format!("nsenter --all --target {} -- env -i {path}", world.init());
    let runner =
        "HOME=/home/runner USER=runner setpriv --reuid runner --regid runner --init-groups";
    let of = |name: &str, script: String, user: &str| {
        let room: Vec<String> = format!("{enter} {user}").split(' ').map(str::to_owned).collect();
        let contender = Contender::new(name, script).in_room(&room).lands_on(&store);
        let contender = contender.reads(&world.backend().host_path());
        contender.after(wiped)
    };
    let entries = world.backend().host_path();
    let theirs = bytes_below(&entries.join("binary-cache"))?;
    let copy = format!("{nix} --from {cache} {top}");
    let contenders = [
        of(US, ours.to_owned(), runner).tells_bytes(),
        of(UNSYNCED, format!("{ours} --sync never"), runner).tells_bytes(),
        of(COPY, copy.clone(), "HOME=/root NIX_REMOTE=daemon").moves_bytes(theirs),
        of(PAST, copy, "HOME=/root").moves_bytes(theirs),
        Contender::new(FILES, files::script(&list, &store.join("store"))?)
            .lands_on(&store)
            .after(wiped),
    ];
    let series = rounds(bench.rounds, &contenders)?;
    Ok(Work {
        name: String::new(),
        title: String::new(),
        about: corpus.about.clone(),
        series,
        figures: [COPY, PAST]
            .into_iter()
            .flat_map(|peer| Figure::runs_against(peer, Wanted::AtLeast(5.0)))
            .chain([Figure {
                of: UNSYNCED.into(),
                over: FILES.into(),
                quantity: Quantity::Seconds,
                wanted: Wanted::Nothing,
            }])
            .collect(),
    })
}
