//! Things to find in a store.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::flavour::Flavour;
use super::world::World;

const UNREGISTERED: &str = "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-unregistered";

/// Plants in the store of a world what interrupted builds, optimisers and people leave there: nothing of it
/// valid, all of it for the next collector. Returns the names of the top entries.
pub fn debris(world: &World) -> Vec<&'static str> {
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

/// Adds items to a store, of text that is nowhere alike: most of some KiB, some of hundreds, times
/// `scale`. Each `seed` has its own.
#[track_caller]
pub fn fill(world: &World, seed: u32, count: usize, scale: u32) {
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

/// Deletes all but `percent` of the items that refer to nothing, chosen by nothing that a snapshot is
/// sorted by. Gives back the paths that went.
#[track_caller]
pub fn keep(world: &World, percent: usize) -> Vec<String> {
    let mut leaves = leaves(world);
    leaves.sort_by_key(|path| path.bytes().rev().collect::<Vec<_>>());
    leaves.truncate(leaves.len() * percent / 100);
    keep_only(world, &leaves)
}

/// The items that refer to nothing but themselves.
#[track_caller]
pub fn leaves(world: &World) -> Vec<String> {
    let all = world.references_of_all().into_iter();
    all.filter(|(path, to)| to.iter().all(|it| it == path)).map(|(path, _)| path).collect()
}

/// Has the collector delete what these items do not need, whoever else keeps it. Gives back the paths that
/// went.
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
    match world.flavour() {
        Flavour::Nix => world.ok(["nix-store", "--gc"]),
        Flavour::Guix => world.ok(["guix", "gc"]),
    };
    fs::remove_dir_all(ours).unwrap();
    let after: BTreeSet<String> = world.valid_paths();
    before.difference(&after).cloned().collect()
}
