"""Texts written as YAML, so that `yamltext` reads back exactly the same text."""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[A-Za-z0-9_./$~(+^\\=][ -~\xa1-\u1fff]*")
_PRINTABLE = re.compile("[\n\t -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0", "\x1b": "\\e"}


def inline(text: str, *, flow: bool = False) -> str:
    """`text` as a scalar on one line: plain where that reads back the same, else in quotes.

    `flow` says that it will stand between brackets or braces.
    """
    if _is_plain(text, flow):
        return text
    if "\n" not in text and "\t" not in text and _PRINTABLE.fullmatch(text):
        return "'" + text.replace("'", "''") + "'"
    return '"' + "".join(_escaped(c) for c in text) + '"'


def _is_plain(text: str, flow: bool) -> bool:
    if not _PLAIN.fullmatch(text) or text[-1] in " :" or ": " in text or " #" in text:
        return False
    return not (flow and any(c in ",[]{}:?" for c in text))


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if _PRINTABLE.fullmatch(char):
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
    if one_line(text) or not _PRINTABLE.fullmatch(text):
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
