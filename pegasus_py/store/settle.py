"""After a crash: which bytes of the queue file a pop that may not be complete still has to replace. Pure.

The file is what it was before the pop, or after it, or (a power cut) a mixture; and the user may have edited it since.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from pegasus_py.core.entries import dump_entry, dump_flow, parse_entry
from pegasus_py.core.yamltext import items
from pegasus_py.errors import BadInput
from pegasus_py.store import filler
from pegasus_py.store.poprecord import Edit, PopRecord, bytes_digest, task_digest
from pegasus_py.store.sweep import Layout, Piece

Splice = tuple[int, int, bytes]
"""Offset and size of bytes to be replaced, and what replaces them."""


def splices(data: bytes, record: PopRecord, name: str) -> list[Splice]:
    """What is left to do to `data`, the whole queue file, in the order of offsets; nothing if the pop is complete."""
    if record.rewrite and filler.has_stamp(data, record.stamp):
        return []
    for edits in _moved(data, record):
        if record.rewrite and all(_is_before(data, edit) for edit in edits):
            return [(e.offset, e.size, e.new) for e in edits]
        if not record.rewrite and _is_in_place(data, edits):
            return [(e.offset, e.size, e.new) for e in edits if not data.startswith(e.new, e.offset)]
    if filler.has_stamp(data, record.stamp):
        return []
    return _by_meaning(data, record, name)


def _moved(data: bytes, record: PopRecord) -> Iterator[tuple[Edit, ...]]:
    """The edits where they were planned, and where they may be if the user put something in or took something out."""
    first = record.edits[0]
    places = [first.offset, first.offset + len(data) - record.size]
    for middle in (first.old, first.new):
        if middle is not None:
            places.append(data.find(first.before + middle) + len(first.before))
    for place in dict.fromkeys(places):
        if place >= len(first.before):
            shift = place - first.offset
            yield tuple(replace(e, offset=e.offset + shift) for e in record.edits)


def _is_before(data: bytes, edit: Edit) -> bool:
    return bytes_digest(data[edit.offset : edit.offset + edit.size]) == edit.digest


def _is_in_place(data: bytes, edits: tuple[Edit, ...]) -> bool:
    """Whether the bytes of all edits are there: as they were, as they shall be, or torn between the two."""
    before = bytearray(data)
    for edit in edits:
        now, old = data[edit.offset : edit.offset + edit.size], edit.old or b""
        if len(now) != edit.size:
            return False
        if now not in (old, edit.new) and any(
            n not in (a, b) for n, a, b in zip(now, old, edit.new, strict=True)
        ):
            return False
        before[edit.offset : edit.offset + edit.size] = old
    return all(
        before[e.offset - len(e.before) : e.offset] == e.before
        and before.startswith(e.after, e.offset + e.size)
        for e in edits
    )


def _by_meaning(data: bytes, record: PopRecord, name: str) -> list[Splice]:
    """The file was edited: take the tasks of the pop away where they still stand, in their order."""
    wanted = list(record.tasks)
    found: list[Splice] = []
    try:
        for count, item in enumerate(items(data, name)):
            if not wanted:
                break
            pieces = [Piece(parse_entry(item.node, name), Layout(item.indent))]
            before = len(wanted)
            while pieces and (digest := task_digest(pieces[0].task)) in wanted:
                del wanted[: wanted.index(digest) + 1]
                pieces = [*pieces[0].after_first(), *pieces[1:]]
            if len(wanted) == before:
                continue
            entries = [p.rest() for p in pieces]
            start, end = item.start, item.end
            if item.flow:
                text = "".join(dump_flow(e) + ", " for e in entries)
                if item.outer is not None and not entries and len(found) == count:
                    # Nothing is left between the brackets: they go too, so that no `[]` stays.
                    found, (start, end) = [], item.outer
            else:
                text = "".join(dump_entry(e, item.indent) for e in entries)
            found.append((start, end - start, text.encode()))
    except BadInput:
        # What cannot be read cannot be searched; the user is editing it.
        pass
    return found
