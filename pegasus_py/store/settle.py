"""After a crash: which bytes of the queue file pops that may not be complete still have to replace. Pure.

The file is what it was before them, or after them, or (a power cut) a mixture; and the user may have edited it since.
"""

from __future__ import annotations

from collections.abc import Sequence

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

    One pop of any kind, or a series as `poprecord.Unflushed` allows it.

    Doing it twice is as good as once, also where tasks are looked for by what they are: then a mark says that it was
    done, and the length of the file changes, so that all of it is one change.
    """
    if filler.is_settled(data, pops[-1].stamp):
        return []
    if len(pops) > 1 or pops[0].has_one_stamp:
        return _of_series(data, pops, name)
    return _of_one(data, pops[0], name)


def _of_one(data: bytes, pop: PopRecord, name: str) -> list[Splice]:
    if pop.rewrite and filler.has_stamp(data, pop.stamp):
        return []
    first = pop.edits[0]
    shifts = [0, len(data) - pop.size]
    for middle in (first.old, first.new):
        # Of pieces that are equal nobody knows which one it was.
        if middle is not None and data.count(first.before + middle) == 1:
            shifts.append(data.find(first.before + middle) + len(first.before) - first.offset)
    for shift in dict.fromkeys(shifts):
        if pop.rewrite and all(_is_before(data, edit, shift) for edit in pop.edits):
            return [(e.offset + shift, e.size, e.new) for e in pop.edits]
        if not pop.rewrite and (left := _in_place(data, [pop], shift)) is not None:
            return left
    if filler.has_stamp(data, pop.stamp) or (not pop.rewrite and _was_one_of_equals(data, pop)):
        return []
    return _marked(data, _by_meaning(data, list(pop.tasks), name), pop)


def _was_one_of_equals(data: bytes, pop: PopRecord) -> bool:
    """Whether all is as the pop should leave it in its place, while others wait that look like what it took.

    These would be taken for it.
    """
    first = pop.edits[0]
    return (
        data.count(first.old or b"") > 1
        and data.endswith(first.before, 0, first.offset)
        and all(data.startswith(edit.new, edit.offset) for edit in pop.edits)
    )


def _of_series(data: bytes, pops: Sequence[PopRecord], name: str) -> list[Splice]:
    """A power cut keeps some pages and not others, so each pop is judged by its own stamp, or by its place.

    Each has one edit, in ascending order, which begins with its stamp.
    """
    found = [filler.find_stamp(data, pop.stamp) for pop in pops]
    moved = [None if at is None else at - pop.edits[0].offset for at, pop in zip(found, pops, strict=True)]
    from_end = len(data) - pops[0].size
    for shift in (0, from_end):
        stamps_agree = all(own in (None, shift) for own in moved)
        if stamps_agree and (left := _in_place(data, pops, shift)) is not None:
            return left
    todo: list[Splice] = []
    wanted: list[str] = []
    behind = 0
    for number, pop in enumerate(pops):
        edit, at = pop.edits[0], found[number]
        near = [*reversed(moved[:number]), *moved[number + 1 :], 0, from_end]
        border = min((a for a in found[number + 1 :] if a is not None), default=len(data))
        places = [edit.offset + shift for shift in near if shift is not None] if at is None else [at]
        for place in places:
            fits = behind <= place <= border - edit.size and _is_mixture(
                data[place : place + edit.size], edit
            )
            if fits and (at is not None or place == behind or _is_beside(data, edit, place)):
                todo.append((place, edit.size, edit.new))
                behind = place + edit.size
                break
        else:
            if at is None or not filler.has_stamp(data, pop.stamp):
                # Not there, or torn and then edited.
                wanted += pop.tasks
    patched = bytearray(data)
    for offset, size, text in todo:
        patched[offset : offset + size] = text
    left = [splice for splice in todo if not data.startswith(splice[2], splice[0])]
    return sorted([*left, *_marked(data, _by_meaning(bytes(patched), wanted, name), pops[-1])])


def _is_before(data: bytes, edit: Edit, shift: int) -> bool:
    start = edit.offset + shift
    return start >= 0 and bytes_digest(data[start : start + edit.size]) == edit.digest


def _is_beside(data: bytes, edit: Edit, place: int) -> bool:
    """Whether what was around the edit is there on one side at least."""
    return data.endswith(edit.before, 0, place) or data.startswith(edit.after, place + edit.size)


def _in_place(data: bytes, pops: Sequence[PopRecord], shift: int) -> list[Splice] | None:
    """What is left to write where all bytes are as they were, as the pops should leave them, or torn between the two.

    None if it is not so, and the file is not the one that was planned for.
    """
    edits = [(edit.offset + shift, edit) for pop in pops for edit in pop.edits]
    if any(start < len(edit.before) or start + edit.size > len(data) for start, edit in edits):
        return None
    view = bytearray(data)
    for start, edit in edits:
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
    return [(start, edit.size, edit.new) for start, edit in edits if not data.startswith(edit.new, start)]


def _is_mixture(now: bytes, edit: Edit) -> bool:
    old = edit.old or b""
    return len(now) == edit.size and (
        now in (old, edit.new) or all(n in (a, b) for n, a, b in zip(now, old, edit.new, strict=True))
    )


def _marked(data: bytes, taken: list[Splice], last: PopRecord) -> list[Splice]:
    """With the mark; else the next recovery, should this one be cut off, would take other tasks that are equal."""
    if not taken:
        return []
    at, mark = filler.settled_mark(data, last.stamp)
    return [(at, 0, mark), *taken]


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
