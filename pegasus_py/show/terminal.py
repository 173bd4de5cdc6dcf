"""What may reach a terminal: text without control characters, except colours; and how wide it is there.

Whatever a job prints, a host is called or a node says is foreign: it must not move the cursor, set the title or
hide itself. Only colours (SGR sequences) pass, and only where colours are shown. Complete cursor and title
sequences are left out, for they mean nothing in a list of lines; any other control is shown, as `^G` or `\\x9b`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

RESET = "\x1b[0m"

_HARMLESS = b"\t\n" + bytes(range(32, 127))
_SGR = r"\x1b\[[0-9;:]{0,64}m"
_COLOUR = re.compile(_SGR)
_COLOURS = re.compile(f"({_SGR})")
# The bounds keep a stray ESC from being searched for its end again and again.
_DROPPED = (
    r"\x1b\[[0-?]{0,64}[ -/]{0,4}[@-~]"  # cursor, erasing, modes
    r"|\x1b\][^\x00-\x1f\x7f-\x9f]{0,4096}(?:\x07|\x1b\\)"  # title, hyperlinks
    r"|\x1b[()*+][0-9A-Z]"  # character sets, as `tput sgr0` sends them
)
# C0 and C1; line and paragraph separators; what reorders the text around it.
_CONTROL = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]"
_FOREIGN = re.compile(f"{_DROPPED}|{_CONTROL}")
_FOREIGN_BUT_COLOUR = re.compile(rf"(?!{_SGR})(?:{_DROPPED}|{_CONTROL})")


def clean(block: bytes, colour: bool) -> bytes:
    """Lines of foreign output as they may be shown: valid UTF-8, no controls but newline, tab and (`colour`) SGR.

    Each line that has a colour ends with a reset. Bytes that are no UTF-8 become U+FFFD. Blocks must end at a
    line's end, else a character or a sequence on the border is taken for broken.
    """
    # To take the harmless ones out is the fastest way to find out whether there are others.
    if not block.translate(None, _HARMLESS):
        return block
    return clean_text(block.decode("utf-8", "replace"), colour).encode()


def clean_text(text: str, colour: bool = False) -> str:
    """`clean` for text."""
    if not colour:
        return _FOREIGN.sub(_shown, text)
    text = _FOREIGN_BUT_COLOUR.sub(_shown, text)
    if "\x1b" not in text:
        return text
    return "\n".join([_closed(line) if "\x1b" in line else line for line in text.split("\n")])


def _closed(line: str) -> str:
    return line if line.endswith((RESET, "\x1b[m")) else line + RESET


def plain(text: str) -> str:
    """Foreign text as a part of one line: a host's name, a reason. Newlines and tabs become blanks."""
    if text.isascii() and text.isprintable():
        return text
    # Lone surrogates come from file names that are no UTF-8, and cannot be printed.
    text = text.encode("utf-8", "replace").decode("utf-8", "replace")
    return _FOREIGN.sub(_shown, text.replace("\n", " ").replace("\t", " "))


def _shown(match: re.Match[str]) -> str:
    found = match[0]
    if len(found) > 1:
        return ""
    code = ord(found)
    if code < 32 or code == 127:
        return "^" + chr(code ^ 64)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


@lru_cache(4096)
def _cell(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cells(text: str) -> int:
    """The columns that clean text takes on a terminal; colours take none."""
    if "\x1b" in text:
        text = _COLOUR.sub("", text)
    return len(text) if text.isascii() else sum(map(_cell, text))


def fit(text: str, width: int) -> str:
    """Clean text without colours, cut to `width` columns; what was cut shows as `…`."""
    if cells(text) <= width:
        return text
    return (_head(text, width - 1) + "…") if width > 0 else ""


def _head(text: str, width: int) -> str:
    used = 0
    for at, char in enumerate(text):
        used += _cell(char)
        if used > width:
            return text[:at]
    return text


def wrap(line: str, width: int) -> list[str]:
    """One clean line as pieces of at most `width` columns (at least 2); each begins with the colours of the last."""
    if cells(line) <= width:
        return [line]
    pieces: list[str] = []
    colours: list[str] = []
    piece: list[str] = []
    used = 0
    for part in _COLOURS.split(line):
        if part.startswith("\x1b"):
            colours = [] if part in ("\x1b[m", RESET) else [*colours[-15:], part]
            piece.append(part)
            continue
        while part:
            head = part[: width - used] if part.isascii() else _head(part, width - used)
            piece.append(head)
            used += cells(head)
            part = part[len(head) :]
            if part:
                pieces.append("".join(piece) + (RESET if colours else ""))
                piece, used = list(colours), 0
    pieces.append("".join(piece))
    return pieces


def wrap_words(text: str, width: int) -> list[str]:
    """Text of our own, without colours, divided between words; only a word that is too wide is itself divided."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and cells(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines += wrap(word, width)
    return lines
