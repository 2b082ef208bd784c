"""Reads ranges of a snapshot with an independent reader of the zstd seekable format, and compares them with
the output of zstd for the whole file.

    check_seekable.py FILE
"""

import random
import subprocess
import sys

from pyzstd import SeekableZstdFile

name = sys.argv[1]
whole = subprocess.run(["zstd", "-dc", name], stdout=subprocess.PIPE, check=True).stdout
chance = random.Random(7)
ranges = [(0, 1), (0, 512), (len(whole) - 1, 1), (len(whole) - 1024, 4096), (len(whole) // 2, 5 << 20)]
ranges += [(chance.randrange(len(whole)), chance.randrange(1 << 20)) for _ in range(40)]
with SeekableZstdFile(name) as file:
    info = file.seek_table_info
    for start, length in ranges:
        file.seek(start)
        if file.read(length) != whole[start : start + length]:
            sys.exit(f"{length} bytes from {start} differ")
    file.seek(0, 2)
    if file.tell() != len(whole):
        sys.exit(f"the end is at {file.tell()} and not at {len(whole)}")
print(info)
