"""Writing files so that a crash leaves the old or the new version, and telling failures of the disk in plain words.

The calls that change bytes go through the names here, so that tests can stop or fail each of them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from pegasus_py.errors import StorageError

write = os.write
pwrite = os.pwrite
fsync = os.fsync
fdatasync = os.fdatasync if hasattr(os, "fdatasync") else os.fsync
"""Flushes what was written into a file, and its size, but not its times: in place that spares a journal commit."""
ftruncate = os.ftruncate
rename = os.rename
unlink = os.unlink

BLOCK = 1 << 20
_FULL = "free some space"
_DENIED = "make it writable"
_HINTS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _DENIED,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
}


def storage_error(path: object, what: str, error: OSError) -> StorageError:
    """`what` completes "cannot ..."; the message ends with what the user can do about it."""
    hint = _HINTS.get(error.errno or 0)
    return StorageError(path, f"cannot {what}: {error.strerror or error}" + (f"; {hint}" if hint else ""))


class storage:
    """Turns an OSError inside into a StorageError about `path`.

    A class, for a pop goes through a dozen of them, and one made by `contextmanager` costs three to five times as much.
    """

    __slots__ = ("_path", "_what")

    def __init__(self, path: object, what: str) -> None:
        self._path = path
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise storage_error(self._path, self._what, error) from error


def write_all(fd: int, data: bytes) -> None:
    """Write `data` at the descriptor's place; it may have written a part when it raises."""
    view = memoryview(data)
    while view:
        view = view[write(fd, view) :]


def pwrite_all(fd: int, data: bytes, offset: int) -> None:
    """Write `data` at `offset`; it may have written a part when it raises."""
    view = memoryview(data)
    while view:
        done = pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


def read_range(fd: int, start: int, end: int) -> bytes:
    """The bytes from `start` to `end`, or fewer if the file ends before."""
    parts = []
    while start < end:
        part = os.pread(fd, end - start, start)
        if not part:
            break
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def blocks(fd: int, start: int) -> Iterator[bytes]:
    """The bytes from `start` to the end, in pieces."""
    while piece := os.pread(fd, BLOCK, start):
        yield piece
        start += len(piece)


def sync_directory(directory: Path) -> None:
    """Make names in `directory` durable. File systems that cannot flush a directory do it by themselves."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):
            raise
    finally:
        os.close(fd)


def boot_id() -> str:
    """Changes whenever this machine may have lost what was written but not flushed; "" if it cannot be told."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


Identity = tuple[int, int, int, int]
"""Device, inode, size and time of change (ns): what tells that a file is still the one that we know."""


def identity(found: os.stat_result) -> Identity:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class Replacement:
    """A new version of the regular file `target`, written and flushed beside it, which counts from `publish` on.

    Its name is always the same, so that what a crash leaves is found (`clean`). `target` is no symlink.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.temporary = target.with_name(f".{target.name}.pegasus-new")

    def prepare(self, parts: Iterable[bytes], like: os.stat_result) -> None:
        """Write `parts` with the mode and, as far as allowed, the owner of `like`. Raises OSError, leaving nothing."""
        self.clean()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.temporary, flags, 0o600)
        try:
            for part in parts:
                write_all(fd, part)
            self._imitate(fd, like)
            fsync(fd)
        except OSError:
            self.clean()
            raise
        finally:
            os.close(fd)

    @staticmethod
    def _imitate(fd: int, like: os.stat_result) -> None:
        mine = os.fstat(fd)
        if (mine.st_uid, mine.st_gid) != (like.st_uid, like.st_gid):
            with suppress(PermissionError):
                os.fchown(fd, -1, like.st_gid)
            with suppress(PermissionError):
                os.fchown(fd, like.st_uid, -1)
        # After the owner: a change of owner clears set-id bits.
        os.fchmod(fd, like.st_mode & 0o7777)

    def publish(self) -> None:
        """Put the new version in the place of the old one, durably. Raises OSError."""
        rename(self.temporary, self.target)
        sync_directory(self.target.parent)

    def clean(self) -> None:
        """Remove a version that was never published, of this process or of one that was killed."""
        with suppress(FileNotFoundError):
            unlink(self.temporary)
