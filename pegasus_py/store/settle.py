"""After a crash: which bytes of the queue file pops that may not be complete still have to replace. Pure.

The file is what it was before them, or after them, or (a power cut) a mixture; and the user may have edited it since.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

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

    One pop, or a series as `poprecord.Unflushed` allows it.
    """
    if pops[-1].rewrite:
        return _of_rewrite(data, pops[-1], name)
    stamps = {pop.stamp: filler.find_stamp(data, pop.stamp) for pop in pops}
    for shift in _shifts(data, pops[0], is_alone=len(pops) == 1):
        if _agree(pops, stamps, shift) and (left := _in_place(data, pops, shift)) is not None:
            return left
    # The file was edited. A power cut keeps some pages and not others, so each pop is judged by its own stamp, or by
    # its place beside another one's.
    todo: list[Splice] = []
    wanted: list[str] = []
    found = [(pop, at) for pop in pops if (at := stamps[pop.stamp]) is not None]
    shifts = {at - _stamped(pop).offset for pop, at in found} or {*_guessed(data, pops[0])}
    for pop in pops:
        at, edit = stamps[pop.stamp], _stamped(pop)
        places = [edit.offset + shift for shift in shifts] if at is None else [at]
        place = next((p for p in places if p >= 0 and _is_mixture(data[p : p + edit.size], edit)), None)
        if place is not None:
            todo.append((place, edit.size, edit.new))
        elif at is None:
            wanted += pop.tasks
    patched = bytearray(data)
    for offset, size, text in todo:
        patched[offset : offset + size] = text
    left = [splice for splice in todo if not data.startswith(splice[2], splice[0])]
    return sorted([*left, *_by_meaning(bytes(patched), wanted, name)])


def _of_rewrite(data: bytes, pop: PopRecord, name: str) -> list[Splice]:
    if filler.find_stamp(data, pop.stamp) is not None:
        return []
    for shift in _shifts(data, pop, is_alone=True):
        if all(_is_before(data, edit, shift) for edit in pop.edits):
            return [(e.offset + shift, e.size, e.new) for e in pop.edits]
    return _by_meaning(data, list(pop.tasks), name)


def _shifts(data: bytes, pop: PopRecord, *, is_alone: bool) -> Iterator[int]:
    """How far from where they were planned the edits may be, if the user put something in or took something out."""
    first = pop.edits[0]
    places = [first.offset, first.offset + len(data) - pop.size]
    for middle in (first.old, first.new) if is_alone else ():
        # Of lines that are equal nobody knows which one it was.
        if middle is not None and data.count(first.before + middle) == 1:
            places.append(data.find(first.before + middle) + len(first.before))
    for place in dict.fromkeys(places):
        if place >= len(first.before):
            yield place - first.offset


def _guessed(data: bytes, pop: PopRecord) -> Iterator[int]:
    """The same where the bytes themselves may be torn."""
    yield from (0, len(data) - pop.size)
    first = pop.edits[0]
    if data.count(first.before) == 1:
        yield data.find(first.before) + len(first.before) - first.offset


def _agree(pops: Sequence[PopRecord], stamps: Mapping[str, int | None], shift: int) -> bool:
    """Whether all stamps that are there are where they should be."""
    for pop in pops:
        at = stamps[pop.stamp]
        if at is not None and at - shift not in [edit.offset for edit in pop.edits]:
            return False
    return True


def _is_before(data: bytes, edit: Edit, shift: int) -> bool:
    start = edit.offset + shift
    return bytes_digest(data[start : start + edit.size]) == edit.digest


def _in_place(data: bytes, pops: Sequence[PopRecord], shift: int) -> list[Splice] | None:
    """What is left to write where all bytes are as they were, as the pops should leave them, or torn between the two.

    None if it is not so, and the file is not the one that was planned for.
    """
    edits = [(edit.offset + shift, edit) for pop in pops for edit in pop.edits]
    if any(start < len(edit.before) or start + edit.size > len(data) for start, edit in edits):
        return None
    first = edits[0]
    if (
        not shift
        and data.endswith(first[1].before, 0, first[0])
        and all(data.startswith(edit.new, start) for start, edit in edits)
    ):
        # Nobody but us leaves that; what comes after it may have been edited.
        return []
    view = bytearray(data)
    for start, edit in reversed(edits):
        view[start : start + edit.size] = edit.old or b""
    for pop in pops:
        # Each was planned with what the ones before it had left.
        for edit in pop.edits:
            around = edit.before + (edit.old or b"") + edit.after
            if not view.startswith(around, edit.offset + shift - len(edit.before)):
                return None
        for edit in pop.edits:
            start = edit.offset + shift
            view[start : start + edit.size] = edit.new
    if not all(_is_mixture(data[start : start + edit.size], edit) for start, edit in edits):
        return None
    return [
        (start, edit.size, edit.new) for start, edit in sorted(edits) if not data.startswith(edit.new, start)
    ]


def _is_mixture(now: bytes, edit: Edit) -> bool:
    old = edit.old or b""
    return len(now) == edit.size and (
        now in (old, edit.new) or all(n in (a, b) for n, a, b in zip(now, old, edit.new, strict=True))
    )


def _stamped(pop: PopRecord) -> Edit:
    """The edit that carries the stamp, or the first one where there was no room."""
    return next(
        (edit for edit in pop.edits if edit.new.startswith(b"#~ " + pop.stamp.encode())), pop.edits[0]
    )


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
