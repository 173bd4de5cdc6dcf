"""consumed.yaml: whole records, once each."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pegasus_py.errors import StorageError
from pegasus_py.store import disk
from pegasus_py.store.consumed import ConsumedFile

RECORDS = (b"# 1\n- command: a\n", b"# 2\n- command: b\n")
WHOLE = b"".join(RECORDS)


def _settle(path: Path, size: int, records: tuple[bytes, ...] = RECORDS) -> bytes:
    os.close(ConsumedFile(path).settle(size, records, 0o600))
    return path.read_bytes()


def test_appends_on_a_new_line_with_the_mode_of_the_queue(tmp_path: Path) -> None:
    file = ConsumedFile(tmp_path / "consumed.yaml")
    size, records = file.plan(RECORDS)
    assert (size, records) == (0, RECORDS) and not file.path.exists()
    os.close(file.append(size, records, 0o600))
    assert file.path.stat().st_mode & 0o777 == 0o600
    file.path.write_bytes(b"- no end")
    size, records = file.plan(RECORDS)
    os.close(file.append(size, records, 0o600))
    assert file.path.read_bytes() == b"- no end\n" + WHOLE


@pytest.mark.parametrize("there", range(len(WHOLE) + 1))
def test_settle_completes_what_was_torn(tmp_path: Path, there: int) -> None:
    path = tmp_path / "consumed.yaml"
    for tail in (WHOLE[:there], WHOLE[:there].ljust(len(WHOLE), b"\0"), b"\0" * there):
        path.write_bytes(b"# 0\n- z\n" + tail)
        for _ in range(2):
            assert _settle(path, 8) == b"# 0\n- z\n" + WHOLE


@pytest.mark.parametrize(
    ("now", "then"),
    [
        (b"", WHOLE),
        (WHOLE + b"# mine", WHOLE + b"# mine"),
        (b"# mine\n" + RECORDS[0], b"# mine\n" + WHOLE),
        (b"# other\n- things, longer than the records were in all of their bytes", None),
    ],
)
def test_settle_after_the_user_changed_the_file(tmp_path: Path, now: bytes, then: bytes | None) -> None:
    path = tmp_path / "consumed.yaml"
    path.write_bytes(now)
    for _ in range(2):
        assert _settle(path, 20) == (now + b"\n" + WHOLE if then is None else then)


def test_a_failed_append_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "consumed.yaml"
    path.write_bytes(b"# 0\n- z\n")
    real = disk.write
    calls: list[Any] = []

    def write(fd: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, bytes(data)[:5])

    monkeypatch.setattr(disk, "write", write)
    with pytest.raises(StorageError, match="free some space"):
        ConsumedFile(path).append(8, RECORDS, 0o600)
    assert path.read_bytes() == b"# 0\n- z\n"
