"""Durations as people write them, and remote text made safe for a terminal."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from decimal import Decimal

MAX_DURATION = 10 * 365 * 86400.0
"""Seconds; more is a mistake."""

_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_UNITS = {"ms": Decimal("0.001"), **{unit: Decimal(count) for unit, count in _SECONDS.items()}}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|[dhms]))+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[dhms])")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def parse_duration(text: str) -> float:
    """Seconds in `2d`, `1h30m`, `0.5s`, `500ms` or `45` (seconds).

    Raises ValueError, whose message completes "KEY: ".
    """
    if len(text) > 100:
        raise ValueError("too long for a duration")
    if _NUMBER.fullmatch(text):
        seconds = Decimal(text)
    elif _DURATION.fullmatch(text):
        seconds = sum((Decimal(n) * _UNITS[unit] for n, unit in _PART.findall(text)), Decimal(0))
    else:
        raise ValueError(f"{text!r} is not a duration; write 90, 10s, 30m, 2h, 1h30m, 2d or 500ms")
    if seconds > MAX_DURATION:
        raise ValueError(f"{text!r} is longer than ten years")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """The shortest usual form, which `parse_duration` reads back as the same number."""
    if seconds != int(seconds):
        return f"{Decimal(repr(seconds)):f}s"
    left = int(seconds)
    parts = []
    for unit, length in _SECONDS.items():
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


_ORDINARY = bytes([9, 10, *range(0x20, 0x7F)])
_ORDINARY_OR_UTF8 = _ORDINARY + bytes(range(0x80, 0x100))
_C1 = re.compile(rb"\xc2[\x80-\x9f]")
_CONTROL = re.compile("(\x1b\\[[0-9;:]{0,64}m)|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-9;:]{0,64})?\Z")


def _visible(found: re.Match[str]) -> str:
    if found[1] is not None:
        return found[1]
    code = ord(found[0])
    if code < 0x20:
        return "^" + chr(code + 0x40)
    return "^?" if code == 0x7F else f"\\x{code:02x}"


def clean(text: str) -> str:
    """`text` with control characters made visible (`^[`, `\\x9b`); only line ends, tabs and SGR colours stay."""
    return _CONTROL.sub(_visible, text)


class Cleaner:
    """Makes one stream of bytes safe for a terminal, block by block.

    What comes out is UTF-8. Bytes that are not become U+FFFD; control characters become visible (`^[`, `^M`, `\\x9b`);
    only line ends, tabs and SGR colour sequences stay. Sequences cut by the end of a block are held for the next.
    """

    def __init__(self) -> None:
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        # Ordinary text is by far the most and must cost next to nothing.
        idle = not self._held and not self._decoder.getstate()[0]
        if idle and not data.translate(None, _ORDINARY):
            return data
        return self._feed(data, final=False)

    def finish(self) -> bytes:
        """What was held at the end of the stream."""
        return self._feed(b"", final=True)

    def _feed(self, data: bytes, *, final: bool) -> bytes:
        data, self._held = self._held + data, b""
        if not final and (cut := _UNFINISHED.search(data, max(0, len(data) - 80))):
            data, self._held = data[: cut.start()], cut[0]
        # A C1 character may be cut in two, one byte being in the decoder.
        whole = not self._decoder.getstate()[0]
        text = self._decoder.decode(data, final)
        if whole and not data.translate(None, _ORDINARY_OR_UTF8) and not _C1.search(data):
            return text.encode("utf-8")
        return clean(text).encode("utf-8")
