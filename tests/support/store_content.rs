//! Content for the stores of worlds.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::package_manager::PackageManager;
use super::world::World;

const UNREGISTERED: &str = "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-unregistered";

/// Creates files in the store of a world that interrupted builds, optimizers and users leave there. They are
/// not valid, so the next collector deletes them. Returns the names of the top entries.
pub fn add_unregistered_files(world: &World) -> Vec<&'static str> {
    let store = world.host(world.store());
    let file = |name: &str| {
        let path = store.join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        fs::write(path, "debris\n").unwrap();
    };
    file(".links/0000000000000000000000000000000000000000000000000000");
    file(".links/junk");
    file(".hidden/file");
    file(".tmp-link-1-2");
    file("foo.lock");
    file("tmp-123-0/half/of/an-item");
    file("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-x.drv.chroot/root/nix/store/file");
    file(&format!("{UNREGISTERED}/bin/program"));
    vec![
        ".links",
        ".hidden",
        ".tmp-link-1-2",
        "foo.lock",
        "tmp-123-0",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-x.drv.chroot",
        UNREGISTERED,
    ]
}

/// Adds items of random text to a store: most of a few KiB, some of hundreds of KiB, times `scale`. Each
/// `seed` makes different items.
#[track_caller]
pub fn add_random_items(world: &World, seed: u32, count: usize, scale: u32) {
    let script = format!(
        "import os, random
random.seed({seed})
os.makedirs('/tmp/many')
for n in range({count}):
    low, high = random.choices([(1, 8), (8, 100), (100, 400)], [70, 25, 5])[0]
    with open(f'/tmp/many/item-{{n}}', 'w') as file:
        file.write(random.randbytes(random.randint(low << 10, high << 10) * {scale} // 2).hex())"
    );
    world.ok(["python3", "-c", &script]);
    assert_eq!(world.add_files("/tmp/many/*").len(), count);
    world.sh("rm -r /tmp/many");
}

/// Creates items with a file and up to eight references each, by direct writes to the database. A fifth of
/// them has no referrer.
const FILL_ROWS: &str = r#"
import os, random, sqlite3, sys
store, state, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
random.seed(1)
digits = "0123456789abcdfghijklmnpqrsvwxyz"
owner = os.stat(store)
db = sqlite3.connect(state + "/db/db.sqlite")
for i in range(1, count + 1):
    path = f"{store}/" + "".join(random.choices(digits, k=32)) + f"-item-{i}"
    os.mkdir(path)
    with open(path + "/file", "w") as file:
        file.write(str(i))
    os.chmod(path + "/file", 0o444)
    os.chmod(path, 0o555)
    for name in [path, path + "/file"]:
        os.chown(name, owner.st_uid, owner.st_gid)
    columns = "id, path, hash, registrationTime, narSize"
    row = (i, path, "sha256:" + "0" * 64, 1, 400)
    db.execute(f"insert into ValidPaths ({columns}) values (?, ?, ?, ?, ?)", row)
    for reference in {random.randint(max(1, i - 200), i) for _ in range(8)}:
        if reference % 5 or reference == i:
            db.execute("insert into Refs values (?, ?)", (i, reference))
db.commit()
print(path)
"#;

/// Adds this many items with references among them to an empty store, faster than through a daemon and with
/// false hashes. Returns the path of the last item, which has no referrer.
#[track_caller]
pub fn add_registered_items(world: &World, count: usize) -> String {
    // The daemon creates the database for its first client.
    assert!(world.daemon_answers());
    world.wait_until_idle();
    let script = "/tmp/fill-rows.py";
    fs::write(world.host(script), FILL_ROWS).unwrap();
    let (store, state) = (world.store(), world.state());
    // In a mount namespace of its own, because the store may be mounted read-only.
    let filling = format!(
        "mount -o remount,bind,rw {store} 2>/dev/null; exec python3 {script} {store} {state} {count}"
    );
    world.ok(["unshare", "--mount", "bash", "-c", &filling]).stdout.trim().to_owned()
}

/// Deletes all but `percent` of the items without references, chosen by an order that snapshots do not use.
/// Returns the deleted paths.
#[track_caller]
pub fn keep_percent_of_leaves(world: &World, percent: usize) -> Vec<String> {
    let mut leaves = leaves(world);
    leaves.sort_by_key(|path| path.bytes().rev().collect::<Vec<_>>());
    leaves.truncate(leaves.len() * percent / 100);
    keep_only(world, &leaves)
}

/// Returns the items that refer at most to themselves.
#[track_caller]
pub fn leaves(world: &World) -> Vec<String> {
    let all = world.references_of_all().into_iter();
    all.filter(|(path, to)| to.iter().all(|it| it == path)).map(|(path, _)| path).collect()
}

/// Lets the collector delete everything that these items do not need, whatever other roots there are. Returns
/// the deleted paths.
#[track_caller]
pub fn keep_only(world: &World, items: &[String]) -> Vec<String> {
    let before = world.valid_paths();
    let roots = world.host(world.state()).join("gcroots");
    for others in ["storecache", "fixture"] {
        let path = roots.join(others);
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    }
    let ours = roots.join("kept");
    fs::create_dir(&ours).unwrap();
    for (number, item) in items.iter().enumerate() {
        symlink(item, ours.join(number.to_string())).unwrap();
    }
    match world.package_manager() {
        PackageManager::Nix => world.ok(["nix-store", "--gc"]),
        PackageManager::Guix => world.ok(["guix", "gc"]),
    };
    fs::remove_dir_all(ours).unwrap();
    let after: BTreeSet<String> = world.valid_paths();
    before.difference(&after).cloned().collect()
}
