"""What the YAML reader gives: texts, lists and mappings that know where they stand, and the items of a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec import Struct


class Mark(NamedTuple):
    """Where something begins: `line` and `column` (characters) from 1, `offset` in bytes from the file's start."""

    line: int
    column: int
    offset: int


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text. `plain` says that it was written without quotes and not as a block."""

    text: str
    mark: Mark = field(compare=False)
    plain: bool = True


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple[Node, ...]
    mark: Mark = field(compare=False)


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and values in the order written; no key twice."""

    items: tuple[tuple[Scalar, Node], ...]
    mark: Mark = field(compare=False)


Node = Scalar | Sequence | Mapping


class Item(Struct, frozen=True):
    """One item of a top-level list, and the bytes of the file that it owns: from `start` up to, not including, `end`.

    Block style: whole lines, from the one with its `-` (which is line `line`, `indent` columns in) to the last one
    with content, with its line end if it has one. Comments and blank lines after that belong to what comes next.
    Flow style (`flow`): the item's text up to and including the comma after it; `outer` is then None, except for the
    last item, where it is the range of the whole lines of the list (to be removed so that no `[]` is left).
    """

    node: Node
    start: int
    end: int
    line: int
    indent: int = 0
    flow: bool = False
    outer: tuple[int, int] | None = None


class Cut(Exception):
    """The piece that was given ends before the first item certainly does: give a longer one."""
