"""After a crash: which bytes of the queue file pops that may not be complete still have to replace. Pure.

The file is what it was before them, or after any of them, or (a power cut) a mixture; and the user may have edited it
since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pegasus_py.core.entries import dump_entry, dump_flow, parse_entry
from pegasus_py.core.yamltext import items
from pegasus_py.errors import BadInput
from pegasus_py.store import filler
from pegasus_py.store.poprecord import Edit, PopRecord, bytes_digest, task_digest
from pegasus_py.store.sweep import Layout, Piece

Splice = tuple[int, int, bytes]
"""Offset and size of bytes to be replaced, and what replaces them."""


def splices(data: bytes, pops: Sequence[PopRecord], name: str) -> list[Splice]:
    """What is left to do to `data`, the whole queue file, in the order of offsets; nothing if all pops are complete.

    One pop, or several in place that followed each other without an edit of the user between them.
    """
    first, last = pops[0], pops[-1]
    if last.rewrite and filler.has_stamp(data, last.stamp):
        return []
    for shift in _shifts(data, first):
        if last.rewrite:
            if all(_is_before(data, edit, shift) for edit in last.edits):
                return [(e.offset + shift, e.size, e.new) for e in last.edits]
        elif (left := _in_place(data, pops, shift)) is not None:
            return left
    for count in range(len(pops), 0, -1):
        if filler.has_stamp(data, pops[count - 1].stamp):
            # Who edited the file saw this one complete, and so all before it.
            pops = pops[count:]
            break
    return _by_meaning(data, [task for pop in pops for task in pop.tasks], name)


def _shifts(data: bytes, pop: PopRecord) -> Iterator[int]:
    """How far from where they were planned the edits may be, if the user put something in or took something out."""
    first = pop.edits[0]
    places = [first.offset, first.offset + len(data) - pop.size]
    for middle in (first.old, first.new):
        if middle is not None:
            places.append(data.find(first.before + middle) + len(first.before))
    for place in dict.fromkeys(places):
        if place >= len(first.before):
            yield place - first.offset


def _is_before(data: bytes, edit: Edit, shift: int) -> bool:
    start = edit.offset + shift
    return bytes_digest(data[start : start + edit.size]) == edit.digest


def _in_place(data: bytes, pops: Sequence[PopRecord], shift: int) -> list[Splice] | None:
    """What is left to write where all bytes are as they were, as one of the pops left them, or torn between these.

    None if it is not so, and the file is not the one that was planned for.
    """
    edits = [(edit.offset + shift, edit, pop) for pop in pops for edit in pop.edits]
    if any(start < len(edit.before) or start + edit.size > len(data) for start, edit, _ in edits):
        return None
    view = bytearray(data)
    for start, edit, _ in reversed(edits):
        view[start : start + edit.size] = edit.old or b""
    possible = {at: {view[at]} for start, edit, _ in edits for at in range(start, start + edit.size)}
    for pop in pops:
        # Each was planned with what the ones before it had left.
        own = [(start, edit) for start, edit, its in edits if its is pop]
        for start, edit in own:
            around = edit.before + (edit.old or b"") + edit.after
            if not view.startswith(around, start - len(edit.before)):
                return None
        for start, edit in own:
            view[start : start + edit.size] = edit.new
            for at, byte in enumerate(edit.new, start):
                possible[at].add(byte)
    if not all(data[at] in bytes_ for at, bytes_ in possible.items()):
        return None
    return [
        (start, end - start, bytes(view[start:end]))
        for start, end in _joined((start, start + edit.size) for start, edit, _ in edits)
        if data[start:end] != view[start:end]
    ]


def _joined(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The spans in their order, those that touch or overlap as one."""
    last: tuple[int, int] | None = None
    for start, end in sorted(spans):
        if last is not None and start <= last[1]:
            last = last[0], max(last[1], end)
            continue
        if last is not None:
            yield last
        last = start, end
    if last is not None:
        yield last


def _by_meaning(data: bytes, wanted: list[str], name: str) -> list[Splice]:
    """The file was edited: take the tasks with these digests away where they still stand, in their order."""
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
