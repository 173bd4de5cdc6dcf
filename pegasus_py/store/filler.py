"""Comment lines in the place of consumed entries: `#~`, a stamp if there is room, blanks.

They make a pop an edit in place, whose price does not depend on the length of the file.
"""

from __future__ import annotations

import re

from pegasus_py.store.poprecord import STAMP

_BOM = b"\xef\xbb\xbf"
_START = rb"(?:^|(?<=\A\xef\xbb\xbf))"
_FILLER = re.compile(_START + rb"#~(?:~? [0-9a-f]{%d})? *\r?\n" % STAMP, re.MULTILINE)

LEAST = 3
"""Bytes of the shortest filler."""


def fill(size: int, newline: bytes = b"\n") -> bytes:
    """One comment line of exactly `size` bytes (0, or at least LEAST)."""
    if size == 0:
        return b""
    if size < LEAST + len(newline) - 1:
        newline = b"\n"
    return b"#~".ljust(size - len(newline)) + newline


def stamp_line(stamp: str) -> bytes:
    return b"#~ " + stamp.encode() + b"\n"


def has_stamp(data: bytes, stamp: str) -> bool:
    return re.search(_START + rb"#~ " + stamp.encode() + rb" *\r?$", data, re.MULTILINE) is not None


def find_stamp(data: bytes, stamp: str) -> int | None:
    """Where the filler with that stamp begins, be it torn behind the stamp; None if it is not there."""
    found = re.search(_START + rb"#~ " + stamp.encode() + rb"(?![0-9a-f])", data, re.MULTILINE)
    return found.start() if found else None


def settled_mark(data: bytes, stamp: str) -> tuple[int, bytes]:
    """Where in `data`, and what, says that recovery has brought the pop and those before it to their end there.

    A power cut makes nothing like it of an entry and the filler in its place.
    """
    at = len(_BOM) if data.startswith(_BOM) else 0
    return at, b"#~~ " + stamp.encode() + b"\n"


def is_settled(data: bytes, stamp: str) -> bool:
    return re.search(_START + rb"#~~ " + stamp.encode() + rb" *\r?$", data, re.MULTILINE) is not None


def strip(data: bytes) -> bytes:
    """`data`, which has comments and blank lines only, without filler."""
    return _FILLER.sub(b"", data) if b"#~" in data else data


def blank(data: bytes) -> bytes:
    """Blanks of the same length, with the line ends of `data`: for items of a list in brackets."""
    return re.sub(rb"[^\r\n]", b" ", data)


def newline_of(data: bytes) -> bytes:
    """The line end that `data` uses."""
    return b"\r\n" if data.endswith(b"\r\n") else b"\n"


def stamped(data: bytes, stamp: str) -> bytes:
    """`data`, which begins with filler, with `stamp` in that if there is room."""
    word = b" " + stamp.encode()
    room = data[2 : 2 + len(word) + 1]
    if not data.startswith(b"#~") or room[:-1].strip(b" ") or len(room) <= len(word):
        return data
    return data[:2] + word + data[2 + len(word) :]
