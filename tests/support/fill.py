"""Fills the store of a world through its own nix-daemon; run inside the world by scripts/roots.

    fill.py COUNT       add an item for each of COUNT distribution packages, the first by name that
                        have files, no more than 30 MB each; then build the t.nix beside this file
    fill.py optimise    hard-link equal files
"""

import json
import os
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENT = {**os.environ, "HOME": "/root", "NIX_REMOTE": "daemon"}
# A link of the root directory in merged-/usr systems that packages still list as a directory.
MERGED = {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}
LARGEST = 30_000_000


def nix(*command):
    done = subprocess.run(command, env=CLIENT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.split()


class Daemon:
    """The daemon, started without NIX_REMOTE: its workers would call themselves for ever."""

    def __enter__(self):
        self.process = subprocess.Popen(["nix-daemon", "--daemon"])
        deadline = time.monotonic() + 20
        while not self.answers():
            if time.monotonic() > deadline:
                sys.exit("fill: the daemon does not answer")
            time.sleep(0.02)

    # Asked by a real client: the socket file may be an old one, and a connection without a handshake
    # makes Nix 2.34 close its database properly, while its habit not to is wanted in the fixture.
    @staticmethod
    def answers():
        nothing = "/nix/store/00000000000000000000000000000000-nothing"
        probe = ["nix-store", "--check-validity", "--print-invalid", nothing]
        return subprocess.run(probe, env=CLIENT, capture_output=True).returncode == 0

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        # Workers outlive the daemon; each holds the lock of the database until it has closed it.
        subprocess.run(["flock", "-w", "20", "/nix/var/nix/db/big-lock", "true"], check=True)


def busybox():
    """A tree that is all a build needs, with a link for each of its commands."""
    tree = "/tmp/busybox-static"
    os.makedirs(f"{tree}/bin")
    shutil.copy("/bin/busybox", f"{tree}/bin/busybox")
    for name in subprocess.check_output(["/bin/busybox", "--list"], text=True).split():
        if name != "busybox":
            os.symlink("busybox", f"{tree}/bin/{name}")
    return tree


def trees(wanted):
    """Copies the files of installed packages, in the order of their names, into a tree for each."""
    info = "/var/lib/dpkg/info"
    for listing in sorted(name for name in os.listdir(info) if name.endswith(".list")):
        if wanted == 0:
            return
        with open(f"{info}/{listing}", encoding="utf-8") as lines:
            files = [path for path in lines.read().split("\n") if path not in ("", "/.") and path not in MERGED]
        files = [path for path in files if os.path.lexists(path)]
        plain = [path for path in files if not os.path.isdir(path) or os.path.islink(path)]
        if not plain or sum(os.lstat(path).st_size for path in plain) > LARGEST:
            continue
        tree = "/tmp/trees/" + listing.removesuffix(".list").split(":")[0]
        for path in plain:
            os.makedirs(tree + os.path.dirname(path), exist_ok=True)
            shutil.copy2(path, tree + path, follow_symlinks=False)
        wanted -= 1
        yield tree


def main():
    if sys.argv[1] == "optimise":
        nix("nix-store", "--optimise")
        return
    inputs = {
        "busybox": nix("nix-store", "--add", busybox())[0],
        "packages": nix("nix-store", "--add", *trees(int(sys.argv[1]))),
    }
    with open(f"{HERE}/inputs.json", "w", encoding="utf-8") as file:
        json.dump(inputs, file, indent=1)
    top = nix("nix-build", f"{HERE}/t.nix", "-A", "top", "--no-out-link", "--option", "substitute", "false")[0]
    root = "/nix/var/nix/gcroots/fixture"
    if os.path.lexists(root):
        os.unlink(root)
    os.symlink(top, root)


with Daemon():
    main()
