"""Looking over the whole queue before a run starts, so that a fault is known while the user is still watching."""

from __future__ import annotations

from collections.abc import Sequence

from pegasus_py.core.entries import Entry
from pegasus_py.core.joboptions import misplaced
from pegasus_py.core.model import SubNode
from pegasus_py.core.template import merge_params, undefined_names
from pegasus_py.errors import BadInput
from pegasus_py.store.queuefile import QueueFile

MOST = 2_000
"""Entries that are looked at for names; the rest is seen when it is reached."""


def check_templates(queue: QueueFile) -> None:
    """Raise BadInput for text that does not parse, templates included, and for options in the wrong place."""
    queue.check()
    for number, entry in enumerate(queue.entries()):
        if number >= MOST:
            return
        _check_place(entry)
        for text in entry.templates:
            undefined_names(text, place=entry.place)


def check_queue(queue: QueueFile, subnodes: Sequence[SubNode]) -> None:
    """Raise BadInput for text that does not parse, and for names in templates that no host defines."""
    queue.check()
    kinds = {tuple(name for name, _ in s.params): s for s in subnodes}
    for number, entry in enumerate(queue.entries()):
        if number >= MOST:
            return
        _check_place(entry)
        for subnode in kinds.values():
            _check_names(entry, subnode)


def _check_place(entry: Entry) -> None:
    if fault := misplaced((name for name, _ in entry.params), entry.templates):
        raise BadInput(entry.place, fault)


def _check_names(entry: Entry, subnode: SubNode) -> None:
    known = {name for name, _ in merge_params(subnode, entry.first())}
    for text in entry.templates:
        missing = sorted(undefined_names(text, place=entry.place) - known)
        if missing:
            raise BadInput(
                entry.place,
                f"{missing[0]!r} is not defined on {subnode.name}; known there: {', '.join(sorted(known))}",
            )
