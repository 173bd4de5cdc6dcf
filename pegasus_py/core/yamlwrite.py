"""Texts written as YAML, so that `yamltext` reads back exactly the same text."""

from __future__ import annotations

import functools
import re

_PLAIN_ASCII = re.compile(r"[A-Za-z0-9_./$~(+^\\=][ -~]*")
_PRINTABLE_ASCII = re.compile("[\n\t -~]*")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0", "\x1b": "\\e"}


# Made when they are needed: sets of characters as large as these take milliseconds.
@functools.cache
def _plain_beyond_ascii() -> re.Pattern[str]:
    return re.compile(r"[A-Za-z0-9_./$~(+^\\=][ -~\xa1-\u1fff]*")


@functools.cache
def _printable_beyond_ascii() -> re.Pattern[str]:
    return re.compile("[\n\t -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*")


def _is_printable(text: str) -> bool:
    pattern = _PRINTABLE_ASCII if text.isascii() else _printable_beyond_ascii()
    return pattern.fullmatch(text) is not None


def inline(text: str, *, flow: bool = False) -> str:
    """`text` as a scalar on one line: plain where that reads back the same, else in quotes.

    `flow` says that it will stand between brackets or braces.
    """
    if _is_plain(text, flow):
        return text
    if "\n" not in text and "\t" not in text and _is_printable(text):
        return "'" + text.replace("'", "''") + "'"
    return '"' + "".join(_escaped(c) for c in text) + '"'


def _is_plain(text: str, flow: bool) -> bool:
    pattern = _PLAIN_ASCII if text.isascii() else _plain_beyond_ascii()
    if not pattern.fullmatch(text) or text[-1] in " :" or ": " in text or " #" in text:
        return False
    return not (flow and any(c in ",[]{}:?" for c in text))


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if _is_printable(char):
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def one_line(text: str) -> bool:
    """Whether a text is one line to its reader: it may still end in line ends."""
    return "\n" not in text.rstrip("\n")


def scalar(text: str, indent: int) -> str:
    """`text` as the value of a key or list item in block style, without a line end at the end.

    More than one line becomes a literal block ("|") with its lines `indent` columns in, if it can be written so.
    """
    if one_line(text) or not _is_printable(text):
        return inline(text)
    body = text.rstrip("\n")
    ends = len(text) - len(body)
    if not body.strip(" \t\n"):
        return inline(text)
    chomping = {0: "-", 1: ""}.get(ends, "+")
    # Said explicitly where the first line does not show where the block begins.
    width = "2" if text[0] in " \t\n" else ""
    margin = " " * indent
    lines = [margin + line if line else "" for line in body.split("\n")]
    return "\n".join([f"|{width}{chomping}", *lines, *[""] * (ends - 1)])
