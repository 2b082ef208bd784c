"""Fills the store of a world through its own guix-daemon; run inside the world by scripts/roots.

    fill_guix.py COUNT [guile]  add an item for each of COUNT distribution packages, and for each of
                                those that make up Guile with its libraries if asked for; then build
                                the build.scm beside this file
"""

import os
import subprocess
import sys
import time

from packages import busybox, trees, trees_of

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENT = {**os.environ, "HOME": "/root"}
GUILE = {
    "guile-3.0", "guile-3.0-libs", "guile-fibers", "guile-gcrypt", "guile-gnutls", "guile-websocket",
    "libffi8", "libgc1", "libgcrypt20", "libgmp10", "libgnutls30t64", "libgpg-error0", "libhogweed6t64",
    "libidn2-0", "libnettle8t64", "libp11-kit0", "libtasn1-6", "libunistring5",
}


class Daemon:
    def __enter__(self):
        self.process = subprocess.Popen(["bash", f"{HERE}/bare-guix-daemon"], cwd="/")
        deadline = time.monotonic() + 20
        while not self.answers():
            if time.monotonic() > deadline:
                sys.exit("fill: the daemon does not answer")
            time.sleep(0.02)

    @staticmethod
    def answers():
        probe = ["guix", "gc", "--list-failures"]
        return subprocess.run(probe, env=CLIENT, capture_output=True).returncode == 0

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        # Workers outlive the daemon; the last of them takes the WAL away.
        deadline = time.monotonic() + 20
        while os.path.exists("/var/guix/db/db.sqlite-wal"):
            if time.monotonic() > deadline:
                sys.exit("fill: a worker does not end")
            time.sleep(0.02)


def main():
    added = [busybox(), *trees(int(sys.argv[1]))]
    if sys.argv[2:] == ["guile"]:
        added += trees_of(GUILE - {os.path.basename(tree) for tree in added})
    command = ["guix", "repl", "--", f"{HERE}/build.scm", "fill", *added]
    done = subprocess.run(command, env=CLIENT, stdout=subprocess.PIPE, text=True, check=True)
    root = "/var/guix/gcroots/fixture"
    if os.path.lexists(root):
        os.unlink(root)
    os.symlink(done.stdout.split()[-1], root)
    owner = os.stat("/var/guix")
    os.lchown(root, owner.st_uid, owner.st_gid)


with Daemon():
    main()
