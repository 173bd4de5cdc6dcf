"""What kind of file system a directory is on."""

from __future__ import annotations

import os
import re
from pathlib import Path

LOCAL = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "jfs", "bcachefs", "tmpfs", "overlay"}
)
"""Those that only this machine writes, and on which processes can share memory by mapping a file."""


def is_local(directory: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether it is surely on a disk of this machine's own; False if that cannot be told."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
        path = os.path.realpath(directory)
    except OSError:
        return False
    best, kind = "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        words = left.split(" ")
        if len(words) < 5 or not right:
            continue
        mount = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words[4])
        # Of two mounts on one place the later one is what is seen.
        if len(mount) >= len(best) and (path == mount or path.startswith(mount.rstrip("/") + "/")):
            best, kind = mount, right.split(" ")[0]
    return kind in LOCAL
