//! Tests of the main job on real stores: save, wipe, restore, and then let Nix check the result.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::support::world_runs::{
    NIX_FLAGS, assert_same, attempt, record_state, report, restore, run, save, staging,
};
use crate::support::{Fixture, Role, World, store_content};
use serde_json::Value;

#[test]
fn user_with_sudo_saves_and_restores_a_wiped_store() {
    for role in Role::ALL {
        let world = World::with_fixture(role, Fixture::Small);
        world.start_daemon();
        let before = record_state(&world);
        let top = world.assert_nothing_to_build(role, Fixture::Small);
        let query = |what| world.nix(["nix-store", "--query", what, &top]).ok().stdout;
        let queries = || ["--requisites", "--references", "--hash", "--size"].map(query);
        let queried = queries();
        let saved = save(&world);
        assert_eq!(saved["items"]["saved"], before.references.len());
        assert_eq!(saved["hit"], "miss");

        world.wipe_store();
        assert!(world.valid_paths().is_empty());
        let first_pid = world.daemon_pid();
        let restored = restore(&world);
        assert_eq!(restored["hit"], "exact");
        assert_eq!(restored["items"]["restored"], before.references.len());
        assert_eq!(restored["entry"], saved["entry"]);
        assert_ne!(world.daemon_pid(), first_pid, "the daemon was restarted");
        assert!(world.daemon_answers());

        assert_same(&before, &record_state(&world));
        assert_eq!(queries(), queried);
        assert_eq!(staging(&world), [""; 0]);
        world.assert_nothing_to_build(role, Fixture::Small);
        world.verify_store();
        world.nix(["nix-collect-garbage"]).ok();
        assert_same(&before, &record_state(&world));
        world.assert_nothing_to_build(role, Fixture::Small);
    }
}

#[test]
fn restored_rows_equal_the_saved_ones_except_ultimate() {
    let world = World::with_fixture(Role::New, Fixture::Small);
    world.start_daemon();
    let before = world.registrations();
    save(&world);
    world.wipe_store();
    restore(&world);
    for (path, row) in world.registrations() {
        let mut expected = before[&path].clone();
        expected.ultimate = false;
        assert_eq!(row, expected, "{path}");
    }
}

#[test]
fn restore_copies_columns_that_both_databases_have() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    let sql = |text: &str| world.sh(&format!("sqlite3 /nix/var/nix/db/db.sqlite '{text}'")).stdout;
    sql("alter table ValidPaths add column note text");
    sql("alter table ValidPaths add column theirs text");
    sql("update ValidPaths set note = id || \"!\", theirs = 1");
    let before = sql("select path, id || \"!\" from ValidPaths order by path");
    save(&world);
    world.wipe_store();
    world.ok(["nix-store", "--init"]);
    sql("alter table ValidPaths add column ours text default \"new\"");
    sql("alter table ValidPaths add column note text");
    restore(&world);
    assert_eq!(sql("select path, note from ValidPaths order by path"), before);
    assert_eq!(sql("select distinct ours from ValidPaths"), "new\n");
    world.start_daemon();
    world.verify_store();
}

#[test]
fn a_second_restore_does_nothing_and_says_so() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    save(&world);
    let pid = world.daemon_pid();
    let before = record_state(&world);
    // Restore into the store that was saved.
    let again = restore(&world);
    assert_eq!(again["hit"], "exact");
    assert_eq!(again["items"]["restored"], 0);
    assert_eq!(again["items"]["present"], before.references.len());
    assert!(again["reason"].as_str().unwrap().contains("nothing to do"));
    assert_eq!(world.daemon_pid(), pid, "the daemon was left alone");
    assert_same(&before, &record_state(&world));

    world.wipe_store();
    assert_ne!(restore(&world)["items"]["restored"], 0);
    let pid = world.daemon_pid();
    let words = ["restore"].iter().chain(&NIX_FLAGS);
    let output = world.storecache_as("runner", words).ok();
    assert!(output.stderr.contains("nothing to do"), "{output}");
    assert_eq!(world.daemon_pid(), pid);
}

#[test]
fn restore_adds_missing_items_and_keeps_live_rows() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    let before = record_state(&world);
    save(&world);
    // Delete the items that only the root of the fixture kept, and keep half of those that refer to nothing.
    world.sh("rm /nix/var/nix/gcroots/fixture");
    let leaves = before.references.iter().filter(|(_, references)| references.is_empty());
    for (at, (path, _)) in leaves.enumerate().filter(|(at, _)| at % 2 == 0) {
        world.sh(&format!("ln -s {path} /nix/var/nix/gcroots/kept-{at}"));
    }
    world.nix(["nix-collect-garbage"]).ok();
    let kept = world.registrations();
    assert!(!kept.is_empty() && kept.len() < before.references.len());
    // The changed registration times show that the live rows are not touched.
    world.sh("sqlite3 /nix/var/nix/db/db.sqlite 'update ValidPaths set registrationTime = 12345'");
    let kept = world.registrations();

    let restored = restore(&world);
    assert_eq!(restored["items"]["present"], kept.len());
    assert_eq!(restored["items"]["restored"], before.references.len() - kept.len());
    assert_same(&before, &record_state(&world));
    let after = world.registrations();
    for (path, row) in kept {
        assert_eq!(after[&path], row, "{path} was valid before and is as it was");
    }
    world.verify_store();
}

#[test]
fn snapshot_restores_into_other_nix_versions() {
    for (from, to) in [(Role::Old, Role::New), (Role::New, Role::Old), (Role::Mid, Role::New)] {
        let saver = World::with_fixture(from, Fixture::Small);
        saver.start_daemon();
        let before = record_state(&saver);
        save(&saver);
        let restorer = World::build(to).backend(saver.backend()).start();
        restorer.start_daemon();
        let restored = restore(&restorer);
        assert_eq!(restored["items"]["restored"], before.references.len());
        assert_same(&before, &record_state(&restorer));
        restorer.assert_nothing_to_build(from, Fixture::Small);
        restorer.verify_store();
    }
}

#[test]
fn restore_merges_into_a_store_with_other_items() {
    let saver = World::with_fixture(Role::Mid, Fixture::Small);
    saver.start_daemon();
    let theirs = record_state(&saver);
    save(&saver);
    let world = World::build(Role::New).fixture(Fixture::Small).backend(saver.backend()).start();
    world.start_daemon();
    let ours = record_state(&world);
    restore(&world);
    let both = record_state(&world);
    for (path, tree) in ours.trees.iter().chain(&theirs.trees) {
        assert_eq!(&both.trees[path], tree, "{path}");
    }
    world.assert_nothing_to_build(Role::New, Fixture::Small);
    world.assert_nothing_to_build(Role::Mid, Fixture::Small);
    world.verify_store();
}

#[test]
fn save_includes_rows_that_are_only_in_the_wal() {
    // Nix has been idle since its last start: db.sqlite does not even have a table.
    let world = World::with_fixture(Role::New, Fixture::Full);
    let before = world.references_of_all();
    let saved = save(&world);
    assert_eq!(saved["items"]["saved"], before.len());
    world.wipe_store();
    world.start_daemon();
    restore(&world);
    assert_eq!(world.references_of_all(), before);
    world.verify_store();
}

#[test]
fn restore_merges_with_rows_in_a_live_wal() {
    let world = World::with_fixture(Role::New, Fixture::Small);
    world.start_daemon();
    let before = record_state(&world);
    save(&world);
    world.wipe_store();
    // The live database has rows of its own in a log without a checkpoint.
    world.sh("echo mine >/tmp/mine");
    let mine = world.nix(["nix-store", "--add", "/tmp/mine"]).ok().stdout.trim().to_owned();
    restore(&world);
    let after = world.valid_paths();
    assert!(after.contains(&mine));
    assert_eq!(after.len(), before.references.len() + 1);
    world.verify_store();
}

#[test]
fn optimised_store_is_restored_with_every_file() {
    let world = World::with_fixture(Role::Old, Fixture::Optimised);
    world.start_daemon();
    let before = record_state(&world);
    save(&world);
    world.wipe_store();
    restore(&world);
    assert_same(&before, &record_state(&world));
    let links = world.sh("ls -A /nix/store/.links").stdout;
    assert_eq!(links, "", "the links of the optimiser are not packed");
    world.verify_store();
    world.nix(["nix-store", "--optimise"]).ok();
    world.verify_store();
}

#[test]
fn store_with_hundreds_of_packages_is_restored() {
    let world = World::with_fixture(Role::Old, Fixture::Full);
    world.start_daemon();
    let before = record_state(&world);
    assert!(before.trees.len() > 400);
    assert!(before.trees.values().map(BTreeMap::len).sum::<usize>() > 30_000);
    save(&world);
    world.wipe_store();
    restore(&world);
    assert_same(&before, &record_state(&world));
    world.verify_store();
    world.assert_nothing_to_build(Role::Old, Fixture::Full);
}

#[test]
fn unregistered_files_are_not_saved_and_are_replaced() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    let before = record_state(&world);
    let planted = store_content::add_unregistered_files(&world);
    save(&world);
    let names = world.sh("zstd -dc /cache/*.tar.zst | tar -t").stdout;
    for name in &planted {
        assert!(!names.contains(&format!("nix/store/{name}")), "{name} was packed");
    }
    let tops: BTreeSet<String> = names
        .lines()
        .filter_map(|line| line.strip_prefix("nix/store/"))
        .map(|below| format!("/nix/store/{}", below.split('/').next().unwrap()))
        .collect();
    assert_eq!(tops, before.references.keys().cloned().collect(), "exactly the valid items");

    // A directory and a file are in the place of items; for Nix these items are not valid.
    world.wipe_store();
    let mut paths = before.references.keys();
    let (one, other) = (paths.next().unwrap(), paths.next().unwrap());
    world.sh(&format!("mkdir -p {one}/wrong; echo wrong >{other}"));
    let restored = restore(&world);
    assert_eq!(restored["items"]["restored"], before.references.len());
    assert_same(&before, &record_state(&world));
    assert_eq!(staging(&world), [""; 0]);
}

#[test]
fn restore_skips_items_with_missing_references() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    let before = world.references_of_all();
    // One item's files are lost before the save; the items that need it cannot be restored either.
    let lost = before.keys().find(|path| path.ends_with("-middle")).unwrap().clone();
    world.sh(&format!("chmod -R u+w {lost}; rm -r {lost}"));
    let saved = save(&world);
    assert_eq!(saved["items"]["skipped"], 1);
    assert_eq!(saved["skipped"][0][0], lost.trim_start_matches("/nix/store/"));

    world.wipe_store();
    let restored = restore(&world);
    let after = world.references_of_all();
    let mut needing = BTreeSet::from([lost.clone()]);
    loop {
        let more: BTreeSet<String> = before
            .iter()
            .filter(|(_, references)| !references.is_disjoint(&needing))
            .map(|(path, _)| path.clone())
            .collect();
        if more.is_subset(&needing) {
            break;
        }
        needing.extend(more);
    }
    let expected: BTreeSet<_> = before.keys().filter(|path| !needing.contains(*path)).collect();
    assert_eq!(after.keys().collect::<BTreeSet<_>>(), expected);
    assert!(needing.len() > 1);
    assert_eq!(restored["items"]["skipped"], needing.len());
    world.verify_store();
}

#[test]
fn new_store_is_restored_with_and_without_a_daemon() {
    for (role, daemon) in
        [(Role::Old, true), (Role::New, true), (Role::Old, false), (Role::New, false)]
    {
        let saver = World::with_fixture(role, Fixture::Small);
        save(&saver);
        let before = record_state(&saver);
        let world = World::build(role).backend(saver.backend()).start();
        if daemon {
            world.start_daemon();
            world.sh("rm -rf /nix/var/nix/db/* /nix/store");
        }
        restore(&world);
        assert_same(&before, &record_state(&world));
        if !daemon {
            world.start_daemon();
        }
        world.assert_nothing_to_build(role, Fixture::Small);
        world.verify_store();
    }
}

#[test]
fn store_under_another_root_is_saved_and_restored() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    let before = record_state(&world);
    // The root has no program of Nix: the version comes from the daemon inside.
    let root = world.host("/nix").parent().unwrap().display().to_string();
    let backend = format!("dir:{}", world.backend().host_path().display());
    let outside = |verb: &str| {
        let words = [verb, "--store", "nix", "--root", &root, "--backend", &backend, "--json"];
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_storecache"))
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let saved = outside("save");
    assert!(saved["key"].as_str().unwrap().ends_with("-2.26.3"), "{}", saved["key"]);
    world.wipe_store();
    let pid = world.daemon_pid();
    let restored = outside("restore");
    assert_eq!(restored["items"]["restored"], before.references.len());
    assert_same(&before, &record_state(&world));
    assert_ne!(world.daemon_pid(), pid);
    assert!(world.daemon_answers());
    world.assert_nothing_to_build(Role::Mid, Fixture::Small);
    world.verify_store();
}

/// Mounts the file system in the file `/disk`.
fn mount_disk(world: &World, at: &str) {
    world.sh(&format!(
        "mknod /dev/loop-control c 10 237
         for n in {{0..255}}; do mknod /dev/loop$n b 7 $n; done
         mount -o loop /disk {at}"
    ));
}

/// The test reads the disk through a copy, without the data that was not yet written.
#[test]
fn restore_is_durable_after_a_power_cut() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    let items = save(&world)["items"]["saved"].as_u64().unwrap();
    world.wipe_store();
    world.stop_daemon();
    // Move the world's `/nix` to a disk that is a file.
    let (nix, disk) = (world.host("/nix"), world.host("/disk"));
    let made = Command::new("mkfs.ext4").args(["-q", "-d"]).args([nix, disk]).arg("400M").output();
    assert!(made.unwrap().status.success());
    mount_disk(&world, "/nix");
    let restored = restore(&world);
    assert_eq!(restored["items"]["restored"], items);
    world.sh("cp /disk /after; umount /nix; mount -o loop /after /nix");
    let valid = world.sh("sqlite3 /nix/var/nix/db/db.sqlite 'select count(*) from ValidPaths'");
    assert_eq!(valid.stdout.trim(), items.to_string());
    world.ok(["nix-store", "--verify", "--check-contents"]);
}

#[test]
fn save_is_durable_after_a_power_cut() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    let disk = world.host("/disk");
    let made = Command::new("mkfs.ext4").arg("-q").arg(disk).arg("200M").output();
    assert!(made.unwrap().status.success());
    world.sh("mkdir /entries");
    mount_disk(&world, "/entries");
    let there = "--store nix --key test --backend dir:/entries --json";
    let saved = report(&world.sh(&format!("storecache save {there}")));
    world.sh("cp /disk /after; umount /entries; mount -o loop /after /entries");
    let verified = report(&world.sh(&format!("storecache verify {there}")));
    assert_eq!(verified["items"], saved["items"]["saved"]);
}

#[test]
fn sync_auto_is_off_on_github_hosted_runners() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    save(&world);
    let waits = |environment: &str, sync: &str| {
        let command = format!(
            "{environment} storecache save --full {} --sync {sync} --json",
            NIX_FLAGS.join(" ")
        );
        let saved = report(&world.sh(&command));
        assert_eq!(saved["saved"], true);
        let saving = saved["seconds"]["sync"].as_f64().unwrap() > 0.0;
        world.wipe_store();
        let command = format!(
            "{environment} storecache restore {} --sync {sync} --json",
            NIX_FLAGS.join(" "),
        );
        let restored = report(&world.sh(&command));
        assert_eq!(restored["hit"], "exact");
        assert!(restored["items"]["restored"].as_u64() > Some(0));
        let restoring = restored["seconds"]["sync"].as_f64().unwrap() > 0.0;
        assert_eq!(saving, restoring);
        restoring
    };
    let hosted = "RUNNER_ENVIRONMENT=github-hosted";
    assert!(waits("", "auto"));
    assert!(waits("RUNNER_ENVIRONMENT=self-hosted", "auto"));
    assert!(!waits(hosted, "auto"));
    assert!(waits(hosted, "always"));
    assert!(!waits("", "never"));
}

#[test]
fn root_runs_without_sudo() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    let before = record_state(&world);
    world.sh("mv /usr/bin/sudo /usr/bin/sudo.away");
    run(&world, "root", "save", &[]);
    world.wipe_store();
    run(&world, "root", "restore", &[]);
    assert_same(&before, &record_state(&world));
}

#[test]
fn restored_items_belong_to_the_store_owner() {
    // A store of one user, without a daemon: the restored items of root's store become this user's.
    let saver = World::with_fixture(Role::Mid, Fixture::Small);
    saver.start_daemon();
    let before = record_state(&saver);
    save(&saver);
    let world = World::build(Role::Mid).backend(saver.backend()).start();
    world.sh("rm -rf /nix/* && install -d -o runner -g runner /nix/store /nix/var/nix");
    world.run_as("runner", ["nix-store", "--init"]).ok();
    restore(&world);
    assert_eq!(world.references_of_all(), before.references);
    assert_eq!(world.sh("find /nix/store /nix/var/nix ! -user runner").stdout, "");
    world.run_as("runner", ["nix-store", "--verify", "--check-contents"]).ok();
    let rest = world.run_as("runner", ["nix-store", "--gc"]).ok();
    assert!(rest.stdout.starts_with("0 store paths deleted"), "{rest}");
    world.sh("rm -r /nix/var/nix/gcroots/storecache");
    world.run_as("runner", ["nix-store", "--gc"]).ok();
    assert!(world.valid_paths().is_empty(), "their owner can delete them");
}

/// Two cases of a user without sudo: sudo refuses, or is not installed.
#[test]
fn user_without_sudo_saves_and_restores_own_files() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    let before = record_state(&world);
    world.sh("mkdir -p /home/nosudo/mine && echo mine >/home/nosudo/mine/file
         chown -R nosudo:nosudo /home/nosudo");
    let plain = |verb: &str, path: &str| {
        let words =
            [verb, "--store", "plain", "--backend", "dir:/cache", "--key", "mine", "--path", path];
        world.storecache_as("nosudo", words).run()
    };
    for sudo in ["refuses", "is missing"] {
        if sudo == "is missing" {
            world.sh("mv /usr/bin/sudo /usr/bin/sudo.away");
        }
        plain("save", "/home/nosudo/mine").ok();
        world.sh("rm -r /home/nosudo/mine");
        plain("restore", "/home/nosudo/mine").ok();
        assert_eq!(world.sh("stat -c %U /home/nosudo/mine/file").stdout, "nosudo\n", "{sudo}");
        let failed = plain("save", "/root").fails();
        assert!(failed.stderr.contains("with the rights of user 1002"), "{sudo}: {failed}");

        world.sh("chown -hR nosudo:nosudo /nix");
        attempt(&world, "nosudo", "save", &[]).ok();
        world.sh("rm -rf /nix/* && install -d -o nosudo -g nosudo /nix/store /nix/var/nix");
        world.run_as("nosudo", ["nix-store", "--init"]).ok();
        attempt(&world, "nosudo", "restore", &[]).ok();
        assert_eq!(world.references_of_all(), before.references, "{sudo}");
        world.run_as("nosudo", ["nix-store", "--verify", "--check-contents"]).ok();
        world.sh("rm /cache/*");
    }
}

#[test]
fn missing_sudo_is_one_error_and_changes_nothing() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    for verb in ["save", "restore"] {
        let refused = attempt(&world, "nosudo", verb, &[]).fails();
        assert_eq!(refused.code(), 1);
        assert!(refused.stderr.contains("sudo refused"), "{refused}");
        assert!(report(&refused)["reason"].as_str().unwrap().contains("sudo refused"));
    }
    world.sh("mv /usr/bin/sudo /usr/bin/sudo.away");
    let missing = attempt(&world, "runner", "save", &[]).fails();
    assert!(missing.stderr.contains("sudo is not installed"), "{missing}");
    let of_guix = ["save", "--store", "guix", "--backend", "dir:/cache", "--key", "key"];
    let none = world.storecache_as("runner", of_guix).run().fails();
    let said = none.messages().join("\n");
    assert!(said.contains("no guix store found") && !said.contains("sudo"), "{none}");
    assert_eq!(world.sh("ls /cache").stdout, "");
}

#[test]
fn dry_run_writes_nothing_and_reports_the_plan() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    let before = record_state(&world);
    let dry = run(&world, "runner", "save", &["--dry-run"]);
    assert_eq!(dry["items"]["saved"], before.references.len());
    assert!(dry["bytes"]["snapshot"].as_u64().unwrap() > 1_000_000);
    assert_eq!(dry["bytes"]["uploaded"], 0);
    assert_eq!(world.sh("ls -A /cache").stdout, "");

    save(&world);
    world.wipe_store();
    let listing = world.store_listing();
    let pid = world.daemon_pid();
    let dry = run(&world, "runner", "restore", &["--dry-run"]);
    assert_eq!(dry["hit"], "exact");
    assert_eq!(dry["items"]["restored"], before.references.len());
    assert_eq!(world.store_listing(), listing);
    assert!(world.valid_paths().is_empty());
    assert_eq!(world.daemon_pid(), pid);
}

#[test]
fn save_refuses_a_database_that_cannot_be_restored() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    world.sh("sqlite3 /nix/var/nix/db/db.sqlite 'PRAGMA foreign_keys = OFF;
         INSERT INTO Refs SELECT min(id), 999999 FROM ValidPaths'");
    let refused = attempt(&world, "runner", "save", &[]).fails();
    assert!(refused.stderr.contains("refers to a missing row"), "{refused}");
    assert_eq!(world.sh("ls -A /cache").stdout, "");
}

#[test]
fn restore_key_finds_the_newest_entry_of_a_prefix() {
    let world = World::with_fixture(Role::Mid, Fixture::Small);
    world.start_daemon();
    let words =
        |verb, key| [verb, "--store", "nix", "--backend", "dir:/cache", "--key", key, "--json"];
    for key in ["a-1", "a-2", "b-1"] {
        world.storecache_as("runner", words("save", key)).ok();
    }
    let more = ["--restore-key", "none-", "--restore-key", "a-"];
    let restored = world.storecache_as("runner", words("restore", "a-9").iter().chain(&more)).ok();
    let restored = report(&restored);
    assert_eq!(restored["hit"], "prefix");
    assert_eq!(restored["key"], "a-9");
    assert_eq!(restored["matched_key"], "a-2");

    let missed = world.storecache_as("runner", words("restore", "c")).ok();
    let missed = report(&missed);
    assert_eq!(missed["hit"], "miss");
    assert!(missed["reason"].as_str().unwrap().contains("no entry"));
    let output = world
        .storecache_as("runner", words("restore", "c").iter().chain(&["--fail-on-miss"]))
        .run();
    assert_eq!(output.code(), 3);
}

#[test]
fn two_saves_of_an_unchanged_store_have_identical_data_frames() {
    let world = World::with_fixture(Role::New, Fixture::Small);
    world.start_daemon();
    save(&world);
    run(&world, "runner", "save", &["--full"]);
    let data = |at: usize| {
        let file = world.sh("ls /cache/*.tar.zst").lines()[at].clone();
        let inspected = world.storecache(["inspect", "--json", "--items", &file]).ok();
        let inspected = report(&inspected);
        (
            inspected["item_list"].clone(),
            inspected["frames"].clone(),
            world.sh(&format!("zstd -dc {file} | sha256sum")).stdout,
            frames(&world, &file),
        )
    };
    assert_eq!(data(0), data(1));
}

/// Returns the bytes between head and index.
fn frames(world: &World, file: &str) -> Vec<u8> {
    let bytes = std::fs::read(world.backend().host_path().join(file.trim_start_matches("/cache/")))
        .unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let head = 8 + word(4);
    let count = word(bytes.len() - 9);
    let table = 8 + 9 + count * 8;
    let index = word(bytes.len() - 9 - 8);
    bytes[head..bytes.len() - table - index].to_vec()
}
