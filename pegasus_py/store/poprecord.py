"""What one pop is going to change: written to the ledger before anything is changed, read back after a crash.

And the mark of which pop is complete, kept beside the ledger, so that recovery never takes an entry that the user wrote
after the pop for one that the pop failed to remove.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict

from pegasus_py.core.model import Task
from pegasus_py.errors import StorageError
from pegasus_py.store import disk

STAMP = 8
"""Length of the random hex word that names a pop, and that its filler carries where there is room."""
_SMALL = 2048
MOST_UNFLUSHED = 16
"""Pops that are flushed together at most, and that recovery may have to look at after a power cut."""
MOST_WRITTEN = 1 << 16
"""Bytes that these may have changed, for the same reason."""


class Edit(Struct, frozen=True, gc=False):
    """Bytes of the queue file to be replaced: `size` bytes at `offset`, with SHA-256 `digest`, become `new`.

    `before` and `after` are some bytes around them, for telling that this is still the file that was planned for.
    For an edit in place `old` are the bytes themselves and as long as `new`; else it is None.
    """

    offset: int
    size: int
    new: bytes
    before: bytes = b""
    after: bytes = b""
    old: bytes | None = None
    digest: str = ""


class PopRecord(Struct, frozen=True, gc=False):
    """One pop of one or several tasks. `rewrite`: the file is replaced as a whole, else it is edited in place.

    `size` is the queue file's before the pop; `tasks` are digests of the tasks taken, in order; `consumed` are the
    records for consumed.yaml, to be appended when that has `consumed_size` bytes.
    """

    stamp: str
    rewrite: bool
    size: int
    edits: tuple[Edit, ...]
    tasks: tuple[str, ...]
    consumed_size: int
    consumed: tuple[bytes, ...]

    @property
    def has_one_stamp(self) -> bool:
        """Whether all that it changes is one piece in place, which begins with its stamp."""
        in_place = not self.rewrite and len(self.edits) == 1
        return in_place and self.edits[0].new.startswith(b"#~ " + self.stamp.encode())

    def encode(self) -> bytes:
        fields = {**asdict(self), "edits": [asdict(edit) for edit in self.edits]}
        text = _to_json(fields).encode("ascii")
        return b"z" + zlib.compress(text, 1) if len(text) > _SMALL else text


def decode(blob: bytes) -> PopRecord:
    """The inverse of `encode`. Raises StorageError for anything else."""
    try:
        fields = json.loads(zlib.decompress(blob[1:]) if blob[:1] == b"z" else blob)
        edits = tuple(
            Edit(**{k: v.encode("latin-1") if k in _BYTES and v is not None else v for k, v in e.items()})
            for e in fields.pop("edits")
        )
        consumed = tuple(text.encode("latin-1") for text in fields.pop("consumed"))
        return PopRecord(edits=edits, consumed=consumed, **{**fields, "tasks": tuple(fields["tasks"])})
    except (ValueError, zlib.error, KeyError, TypeError, AttributeError) as error:
        raise StorageError("ledger", f"its record of the last pops cannot be read: {error}") from error


class Unflushed(Struct, frozen=True, gc=False):
    """A series: pops in place, one after the other in the same file of `size` bytes, applied since the last flush.

    Each replaces one piece of the file, behind `end`, where those of the earlier ones are, by filler with its stamp:
    after a power cut, which keeps some pages and not others, each can be looked for. `consumed_size` is that of
    consumed.yaml after them; `written` are the bytes of both files that they changed.
    """

    size: int
    end: int
    pops: int
    written: int
    consumed_size: int

    @classmethod
    def from_(cls, record: PopRecord) -> Unflushed | None:
        """With this as the first; None if none may follow it."""
        return cls(record.size, 0, 0, 0, record.consumed_size).then(record)

    def then(self, record: PopRecord) -> Unflushed | None:
        """With one more; None if that cannot be kept together with these."""
        consumed = sum(map(len, record.consumed))
        written = self.written + consumed + sum(edit.size for edit in record.edits)
        edit = record.edits[0]
        if (
            not record.has_one_stamp
            or edit.offset < self.end
            or (record.size, record.consumed_size) != (self.size, self.consumed_size)
            or self.pops == MOST_UNFLUSHED
            or (self.pops and written > MOST_WRITTEN)
        ):
            return None
        end = edit.offset + edit.size
        return Unflushed(self.size, end, self.pops + 1, written, self.consumed_size + consumed)


_BYTES = ("new", "before", "after", "old")


def _bytes_to_text(value: object) -> str:
    assert isinstance(value, bytes)
    return value.decode("latin-1")


# Made once, for `json.dumps` makes one for each call that asks for something.
_to_json: Callable[[object], str] = json.JSONEncoder(default=_bytes_to_text, separators=(",", ":")).encode


def task_digest(task: Task) -> str:
    """Equal for equal tasks, wherever they stand."""
    return hashlib.sha256(repr((task.command, task.params, task.options)).encode()).hexdigest()[:16]


def bytes_digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class PopMark:
    """The file `popped` in the state directory: which pop was applied last, and up to which all are durable.

    "Applied" holds while the machine runs (`kill -9` loses nothing that was written); "durable" holds for ever.
    Without the directory (`pegasus lock` before the first run) nothing is noted: there is no ledger either.
    """

    _SLOT = 64

    def __init__(self, directory: Path) -> None:
        self.path = directory / "popped"
        self._boot = disk.boot_id()
        self._fd: int | None = None

    def applied(self, stamp: str) -> None:
        """Note that every byte of the pop was written. Never fails: without the note recovery looks at the files."""
        self._put(0, f"{stamp} {self._boot}")

    def durable(self, stamp: str, *, flush: bool = True) -> None:
        """Note, so that it lasts if `flush`, that the pop and those before it were flushed."""
        self._put(self._SLOT, stamp)
        if flush and self._fd is not None:
            with suppress(OSError):
                disk.fdatasync(self._fd)

    def read(self) -> tuple[str, str]:
        """The stamp of a pop that is known to be complete in both files, and of one that is durable there; or ""."""
        try:
            data = self.path.read_bytes()
        except OSError:
            return "", ""
        applied, durable = (data[i : i + self._SLOT].decode("latin-1").split() for i in (0, self._SLOT))
        return (
            applied[0] if self._boot and applied[1:] == [self._boot] else "",
            durable[0] if len(durable) == 1 else "",
        )

    def _put(self, offset: int, text: str) -> None:
        with suppress(OSError):
            if self._fd is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                self._fd = os.open(self.path, flags, 0o600)
            disk.pwrite_all(self._fd, text.ljust(self._SLOT - 1).encode("latin-1") + b"\n", offset)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
