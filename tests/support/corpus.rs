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
