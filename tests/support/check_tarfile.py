"""Reads a tar archive from standard input with Python's tarfile.

    check_tarfile.py list         print one JSON array for each member
    check_tarfile.py extract DIR  extract all members
"""

import json
import sys
import tarfile

archive = tarfile.open(fileobj=sys.stdin.buffer, mode="r|", encoding="utf-8", errors="surrogateescape")
if sys.argv[1] == "extract":
    trusting = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
    archive.extractall(sys.argv[2], numeric_owner=True, **trusting)
else:
    for member in archive:
        name = member.name.encode("utf-8", "surrogateescape").hex()
        row = [name, member.type.decode(), member.mode, member.uid, member.gid, member.mtime]
        print(json.dumps(row + [sorted(member.pax_headers)]))
