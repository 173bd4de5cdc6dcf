"""Which directories are on a disk of this machine's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pegasus_py.store.filesystem import is_local

TABLE = """\
21 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda rw
22 21 0:21 / /home rw,relatime shared:2 master:1 - nfs4 server:/home rw,vers=4.2
23 22 0:22 / /home/me/scratch\\040disk rw - xfs /dev/sdb rw
24 21 0:23 / /mnt rw - xfs /dev/sdc rw
25 21 0:24 / /mnt rw - fuse.sshfs host: rw
26 21 0:25 / /odd rw - 9p share rw
"""


@pytest.mark.parametrize(
    ("directory", "local"),
    [
        ("/", True),
        ("/var/lib", True),
        ("/homestead", True),
        ("/home", False),
        ("/home/me", False),
        ("/home/me/scratch disk/x", True),
        ("/mnt/x", False),
        ("/odd", False),
    ],
)
def test_the_nearest_mount_decides(tmp_path: Path, directory: str, local: bool) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(TABLE)
    assert is_local(Path(directory), table) is local


def test_what_cannot_be_told_is_not_local(tmp_path: Path) -> None:
    assert not is_local(tmp_path, tmp_path / "missing")
    table = tmp_path / "mountinfo"
    table.write_text("nonsense\n\n1 2 3\n")
    assert not is_local(tmp_path, table)


def test_a_link_is_followed(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    real = Path(os.path.realpath(tmp_path))
    table.write_text(f"{TABLE}27 21 0:26 / {real}/far rw - nfs server:/ rw\n")
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far")
    assert is_local(tmp_path, table)
    assert not is_local(tmp_path / "link", table)
