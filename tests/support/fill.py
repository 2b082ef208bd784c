"""Fills the store of a world through its own nix-daemon; run inside the world by scripts/roots.

    fill.py COUNT       add an item for each of COUNT distribution packages, the first by name that
                        have files, no more than 30 MB each; then build the t.nix beside this file
    fill.py optimise    hard-link equal files
"""

import json
import os
import subprocess
import sys
import time

from packages import busybox, trees

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENT = {**os.environ, "HOME": "/root", "NIX_REMOTE": "daemon"}


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
