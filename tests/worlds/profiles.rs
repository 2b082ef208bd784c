//! Tests of saved Guix profiles: the results of `guix pull` and `guix install` work again after a restore.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use crate::support::plain_env::storecache;
use crate::support::world_runs::{attempt, report, run};
use crate::support::{Fixture, Output, Role, World};
use serde_json::{Value, json};

/// Does what `guix pull` does without its downloads: builds a package and a profile of it, then makes the
/// profile the next generation, with Guix's own functions and names. Prints the profile's path.
const INSTALL: &str = r#"
(use-modules (guix store) (guix derivations) (guix profiles) (srfi srfi-1))
(define switch-symlinks (@@ (guix profiles) switch-symlinks))
(define arguments (cdr (command-line)))
(define busybox (first arguments))
(define profile (second arguments))
(define name (third arguments))
(define program (fourth arguments))
(define store (open-connection))
(set-build-options store #:use-substitutes? #f #:offload? #f)

(define (build name script . inputs)
  (derivation store name (string-append busybox "/bin/sh") (list "-euc" script)
              #:env-vars `(("PATH" . ,(string-append busybox "/bin")))
              #:inputs (map (lambda (drv) (derivation-input drv '("out"))) inputs)
              #:sources (list busybox)))
(define package
  (build (string-append name "-1.5.0")
         (string-append "mkdir -p $out/bin; echo '#!" busybox "/bin/sh\n" program
                        "' >$out/bin/" name "; chmod +x $out/bin/" name)))
(define manifest
  `(manifest (version 3)
             (packages ((,name "1.5.0" "out" ,(derivation->output-path package)
                         (propagated-inputs ()) (search-paths ()))))))
(define tree
  (build "profile"
         (format #f "mkdir $out; ln -s ~a/bin $out/bin; echo '~s' >$out/manifest"
                 (derivation->output-path package) manifest)
         package))
(build-derivations store (list tree))
(define next (generation-file-name profile (+ 1 (generation-number profile))))
(switch-symlinks next (derivation->output-path tree))
(switch-symlinks profile (basename next))
(display (derivation->output-path tree))
"#;

/// A program for a profile that runs the machine's `guix`, so that a `guix` found through the profile is an
/// item of the store.
const GUIX: &str = r#"exec /usr/bin/guix "$@""#;

fn directory(user: &str) -> String {
    format!("/var/guix/profiles/per-user/{user}")
}

fn home(user: &str) -> String {
    if user == "root" { "/root".into() } else { format!("/home/{user}") }
}

/// Makes a generation as that user, and returns the item's name.
fn install(world: &World, user: &str, profile: &str, name: &str, program: &str) -> String {
    let is_busybox = |path: &String| world.host(path).join("bin/mkdir").is_symlink();
    let busybox = world.valid_paths().into_iter().find(is_busybox);
    // A wiped store does not contain busybox.
    let busybox = busybox.unwrap_or_else(|| {
        let add = r#"(use-modules (guix store)) (with-store store
            (display (add-to-store store "busybox-static" #t "sha256" "/tmp/box")))"#;
        world.sh("mkdir -p /tmp/box/bin; cd /tmp/box/bin; cp /bin/busybox .
                  for name in sh mkdir ln chmod; do ln -sf busybox $name; done");
        fs::write(world.host("/tmp/box.scm"), add).unwrap();
        world.ok(["guix", "repl", "--", "/tmp/box.scm"]).stdout
    });
    fs::write(world.host("/tmp/install.scm"), INSTALL).unwrap();
    let profile = format!("{}/{profile}", directory(user));
    let words = ["guix", "repl", "--", "/tmp/install.scm", &busybox, &profile, name, program];
    let installed = world.command(words).user(user).ok().stdout;
    installed.strip_prefix("/gnu/store/").expect("an item").to_owned()
}

/// Makes a generation of both profiles of a user, and returns the items.
fn install_both(world: &World, user: &str) -> [String; 2] {
    // Guix itself has the directory created when it first connects.
    world.command(["guix", "gc", "--list-failures"]).user(user).ok();
    [
        install(world, user, "current-guix", "guix", GUIX),
        install(world, user, "guix-profile", "greet", "echo greeting"),
    ]
}

/// Returns a saved store with both profiles of the user.
fn saved(role: Role, user: &str) -> (World, [String; 2]) {
    let world = World::with_fixture(role, Fixture::Small);
    world.start_daemon();
    let items = install_both(&world, user);
    let saved = run(&world, user, "save", &["--profiles"]);
    assert_eq!(saved["warnings"], Value::Null, "{role:?}");
    assert_eq!(
        saved["profiles"],
        json!([{"name": "current-guix", "item": items[0]}, {"name": "guix-profile", "item": items[1]}])
    );
    (world, items)
}

fn restore(world: &World, user: &str) -> Value {
    run(world, user, "restore", &["--profiles"])
}

/// Returns the report of new generations of both profiles.
fn added(number: u64, items: &[String; 2]) -> Value {
    json!([
        {"name": "current-guix", "generation": number, "item": items[0]},
        {"name": "guix-profile", "generation": number, "item": items[1]},
    ])
}

/// Returns the links of a user's profiles with their targets and inodes.
fn links(world: &World, user: &str) -> BTreeMap<String, (String, u64)> {
    let Ok(entries) = fs::read_dir(world.host(directory(user))) else { return BTreeMap::new() };
    let entries = entries.map(|entry| {
        let path = entry.unwrap().path();
        let target = fs::read_link(&path).unwrap_or_default().display().to_string();
        let inode = fs::symlink_metadata(&path).unwrap().ino();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), (target, inode))
    });
    entries.collect()
}

/// Runs `guix package` with an action on a profile of a user.
fn guix_package(world: &World, user: &str, profile: &str, action: &str) -> Output {
    let profile = format!("{}/{profile}", directory(user));
    world.command(["guix", "package", "-p", &profile, action]).user(user).ok()
}

fn current_guix(world: &World, user: &str) -> Output {
    let guix = format!("{}/.config/guix/current/bin/guix", home(user));
    world.command([guix.as_str(), "--version"]).user(user).run()
}

fn assert_current_guix_works(world: &World, user: &str) {
    let version = current_guix(world, user).ok();
    assert!(version.stdout.starts_with("guix (GNU Guix) 1."), "{version}");
    let greet = format!("{}/.guix-profile/bin/greet", home(user));
    assert_eq!(world.command([greet]).user(user).ok().stdout, "greeting\n");
}

#[test]
fn restored_guix_profile_works_and_is_a_gc_root() {
    for role in Role::GUIX {
        let (world, items) = saved(role, "runner");
        let installed =
            |profile| guix_package(&world, "runner", profile, "--list-installed").stdout;
        let before = ["current-guix", "guix-profile"].map(installed);
        assert!(before[0].starts_with("guix\t1.5.0"), "{before:?}");
        world.wipe_store();
        current_guix(&world, "runner").fails();

        let restored = restore(&world, "runner");
        assert_eq!(restored["profiles"], added(1, &items), "{role:?} {restored}");
        assert_eq!(restored["warnings"], Value::Null);
        assert_current_guix_works(&world, "runner");
        assert_eq!(["current-guix", "guix-profile"].map(installed), before);
        let listed = guix_package(&world, "runner", "current-guix", "--list-generations");
        assert!(listed.stdout.starts_with("Generation 1\t"), "{listed}");
        assert!(listed.stdout.contains("(current)"), "{listed}");
        let listed = world.command(["guix", "package", "--list-profiles"]).user("runner").ok();
        let mut listed = listed.lines();
        listed.sort();
        assert_eq!(listed, ["/home/runner/.config/guix/current", "/home/runner/.guix-profile"]);

        let per_user = world.host(directory("runner"));
        let owner = fs::metadata(&per_user).unwrap();
        assert_eq!((owner.uid(), owner.mode() & 0o7777), (1001, 0o755));
        let strangers = format!("find {} ! -user runner", directory("runner"));
        assert_eq!(world.sh(&strangers).stdout, "", "{role:?}");

        world.sh("rm -r /var/guix/gcroots/storecache");
        world.nix(["guix", "gc"]).ok();
        assert_current_guix_works(&world, "runner");
        assert!(!world.valid_paths().iter().any(|path| path.ends_with("-top")), "{role:?}");
        world.verify_store();

        let before = links(&world, "runner");
        let again = restore(&world, "runner");
        assert!(again["items"]["restored"].as_u64().unwrap() > 10, "what was collected");
        assert_eq!(again["profiles"], Value::Null);
        let again = restore(&world, "runner");
        assert_eq!(again["items"]["restored"], 0);
        assert_eq!(again["profiles"], Value::Null);
        assert_eq!(links(&world, "runner"), before);

        let newer = install(&world, "runner", "current-guix", "guix", "echo newer");
        assert_eq!(links(&world, "runner")["current-guix-2-link"].0, format!("/gnu/store/{newer}"));
        assert_eq!(current_guix(&world, "runner").ok().stdout, "newer\n");
    }
}

#[test]
fn restore_adds_a_generation_and_keeps_existing_ones() {
    for role in [Role::Guix, Role::GuixRoot] {
        let (world, items) = saved(role, "runner");
        world.wipe_store();
        for user in ["runner", "root"] {
            world.command(["guix", "gc", "--list-failures"]).user(user).ok();
            install(&world, user, "current-guix", "guix", "echo installer");
        }
        world.sh("rm -rf /home/runner/.config /root/.config");
        world.command(["mkdir", "-p", "/home/runner/.config/guix"]).user("runner").ok();
        world
            .command(["ln", "-s", "/nowhere", "/home/runner/.config/guix/current"])
            .user("runner")
            .ok();
        let own = ["runner", "root"].map(|user| links(&world, user));

        let restored = restore(&world, "runner");
        assert_eq!(restored["warnings"], Value::Null, "{role:?}");
        let numbers: Vec<_> =
            restored["profiles"].as_array().unwrap().iter().map(|it| &it["generation"]).collect();
        assert_eq!(numbers, [2, 1], "{role:?}");
        let now = links(&world, "runner");
        assert_eq!(now["current-guix-1-link"], own[0]["current-guix-1-link"]);
        assert_eq!(now["current-guix-2-link"].0, format!("/gnu/store/{}", items[0]));
        assert_eq!(now["current-guix"].0, "current-guix-2-link");
        assert_eq!(links(&world, "root"), own[1], "root's own are not runner's to change");
        let shortcut = world.ok(["readlink", "/home/runner/.config/guix/current"]).stdout;
        assert_eq!(shortcut, "/nowhere\n", "it was there before");

        guix_package(&world, "runner", "current-guix", "--roll-back");
        let guix = format!("{}/current-guix/bin/guix", directory("runner"));
        assert_eq!(world.run_as("runner", [&guix]).ok().stdout, "installer\n");
        let before = links(&world, "runner");
        assert_eq!(restore(&world, "runner")["profiles"], Value::Null);
        assert_eq!(links(&world, "runner"), before, "a rollback is kept");

        let restored = restore(&world, "root");
        assert_eq!(restored["profiles"][0]["generation"], 2, "{role:?}");
        assert_eq!(links(&world, "root")["current-guix-1-link"], own[1]["current-guix-1-link"]);
        assert_current_guix_works(&world, "root");
    }
}

#[test]
fn root_restores_its_own_profiles_as_installed() {
    let world = World::build(Role::Guix).fixture(Fixture::Small).container().start();
    world.start_daemon();
    let items = install_both(&world, "root");
    run(&world, "root", "save", &["--profiles"]);
    world.wipe_store();
    world.start_daemon();
    let restored = restore(&world, "root");
    assert_eq!(restored["profiles"], added(1, &items));
    assert_eq!(restored["warnings"], Value::Null);
    assert_current_guix_works(&world, "root");
    world.sh("rm -r /var/guix/gcroots/storecache");
    world.nix(["guix", "gc"]).ok();
    assert_current_guix_works(&world, "root");
    world.verify_store();
}

#[test]
fn profiles_are_unchanged_without_the_flag_or_in_a_dry_run() {
    let (world, items) = saved(Role::Guix, "runner");
    world.wipe_store();
    let untouched = || {
        assert!(!world.host(directory("runner")).join("current-guix").is_symlink());
        // Besides the files of the shell there is only the record of runs.
        let made = "ls -A /home/runner | grep -v '^[.]bash\\|^[.]profile\\|^[.]local$' || true";
        assert_eq!(world.sh(made).stdout, "");
    };
    let dry = run(&world, "runner", "restore", &["--profiles", "--dry-run"]);
    assert_eq!(dry["profiles"], added(1, &items));
    untouched();
    let restored = run(&world, "runner", "restore", &[]);
    assert_eq!((&restored["profiles"], &restored["warnings"]), (&Value::Null, &Value::Null));
    untouched();

    let words = ["restore", "--profiles", "--dry-run"];
    let words = words.into_iter().chain(crate::support::world_runs::flags(&world));
    let said = world.storecache_as("runner", words).ok().stderr;
    let line = format!("storecache: would add generation 1 of current-guix: {}", items[0]);
    assert!(said.contains(&line), "{said}");

    // If all items are present already, their profiles are added nevertheless.
    let late = restore(&world, "runner");
    assert_eq!((&late["items"]["restored"], &late["profiles"]), (&json!(0), &added(1, &items)));
    assert_current_guix_works(&world, "runner");
}

#[test]
fn profiles_that_cannot_be_saved_or_restored_are_reported() {
    let (world, _) = saved(Role::Guix, "runner");
    let profile = format!("{}/guix-profile", directory("runner"));
    world.sh(&format!("ln -sfn /home/runner {profile}"));
    let broken = run(&world, "runner", "save", &["--profiles"]);
    assert_eq!(broken["profiles"].as_array().unwrap().len(), 1);
    let warning = broken["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("guix-profile leads to /home/runner, which is not an item"),
        "{warning}"
    );

    run(&world, "runner", "save", &[]);
    world.wipe_store();
    let restored = restore(&world, "runner");
    assert_eq!(restored["profiles"], Value::Null);
    let warning = restored["warnings"][0].as_str().unwrap();
    assert!(warning.contains("no profiles; save one with --profiles"), "{warning}");

    let (world, items) = saved(Role::Guix, "runner");
    world.sh(&format!("rm -r /gnu/store/{}", items[0]));
    // A delta would rely on its base for the missing item, because the base has it.
    let torn = run(&world, "runner", "save", &["--profiles", "--full"]);
    let warning = torn["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("current-guix points to") && warning.contains("not among"),
        "{warning}"
    );
    world.wipe_store();
    let restored = restore(&world, "runner");
    assert_eq!(restored["profiles"][0]["name"], "guix-profile");
    let warning = restored["warnings"][0].as_str().unwrap();
    let expected =
        format!("did not restore the profile current-guix: {} was not restored", items[0]);
    assert_eq!(warning, expected);
}

#[test]
fn profiles_need_the_directory_that_the_daemon_creates() {
    let (world, items) = saved(Role::Guix, "runner");
    world.stop_daemon();
    world.wipe_store();
    let restored = restore(&world, "runner");
    assert!(restored["items"]["restored"].as_u64().unwrap() > 10);
    let warning = restored["warnings"][0].as_str().unwrap();
    assert!(warning.contains("no daemon creates it"), "{warning}");
    assert!(warning.contains("start the daemon and restore again"), "{warning}");
    let strangers = "find /var/guix/db /var/guix/gcroots ! -user guix-daemon";
    assert_eq!(world.sh(strangers).stdout, "", "a daemon can continue");
    world.start_daemon();
    assert_eq!(restore(&world, "runner")["profiles"], added(1, &items));
    assert_current_guix_works(&world, "runner");
    world.verify_store();
}

#[test]
fn profiles_flag_is_refused_for_nix() {
    let said = storecache(["restore", "--store", "nix", "--profiles"]);
    assert_eq!(said.code(), 2, "{said}");
    assert!(said.stderr.contains("--profiles is for --store guix"), "{said}");
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("nix/var/nix")).unwrap();
    for verb in ["save", "restore"] {
        let words = [Path::new(verb), Path::new("--profiles"), Path::new("--root"), root.path()];
        let said = storecache(words).fails();
        assert_eq!(said.code(), 1, "{said}");
        assert!(said.stderr.contains("--profiles is for Guix, and this is a nix store"), "{said}");
    }
}

#[test]
fn restore_follows_no_link_at_the_profile_directory() {
    for user in ["runner", "root"] {
        let (world, _) = saved(Role::Guix, user);
        world.wipe_store();
        world.sh("mkdir /srv/mine && chown runner /srv/mine");
        let per_user = world.host("/var/guix/profiles/per-user");
        fs::create_dir_all(&per_user).unwrap();
        let target = if user == "root" { "/etc" } else { "/srv/mine" };
        let listing = || world.ok(["find", target]).stdout;
        let _ = fs::remove_dir_all(per_user.join(user));
        symlink(target, per_user.join(user)).unwrap();
        let before = listing();
        let output = attempt(&world, user, "restore", &["--profiles"]).ok();
        let restored = report(&output);
        assert!(restored["items"]["restored"].as_u64().unwrap() > 10);
        assert_eq!(restored["profiles"], Value::Null);
        let warning = restored["warnings"][0].as_str().unwrap();
        assert!(warning.contains("is reached through a symbolic link"), "{warning}");
        assert_eq!(listing(), before);
    }
}
