"""Trees to be added to a store, out of the files of the world in which this runs."""

import os
import shutil
import subprocess

# A link of the root directory in merged-/usr systems that packages still list as a directory.
MERGED = {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}
LARGEST = 30_000_000
INFO = "/var/lib/dpkg/info"


def busybox():
    """A tree that is all a build needs, with a link for each of its commands."""
    tree = "/tmp/busybox-static"
    os.makedirs(f"{tree}/bin")
    shutil.copy("/bin/busybox", f"{tree}/bin/busybox")
    for name in subprocess.check_output(["/bin/busybox", "--list"], text=True).split():
        if name != "busybox":
            os.symlink("busybox", f"{tree}/bin/{name}")
    return tree


def files(listing):
    """The files of an installed package, without directories."""
    with open(f"{INFO}/{listing}", encoding="utf-8") as lines:
        paths = [path for path in lines.read().split("\n") if path not in ("", "/.") and path not in MERGED]
    paths = [path for path in paths if os.path.lexists(path)]
    return [path for path in paths if not os.path.isdir(path) or os.path.islink(path)]


def copied(listing, plain):
    tree = "/tmp/trees/" + name(listing)
    for path in plain:
        os.makedirs(tree + os.path.dirname(path), exist_ok=True)
        shutil.copy2(path, tree + path, follow_symlinks=False)
    return tree


def name(listing):
    return listing.removesuffix(".list").split(":")[0]


def listings():
    return sorted(name for name in os.listdir(INFO) if name.endswith(".list"))


def trees(wanted):
    """Copies the files of installed packages, in the order of their names, into a tree for each."""
    for listing in listings():
        if wanted == 0:
            return
        plain = files(listing)
        if not plain or sum(os.lstat(path).st_size for path in plain) > LARGEST:
            continue
        wanted -= 1
        yield copied(listing, plain)


def trees_of(names):
    """The same for the packages of these names, as far as they are installed, however large."""
    for listing in listings():
        if name(listing) in names:
            yield copied(listing, files(listing))
