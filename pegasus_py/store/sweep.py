"""An entry that is consumed one combination at a time, and its text in the queue file. Pure: no file is touched.

What is left of a product of k dimensions is at most k entries, called pieces here: the innermost first, each with one
open dimension of which values have gone. In the file a value goes by being overwritten with blanks; only when an
inner list starts anew is text written, into the room that the consumed pieces before it left. So the price of a pop
depends neither on the number of combinations nor on the length of the lists, and the text never outgrows its first
form.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from pegasus_py.core.entries import Entry, dump_entry
from pegasus_py.core.model import Task
from pegasus_py.core.yamlwrite import inline, scalar


class Layout(Struct, frozen=True):
    """How text is written in this file: columns before a `-`, and the line end."""

    indent: int = 0
    newline: bytes = b"\n"


class Piece(Struct, frozen=True):
    """The combinations of `entry`, without the first `skip` values of its outermost dimension that has several.

    `at` and `size` say where its text is in the file (`at` is None: nowhere). `lists` is where, in that text, the
    values of each dimension begin; it is empty for a text that is not ours and so cannot be blanked. `blank` is how
    many bytes of the open list are blanked, or will be; `erase` is what is to be blanked still: offsets in the text,
    and the bytes to be found there.
    """

    entry: Entry
    layout: Layout = Layout()
    skip: int = 0
    at: int | None = None
    size: int = 0
    lists: tuple[int, ...] = ()
    blank: int = 0
    erase: tuple[tuple[int, bytes], ...] = ()
    changed: bool = False

    @property
    def dimensions(self) -> tuple[tuple[str, ...], ...]:
        return (self.entry.commands, *(values for _, values in self.entry.params))

    @property
    def task(self) -> Task:
        """The first combination that is left."""
        dimensions = self.dimensions
        chosen = [values[0] for values in dimensions]
        if self.skip:
            o = _open(dimensions)
            chosen[o] = dimensions[o][self.skip]
        params = tuple((name, value) for (name, _), value in zip(self.entry.params, chosen[1:], strict=True))
        return Task(chosen[0], params, self.entry.options, self.entry.place)

    def after_first(self) -> tuple[Piece, ...]:
        """What is left without the first combination, in order; only the last of them may be in the file."""
        dimensions = self.dimensions
        o = _open(dimensions)
        if o < 0:
            return ()
        value = dimensions[o][self.skip]
        fixed = [v[:1] for v in dimensions]
        fixed[o] = (value,)
        inner = tuple(
            Piece(_with(self.entry, (*fixed[:j], dimensions[j][1:], *dimensions[j + 1 :])), self.layout)
            for j in range(len(dimensions) - 1, o, -1)
            if len(dimensions[j]) > 1
        )
        return (*inner, self._without(o, value))

    def _without(self, o: int, value: str) -> Piece:
        """This piece when `value`, the next of dimension `o`, has gone; there is at least one more."""
        erase, blank = self.erase, self.blank
        if self.lists:
            gone = _in_list(o, value, self.layout)
            place = self.lists[o] + blank
            if erase and erase[-1][0] + len(erase[-1][1]) == place:
                erase = (*erase[:-1], (erase[-1][0], erase[-1][1] + gone))
            else:
                erase = (*erase, (place, gone))
            blank += len(gone)
        left = replace(self, skip=self.skip + 1, blank=blank, erase=erase, changed=True)
        if len(self.dimensions[o]) - left.skip > 1:
            return left
        # Only one value is left in this dimension, so the next one is open now.
        return replace(left, entry=left.rest(), skip=0, blank=0)

    def rest(self) -> Entry:
        """What is left as an entry of its own."""
        if not self.skip:
            return self.entry
        dimensions = list(self.dimensions)
        o = _open(dimensions)
        dimensions[o] = dimensions[o][self.skip :]
        return _with(self.entry, tuple(dimensions))

    @property
    def can_stay(self) -> bool:
        """Whether its text in the file is right, or is so when what it has to `erase` is blanked."""
        return self.at is not None and (bool(self.lists) or not self.changed)

    def placed(self, at: int) -> Piece:
        """The piece when its text is up to date and begins at `at`."""
        return replace(self, at=at, erase=(), changed=False)

    def written(self) -> tuple[bytes, Piece]:
        """Its text as whole lines, and the piece that knows it; where it is put must be told by `placed`."""
        entry, layout = self.rest(), self.layout
        text = dump_entry(entry, layout.indent).encode().replace(b"\n", layout.newline)
        return text, Piece(entry, layout, size=len(text), lists=_lists(entry, text, layout))


def _open(dimensions: tuple[tuple[str, ...], ...] | list[tuple[str, ...]]) -> int:
    for i, values in enumerate(dimensions):
        if len(values) > 1:
            return i
    return -1


def _with(entry: Entry, dimensions: tuple[tuple[str, ...], ...]) -> Entry:
    params = tuple((name, values) for (name, _), values in zip(entry.params, dimensions[1:], strict=True))
    return Entry(dimensions[0], params, entry.options, entry.place)


def _in_list(o: int, value: str, layout: Layout) -> bytes:
    """A value as `dump_entry` writes it in the list of dimension `o`, with what separates it from the next."""
    if o > 0:
        return inline(value, flow=True).encode() + b", "
    line = f"{' ' * layout.indent}    - {scalar(value, layout.indent + 6)}\n"
    return line.encode().replace(b"\n", layout.newline)


def _lists(entry: Entry, text: bytes, layout: Layout) -> tuple[int, ...]:
    """Where in `text` each dimension's values begin; empty if one is not where it is expected."""
    margin = b" " * layout.indent
    places = []
    for o, values in enumerate((entry.commands, *(v for _, v in entry.params))):
        if len(values) < 2:
            places.append(0)
            continue
        if o == 0:
            start = margin + b"- command:" + layout.newline
            found = 0
        else:
            start = layout.newline + margin + b"  " + inline(entry.params[o - 1][0]).encode() + b": ["
            found = text.find(start)
        if found < 0 or not text.startswith(start + _in_list(o, values[0], layout), found):
            return ()
        places.append(found + len(start))
    return tuple(places)
