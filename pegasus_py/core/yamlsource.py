"""The text of a YAML file or of a piece of it: checked characters, and places for marks and messages."""

from __future__ import annotations

import functools
import re
from typing import Any

from pegasus_py.core.nodes import Cut, Mark
from pegasus_py.errors import BadInput, Place

MAX_FILE = 64 * 2**20
"""Bytes of a file that is read as a whole."""

_BAD_ASCII = re.compile("[^\t\n\r -~]|\r(?!\n)")
_BETWEEN = re.compile(r"(?:[ \t\r]*(?:#[^\n]*)?\n)*+[ \t\r]*+(?:#[^\n]*\Z)?")


@functools.cache
def _bad_character() -> re.Pattern[str]:
    """Made when it is needed: to compile a set of characters as large as this takes longer than to read most files."""
    return re.compile(
        "[^\t\n\r -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]|\r(?!\n)"
    )


class Source:
    """A piece of a file that begins at the start of a line. Positions are indices of characters in `text`.

    `fault` is the first bad byte or character, if there is one; `text` ends before it, and it is raised when whoever
    reads comes that far. `final` says that the end of `text` is the end of the file.
    """

    def __init__(self, data: bytes, file: str, offset: int = 0, line: int = 1, final: bool = True) -> None:
        self.file = file
        self.first_line = line
        self.fault: BadInput | None = None
        if len(data) > MAX_FILE:
            raise BadInput(Place(file), f"larger than {MAX_FILE >> 20} MiB; split it into several files")
        if not final:
            data = data[: data.rfind(b"\n") + 1]
        if offset == 0 and data.startswith(b"\xef\xbb\xbf"):
            data, offset = data[3:], 3
        self.offset = offset
        self.text = self._decode(data)
        self.final = final and self.fault is None
        self._skip_lead()
        self.ascii = self.text.isascii()
        self.known = (0, 0)

    def _decode(self, data: bytes) -> str:
        """The text up to the first bad byte or character, which becomes `fault`."""
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            text = data[: error.start].decode("utf-8")
            self.fault = BadInput(
                self.place(text, len(text)),
                f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8",
            )
        bad = (_BAD_ASCII if text.isascii() else _bad_character()).search(text)
        if bad is not None:
            self.fault = BadInput(
                self.place(text, bad.start()),
                f"the character U+{ord(bad[0]):04X} cannot stand in YAML; remove it, "
                'or write it as an escape in double quotes ("\\x1b")',
            )
            text = text[: bad.start()]
        return text

    def _skip_lead(self) -> None:
        """Leave out blank lines and comments at the start: libyaml allows a tab in them after an item only."""
        lead = self.text[: self.line_start(self.next_content(0))]
        self.text = self.text[len(lead) :]
        self.offset += len(lead.encode("utf-8"))
        self.first_line += lead.count("\n")

    def place(self, text: str, index: int) -> Place:
        line = text.count("\n", 0, index)
        return Place(self.file, self.first_line + line, index - text.rfind("\n", 0, index))

    def bytes_to(self, index: int) -> int:
        """The offset in the file, in bytes, of a character."""
        if self.ascii:
            return self.offset + index
        at, size = self.known
        if at <= index:
            size += len(self.text[at:index].encode("utf-8"))
        else:
            size -= len(self.text[index:at].encode("utf-8"))
        self.known = (index, size)
        return self.offset + size

    def mark(self, mark: Any) -> Mark:
        return Mark(self.first_line + mark.line, mark.column + 1, self.bytes_to(mark.index))

    def bad(self, mark: Mark | Any, what: str) -> BadInput:
        if not isinstance(mark, Mark):
            mark = self.mark(mark)
        return BadInput(Place(self.file, mark.line, mark.column), what)

    def line_start(self, index: int) -> int:
        return self.text.rfind("\n", 0, index) + 1

    def line_end(self, index: int) -> int:
        return self.text.find("\n", index) + 1 or len(self.text)

    def next_content(self, index: int) -> int:
        """Where the next content is, after spaces, blank lines and comments."""
        found = _BETWEEN.match(self.text, index)
        return found.end() if found else index

    def need_more(self) -> None:
        """Called where the text ends too early to tell: harmless if that is the end of the file."""
        if self.fault is not None:
            raise self.fault
        if not self.final:
            raise Cut
