//! Things to find in a store.

use std::fs;
use std::path::Path;

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

/// Adds items to a Nix store, of text that is nowhere alike: most of some KiB, some of hundreds, times
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
    world.sh("nix-store --add /tmp/many/* >/dev/null; rm -r /tmp/many");
}

/// Deletes all but `percent` of what is valid in a Nix store, chosen by nothing that a snapshot is sorted
/// by. Gives back the paths that went.
#[track_caller]
pub fn keep(world: &World, percent: usize) -> Vec<String> {
    let mut paths: Vec<String> = world.valid_paths().into_iter().collect();
    paths.sort_by_key(|path| path.bytes().rev().collect::<Vec<_>>());
    let gone = paths.split_off(paths.len() * percent / 100);
    let list: String = gone.iter().map(|path| format!("{path}\n")).collect();
    fs::write(world.host("/tmp/gone"), list).unwrap();
    world.sh(
        "rm -rf /nix/var/nix/gcroots/storecache; xargs nix-store --delete </tmp/gone >/dev/null",
    );
    gone
}
