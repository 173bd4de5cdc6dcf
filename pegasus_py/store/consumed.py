"""consumed.yaml: the jobs that have left the queue, one record after the other. Pegasus only ever appends."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from pegasus_py.store import disk


class ConsumedFile:
    """Appends records as a whole or not at all, and completes what a crash tore. Used under the queue's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def plan(self, records: tuple[bytes, ...]) -> tuple[int, tuple[bytes, ...]]:
        """The file's size, and `records` as they must be written after it. Changes nothing. Raises StorageError."""
        with disk.storage(self.path, "read"):
            try:
                fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return 0, records
            try:
                size = os.fstat(fd).st_size
                if records and size and os.pread(fd, 1, size - 1) != b"\n":
                    records = (b"\n" + records[0], *records[1:])
            finally:
                os.close(fd)
        return size, records

    def append(self, size: int, records: tuple[bytes, ...], mode: int) -> int:
        """Append what `plan` returned in one write; a new file gets `mode`. The descriptor, still to be synced.

        Raises StorageError, and then the file is as it was.
        """
        with disk.storage(self.path, "append to"):
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, mode)
            try:
                if os.fstat(fd).st_size != size:
                    self._settle(fd, size, records)
                else:
                    self._write(fd, size, b"".join(records))
            except BaseException:
                os.close(fd)
                raise
        return fd

    def settle(self, size: int, records: tuple[bytes, ...], mode: int) -> int:
        """Make sure that each of `records`, planned for when the file had `size` bytes, is in it once.

        Idempotent. The descriptor, still to be synced. Raises StorageError.
        """
        with disk.storage(self.path, "append to"):
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
            try:
                self._settle(fd, size, records)
            except BaseException:
                os.close(fd)
                raise
        return fd

    @staticmethod
    def _write(fd: int, size: int, data: bytes) -> None:
        try:
            disk.write_all(fd, data)
        except OSError:
            disk.ftruncate(fd, size)
            raise

    def _settle(self, fd: int, size: int, records: tuple[bytes, ...]) -> None:
        whole = b"".join(records)
        now = os.fstat(fd).st_size
        tail = disk.read_range(fd, size, now) if now >= size else None
        if tail is not None and tail.startswith(whole):
            return
        if tail is not None and _is_torn(tail, whole):
            # A power cut may leave zeros where the data did not arrive; truncating first makes it a plain append.
            disk.ftruncate(fd, size)
            missing, end = whole, size
        else:
            # The user has changed the file since: a record is there if its text is anywhere.
            data = disk.read_range(fd, 0, now)
            missing = b""
            for record, wanted in Counter(r.lstrip(b"\n") for r in records).items():
                missing += record * max(0, wanted - data.count(record))
            if missing and data and not data.endswith(b"\n"):
                missing = b"\n" + missing
            end = now
        os.lseek(fd, end, os.SEEK_SET)
        self._write(fd, end, missing)


def _is_torn(tail: bytes, whole: bytes) -> bool:
    return len(tail) <= len(whole) and all(t in (w, 0) for t, w in zip(tail, whole, strict=False))
