//! Tests of plain stores: directories that root owns are saved, and restored unchanged.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::plain_env::{self, PlainEnv, assert_same_tree, set_mtime};
use crate::support::world_runs::report;
use rustix::fs::{CWD, Mode, XattrFlags, mknodat, setxattr};

const TOOL: &str = "/opt/tool";
const DATA: &str = "/var/lib/data";

/// Returns a fixture whose directory `/opt/tool` is saved.
fn saved_tool() -> PlainEnv {
    let place = PlainEnv::filled();
    place.save(&[TOOL]);
    place
}

/// Changes one byte in the middle of the data frames of the newest entry.
fn damage(place: &PlainEnv) {
    let file = place.snapshot();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&file, bytes).unwrap();
}

#[test]
fn restore_recreates_owners_modes_times_and_links() {
    let place = PlainEnv::filled();
    let before = place.tree(TOOL);
    let saved = place.save(&[TOOL]);
    assert_eq!(saved["items"]["saved"], 1);
    place.remove(TOOL);
    let restored = place.restore(&[TOOL], &[]);
    assert_eq!(restored["hit"], "exact");
    assert_eq!(restored["items"]["restored"], 1);
    let after = place.tree(TOOL);
    assert_same_tree(&before, &after);

    // Check that the tree has the special cases.
    let entry = |name: &str| &after[Path::new(name)];
    assert_eq!(entry("bin/setuid").entry.mode & 0o7777, 0o4755);
    assert_eq!(entry("old").entry.mtime, (-86_401, 750_000_000));
    assert_eq!(entry("same-file").same_file_as, Some("one".into()));
    assert_eq!(entry("").gid, 1002);
    assert_eq!(place.leftovers(), [""; 0]);
}

#[test]
fn parent_setgid_and_default_acl_do_not_change_restored_files() {
    let place = PlainEnv::filled();
    let neighbours = place.host(TOOL).join("neighbours");
    fs::create_dir(&neighbours).unwrap();
    let kinds = [(0, 0, 0o644), (0, 77, 0o644), (0, 77, 0o666), (9, 77, 0o666), (0, 77, 0o640)];
    for (number, (uid, gid, mode)) in kinds.iter().chain(&kinds).enumerate() {
        let file = neighbours.join(number.to_string());
        fs::write(&file, number.to_string()).unwrap();
        chown(&file, Some(*uid), Some(*gid)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(*mode)).unwrap();
    }
    let before = place.tree(TOOL);
    place.save(&[TOOL]);
    place.remove(TOOL);

    // Files that are created here get group 77, and no rights for others.
    let above = place.host(TOOL).parent().unwrap().to_owned();
    chown(&above, None, Some(77)).unwrap();
    fs::set_permissions(&above, fs::Permissions::from_mode(0o2755)).unwrap();
    // Version 2, then tag, rights and no ID of owner, group and others
    // (Linux:include/uapi/linux/posix_acl_xattr.h).
    let list: Vec<u8> = [(1_u16, 7_u16), (4, 7), (0x20, 0)]
        .iter()
        .flat_map(|(tag, rights)| {
            [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &[0xff; 4]].concat()
        })
        .collect();
    let list = [&2_u32.to_le_bytes()[..], &list].concat();
    setxattr(&above, "system.posix_acl_default", &list, XattrFlags::empty()).unwrap();
    let probe = above.join("probe");
    fs::write(&probe, "").unwrap();
    let probe = fs::metadata(&probe).unwrap();
    assert_eq!((probe.gid(), probe.mode() & 0o7777), (77, 0o660), "it matters");

    place.restore(&[TOOL], &[]);
    assert_same_tree(&before, &place.tree(TOOL));
}

#[test]
fn restore_creates_missing_parents() {
    let place = saved_tool();
    let before = place.tree(TOOL);
    place.remove("/opt");
    place.restore(&[TOOL], &[]);
    assert_same_tree(&before, &place.tree(TOOL));
    let mode = fs::metadata(place.host("/opt")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
fn a_second_restore_does_nothing_and_says_so() {
    let place = saved_tool();
    let inode = |place: &PlainEnv| fs::metadata(place.host(TOOL)).unwrap().ino();
    let before = inode(&place);
    let again = place.restore(&[TOOL], &[]);
    assert_eq!(again["hit"], "exact");
    assert_eq!(again["items"]["restored"], 0);
    assert_eq!(again["items"]["present"], 1);
    assert!(again["reason"].as_str().unwrap().contains("nothing to do"));
    let replaced = place.restore(&[TOOL], &["--mode", "replace"]);
    assert_eq!(replaced["items"]["present"], 1);
    assert_eq!(inode(&place), before);
}

#[test]
fn restore_replaces_other_content_only_in_replace_mode() {
    let place = saved_tool();
    let saved = place.tree(TOOL);
    place.remove(TOOL);
    place.write("/opt/tool/mine", "mine\n");
    place.write("/opt/other/file", "beside\n");
    let mine = place.tree("/opt");

    let left = place.restore(&[TOOL], &[]);
    assert_eq!(left["items"]["restored"], 0);
    assert_eq!(left["items"]["skipped"], 1);
    assert!(left["reason"].as_str().unwrap().contains("--mode replace"));
    assert_same_tree(&mine, &place.tree("/opt"));

    let swapped = place.restore(&[TOOL], &["--mode", "replace"]);
    assert_eq!(swapped["items"]["restored"], 1);
    assert_same_tree(&saved, &place.tree(TOOL));
    assert_eq!(place.read("/opt/other/file"), "beside\n");
    assert_eq!(place.leftovers(), [""; 0]);
}

#[test]
fn directory_with_one_other_mtime_counts_as_changed() {
    let place = saved_tool();
    set_mtime(&place.host("/opt/tool/fine"), 1_234_567_890, 123_456_788);
    let left = place.restore(&[TOOL], &[]);
    assert_eq!(left["items"]["skipped"], 1);
    let swapped = place.restore(&[TOOL], &["--mode", "replace"]);
    assert_eq!(swapped["items"]["restored"], 1);
    let fine = &place.tree(TOOL)[Path::new("fine")];
    assert_eq!(fine.entry.mtime, (1_234_567_890, 123_456_789));
}

#[test]
fn replace_mode_replaces_a_file_or_link_at_the_path() {
    let place = saved_tool();
    let before = place.tree(TOOL);
    let target = place.host("/elsewhere");
    for make in [&|| fs::write(place.host(TOOL), "a file").unwrap(), &|| {
        symlink(&target, place.host(TOOL)).unwrap()
    }] as [&dyn Fn(); 2]
    {
        place.remove(TOOL);
        make();
        let left = place.restore(&[TOOL], &[]);
        assert_eq!(left["items"]["skipped"], 1);
        place.restore(&[TOOL], &["--mode", "replace"]);
        assert_same_tree(&before, &place.tree(TOOL));
    }
    assert!(!target.exists());
}

#[test]
fn restore_fills_an_empty_directory() {
    let place = saved_tool();
    let before = place.tree(TOOL);
    place.remove(TOOL);
    fs::create_dir(place.host(TOOL)).unwrap();
    let restored = place.restore(&[TOOL], &[]);
    assert_eq!(restored["items"]["restored"], 1);
    assert_same_tree(&before, &place.tree(TOOL));
}

#[test]
fn empty_directory_is_saved_and_restored() {
    let place = PlainEnv::new();
    fs::create_dir_all(place.host("/empty")).unwrap();
    set_mtime(&place.host("/empty"), 77, 7);
    let before = place.tree("/empty");
    place.save(&["/empty"]);
    fs::remove_dir(place.host("/empty")).unwrap();
    place.restore(&["/empty"], &[]);
    assert_same_tree(&before, &place.tree("/empty"));
    assert_eq!(place.restore(&["/empty"], &[])["items"]["present"], 1);
}

#[test]
fn several_directories_are_saved_and_restored_at_once() {
    let place = PlainEnv::filled();
    let before = (place.tree(TOOL), place.tree(DATA));
    let saved = place.save(&[DATA, TOOL]);
    assert_eq!(saved["items"]["saved"], 2);
    place.remove(TOOL);
    place.remove(DATA);
    let restored = place.restore(&[TOOL, DATA], &[]);
    assert_eq!(restored["items"]["restored"], 2);
    assert_same_tree(&before.0, &place.tree(TOOL));
    assert_same_tree(&before.1, &place.tree(DATA));
}

#[test]
fn neighbours_in_one_parent_are_restored_at_once() {
    let place = PlainEnv::new();
    place.write("/srv/a/file", "a\n");
    place.write("/srv/b/file", "b\n");
    let before = place.tree("/srv");
    place.save(&["/srv/a", "/srv/b"]);
    place.remove("/srv/a");
    place.remove("/srv/b");
    let time = fs::metadata(place.host("/srv")).unwrap().modified();
    place.restore(&["/srv/b", "/srv/a"], &[]);
    let mut after = place.tree("/srv");
    assert_ne!(fs::metadata(place.host("/srv")).unwrap().modified().ok(), time.ok());
    // The parent itself is not restored.
    after.insert(PathBuf::new(), before[Path::new("")].clone());
    assert_same_tree(&before, &after);
}

#[test]
fn restore_restores_only_the_named_directories() {
    let place = PlainEnv::filled();
    place.save(&[TOOL, DATA]);
    place.remove(TOOL);
    place.remove(DATA);
    let restored = place.restore(&[DATA], &[]);
    assert_eq!(restored["items"]["restored"], 1);
    assert_eq!(restored["items"]["skipped"], 1);
    assert!(place.host(DATA).is_dir());
    assert!(!place.host(TOOL).exists());
}

#[test]
fn restore_reports_a_directory_missing_from_the_snapshot() {
    let place = saved_tool();
    place.remove(TOOL);
    let restored = place.restore(&[TOOL, "/srv/unknown"], &[]);
    assert_eq!(restored["items"]["restored"], 1);
    assert_eq!(restored["skipped"][0][0], "srv/unknown");
    assert!(!place.host("/srv").exists());
}

#[test]
fn save_skips_and_reports_sockets_and_fifos() {
    let place = PlainEnv::filled();
    let _listener = UnixListener::bind(place.host("/var/lib/data/socket")).unwrap();
    let mode = Mode::from_raw_mode(0o600);
    let fifo = rustix::fs::FileType::Fifo;
    mknodat(CWD, place.host("/var/lib/data/fifo"), fifo, mode, 0).unwrap();
    let saved = place.save(&[DATA]);
    let left_out: Vec<_> = saved["skipped"].as_array().unwrap().iter().collect();
    assert_eq!(left_out.len(), 2);
    assert!(left_out[0][0].as_str().unwrap().ends_with("data/fifo"));
    assert!(left_out[1][0].as_str().unwrap().ends_with("data/socket"));
    assert!(!left_out[0][1].as_str().unwrap().is_empty());

    // A directory with files that no snapshot can hold still counts as unchanged.
    assert_eq!(place.restore(&[DATA], &[])["items"]["present"], 1);
    place.remove(DATA);
    place.restore(&[DATA], &[]);
    let names: Vec<_> = place.tree(DATA).into_keys().collect();
    assert_eq!(names, ["", "below", "below/two", "one"].map(PathBuf::from));
}

#[test]
fn save_prints_the_files_left_out() {
    let place = PlainEnv::filled();
    let _listener = UnixListener::bind(place.host("/var/lib/data/socket")).unwrap();
    let output = place.attempt("save", &[DATA], &[]).ok();
    assert!(output.stderr.contains("left out"), "{output}");
    assert!(!output.stderr.contains("nix-store"), "{output}");
}

#[test]
fn a_parent_may_be_a_symbolic_link() {
    let place = PlainEnv::filled();
    symlink("opt", place.host("/link")).unwrap();
    let before = place.tree(TOOL);
    place.save(&["/link/tool"]);
    place.remove(TOOL);
    place.restore(&["/link/tool"], &[]);
    assert_same_tree(&before, &place.tree(TOOL));
    assert!(place.host("/link").is_symlink());
}

#[test]
fn save_does_not_follow_a_link_out_of_the_root() {
    let (place, outside) = (PlainEnv::filled(), PlainEnv::filled());
    outside.write("/var/lib/data/one", "not to be packed\n");
    // For programs inside the root, this link leads to a path that does not exist.
    symlink(outside.host("/var/lib"), place.host("/link")).unwrap();
    let saved = place.attempt("save", &["/link/data"], &["--json"]);
    if saved.status.success() {
        let packed = format!("zstd -dc {} | tar -xO", place.snapshot().display());
        let packed = plain_env::output(Command::new("sh").args(["-c", &packed])).ok();
        assert!(!packed.stdout.contains("not to be packed"), "{packed}");
    }
}

#[test]
fn restore_does_not_follow_a_link_out_of_the_root() {
    let (place, outside) = (PlainEnv::new(), PlainEnv::filled());
    place.write("/link/data/new", "new\n");
    place.save(&["/link/data"]);
    place.remove("/link");
    symlink(outside.host("/var"), place.host("/link")).unwrap();
    place.attempt("restore", &["/link/data"], &["--json"]);
    assert!(!outside.host("/var/data").exists());
    assert_eq!(outside.leftovers(), [""; 0]);
}

#[test]
fn save_refuses_a_path_that_is_not_utf8() {
    let place = PlainEnv::new();
    let path = OsStr::from_bytes(b"/caf\xE9/x");
    fs::create_dir_all(place.root().join(OsStr::from_bytes(b"caf\xE9/x"))).unwrap();
    let backend = format!("dir:{}", place.entries().display());
    let root = place.root().display().to_string();
    let words = ["save", "--store", "plain", "--key", "k", "--backend", &backend, "--root", &root];
    let words = words.map(OsStr::new).into_iter().chain([OsStr::new("--path"), path]);
    let failed = plain_env::storecache(words).fails();
    assert!([1, 2].contains(&failed.code()), "{failed}");
    assert!(failed.stderr.contains("UTF-8"), "{failed}");
    assert!(failed.stderr.contains("caf"), "{failed}");
}

#[test]
fn two_names_of_one_parent_do_not_deadlock() {
    let place = PlainEnv::new();
    place.write("/srv/a/file", "a\n");
    place.write("/srv/b/file", "b\n");
    symlink("srv", place.host("/link")).unwrap();
    let paths = ["/link/a", "/srv/b"];
    place.save(&paths);
    place.remove("/srv/a");
    place.remove("/srv/b");
    let restored = place.restore(&paths, &["--lock-timeout", "1"]);
    assert_eq!(restored["items"]["restored"], 2);
    assert_eq!(place.read("/srv/a/file"), "a\n");
    assert_eq!(place.read("/srv/b/file"), "b\n");
}

#[test]
fn link_to_a_directory_is_refused_or_saved_with_its_content() {
    let place = PlainEnv::filled();
    symlink("tool", place.host("/opt/current")).unwrap();
    let output = place.attempt("save", &["/opt/current"], &["--json"]);
    if output.status.success() {
        place.remove("/opt");
        place.restore(&["/opt/current"], &[]);
        assert!(place.host("/opt/current/bin/run").exists());
    } else {
        assert!(output.stderr.contains("link"), "{output}");
    }
}

#[test]
fn nested_directories_are_refused_or_restored() {
    let place = PlainEnv::new();
    place.write("/srv/a/file", "a\n");
    place.write("/srv/a/b/file", "b\n");
    let before = place.tree("/srv/a");
    let paths = ["/srv/a", "/srv/a/b"];
    let output = place.attempt("save", &paths, &["--json"]);
    if output.status.success() {
        place.remove("/srv/a");
        place.restore(&paths, &[]);
        assert_same_tree(&before, &place.tree("/srv/a"));
    } else {
        assert!(output.stderr.contains("/srv/a"), "{output}");
    }
}

#[test]
fn a_directory_named_twice_is_saved_once_or_refused() {
    let place = PlainEnv::filled();
    let output = place.attempt("save", &[DATA, "/var/lib/./data/"], &["--json"]);
    if output.status.success() {
        place.remove(DATA);
        let restored = place.restore(&[DATA, DATA], &[]);
        assert_eq!(restored["items"]["restored"], 1);
    } else {
        assert!(output.stderr.contains("twice"), "{output}");
    }
}

#[test]
fn save_refuses_a_path_that_is_not_a_directory() {
    let place = PlainEnv::filled();
    for path in ["/nowhere", "/var/lib/data/one", "/"] {
        let output = place.attempt("save", &[path], &["--json"]).fails();
        assert_eq!(output.code(), 1, "{output}");
        assert!(!report(&output)["reason"].as_str().unwrap().is_empty());
    }
    assert_eq!(fs::read_dir(place.entries()).unwrap().count(), 0);
}

#[test]
fn file_shorter_than_its_size_fails_the_save() {
    let place = PlainEnv::new();
    // The kernel reports a size of 4096 for each of these files, and their content is a few bytes.
    let paths = ["/devices/virtual/net/lo/statistics"];
    let mut words = vec!["save", "--json", "--store", "plain", "--root", "/sys"];
    words.extend(["--key", "test", "--path", paths[0], "--backend"]);
    let backend = format!("dir:{}", place.entries().display());
    let output = plain_env::storecache(words.iter().chain(&[backend.as_str()])).fails();
    assert_eq!(output.code(), 1);
    assert!(output.stderr.contains("shorter"), "{output}");
    assert!(output.stderr.contains("statistics/"), "{output}");
    assert_eq!(report(&output)["phase"], "pack");
    assert_eq!(fs::read_dir(place.entries()).unwrap().count(), 0);
}

#[test]
fn a_damaged_snapshot_leaves_the_old_directory() {
    for mode in ["add", "replace"] {
        let place = saved_tool();
        damage(&place);
        place.remove(TOOL);
        place.write("/opt/tool/mine", "mine\n");
        if mode == "add" {
            fs::remove_file(place.host("/opt/tool/mine")).unwrap();
        }
        let before = place.tree("/opt");
        let output = place.attempt("restore", &[TOOL], &["--mode", mode, "--json"]);
        let output = output.fails();
        assert_eq!(output.code(), 1);
        let report = report(&output);
        assert_eq!(report["hit"], "miss");
        assert!(report["reason"].as_str().unwrap().contains("digest"));
        let after = place.tree("/opt");
        let names =
            |tree: &crate::support::plain_env::PlainTree| tree.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&before), names(&after));
        assert_eq!(place.leftovers(), [""; 0]);
    }
}

#[test]
fn a_failed_restore_makes_no_parents() {
    let place = saved_tool();
    damage(&place);
    place.remove("/opt");
    place.attempt("restore", &[TOOL], &["--json"]).fails();
    assert!(!place.host("/opt").exists());
}

#[test]
fn restore_of_several_directories_is_all_or_nothing() {
    let place = PlainEnv::filled();
    place.save(&[TOOL, DATA]);
    place.remove(TOOL);
    place.remove(DATA);
    damage(&place);
    place.attempt("restore", &[TOOL, DATA], &["--json"]).fails();
    assert!(!place.host(TOOL).exists());
    assert!(!place.host(DATA).exists());
    assert_eq!(place.leftovers(), [""; 0]);
}

#[test]
fn restore_checks_free_space_before_staging() {
    let place = saved_tool();
    place.remove(TOOL);
    let script = "mount -t tmpfs -o size=1m,mode=755 small \"$1\" && shift && exec \"$@\"";
    let backend = format!("dir:{}", place.entries().display());
    let (root, program) = (place.root(), plain_env::binary());
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]);
    command.arg(place.host("/opt")).arg(program);
    command.args(["restore", "--json", "--store", "plain", "--key", "test"]);
    command.args(["--path", TOOL, "--backend", &backend, "--root"]);
    let output = plain_env::output(command.arg(root)).fails();
    assert_eq!(output.code(), 1);
    let report = report(&output);
    assert_eq!(report["phase"], "plan", "{output}");
    assert!(report["reason"].as_str().unwrap().contains("space"));
}

#[test]
fn restore_removes_stale_staging() {
    let place = saved_tool();
    place.remove(TOOL);
    place.write("/opt/.storecache-99999999/tool/half", "half\n");
    place.restore(&[TOOL], &[]);
    assert_eq!(place.leftovers(), [""; 0]);
}

#[test]
fn a_dry_run_changes_nothing() {
    let place = PlainEnv::filled();
    let dry = report(&place.attempt("save", &[TOOL], &["--json", "--dry-run"]).ok());
    assert_eq!(dry["items"]["saved"], 1);
    assert_eq!(fs::read_dir(place.entries()).unwrap().count(), 0);
    place.save(&[TOOL]);
    place.remove("/opt");
    let dry = place.restore(&[TOOL], &["--dry-run"]);
    assert_eq!(dry["items"]["restored"], 1);
    assert_eq!(dry["hit"], "exact");
    assert!(!place.host("/opt").exists());
}

#[test]
fn root_saves_files_without_any_permissions() {
    let place = PlainEnv::new();
    place.write("/srv/secret/file", "secret\n");
    fs::set_permissions(place.host("/srv/secret/file"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(place.host("/srv/secret"), fs::Permissions::from_mode(0o000)).unwrap();
    let before = place.tree("/srv/secret");
    place.save(&["/srv/secret"]);
    place.remove("/srv/secret");
    place.restore(&["/srv/secret"], &[]);
    assert_same_tree(&before, &place.tree("/srv/secret"));
}
