"""YAML in which every scalar is text, read into frozen nodes that know where they stand.

There are no types, no tags and no merge keys: `0.10`, `yes` and `010` are the texts that were written. Every fault is
one `BadInput` with line and column. The one module that meets PyYAML; it takes its event stream (from the C parser
where there is one), which needs no recursion, so that hostile input is refused before it costs anything.

Three ways in: `load` for a whole document, `items` for a list with the bytes that each item owns, and `load_item` for
the first item of a list without reading the rest. `plain_item` is a short cut for the commonest item.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pegasus_py.lean import wide_patterns_later

with wide_patterns_later():
    import yaml

from pegasus_py.core.nodes import Cut, Item, Mapping, Mark, Node, Scalar, Sequence
from pegasus_py.core.yamlsource import MAX_FILE, Source
from pegasus_py.errors import BadInput

__all__ = [
    "MAX_FILE",
    "MAX_ITEM",
    "Cut",
    "Item",
    "Mapping",
    "Mark",
    "Node",
    "Scalar",
    "Sequence",
    "items",
    "load",
    "load_item",
    "plain_item",
]

MAX_ITEM = 16 * 2**20
"""Bytes of one item of a list."""
MAX_SCALAR = 4 * 2**20
"""Characters of one text."""
MAX_NODES = 1_000_000
"""Nodes of one document, or of one item of a list."""
MAX_DEPTH = 50
_TOO_DEEP = f"nested more than {MAX_DEPTH} deep; write it flatter"
MAX_ALIASED = 2**20
"""What all aliases of an item stand for, counted as one for each node and one for each character."""


def load(data: bytes, file: str) -> Node | None:
    """The one document in `data`; None if there is nothing but comments. `file` is for the error messages.

    Raises BadInput.
    """
    reader = _Reader(data, file)
    if reader.fault is not None:
        raise reader.fault
    event = reader.open()
    if event is None:
        return None
    node = reader.node(event, 1)
    reader.close()
    return node


def items(data: bytes, file: str, *, offset: int = 0, line: int = 1) -> Iterator[Item]:
    """All items of the list in `data`, one after the other, each with the bytes it owns.

    `data` is the end of the file, from the start of a line on: byte `offset` of it, line `line` (from 1).

    An alias reaches anchors of its own item only, for the items before it may be gone when it is read.
    Raises BadInput when it comes to what cannot be understood; what stands before that has been given by then.
    """
    return _Reader(data, file, offset, line).items()


def load_item(data: bytes, file: str, *, offset: int = 0, line: int = 1, final: bool = True) -> Item | None:
    """The first item of the list of which `data` is a piece, or None if there is none.

    `data` begins at the start of a line: byte `offset` of the file, line `line` (from 1). It may begin with comments,
    blank lines and `---`, and it may end anywhere unless `final`, which says that it reaches the end of the file.
    What comes after the first item is not looked at, except that it must be another item or the end.

    Raises Cut if `data` does not show where the item ends (never when `final`), and BadInput.
    """
    return next(_Reader(data, file, offset, line, final).items(), None)


_PLAIN_LINE = re.compile(rb"- +([A-Za-z0-9_./$~(+^\\][ -~]*)\r?(?:\n(?=(- ?)?)|\Z)")


def plain_item(data: bytes, pos: int = 0, *, final: bool = False) -> tuple[str, int, int] | None:
    """Text, end (exclusive) and the text's column (from 1) of the item at `pos`, if it is surely `- text` on one line.

    None: ask `load_item`.

    `pos` is the start of a line. The item must be followed by another that begins at the margin, or end the file,
    where `final` says that `data` does. The answer is what `load_item` gives, at a hundredth of its price.
    """
    found = _PLAIN_LINE.match(data, pos)
    if found is None:
        return None
    end = found.end()
    if found[2] != b"- " and not (final and end == len(data)):
        return None
    text = found[1]
    if b": " in text or b" #" in text or text[-1:] in b" :" or len(text) > MAX_SCALAR:
        return None
    return text.decode("ascii"), end, 1 + found.start(1) - pos


_WORD = re.compile(r"[^ \t\r\n]{1,4}")
_COMMA = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*+,[ \t]*")
_OPENING_BRACES = re.compile(r"(?:^|[-:,\[] )\s*\{[{%]")
_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class _Reader(Source):
    """One pass over the events of one piece of text. Positions inside are indices of characters in `text`."""

    def __init__(self, data: bytes, file: str, offset: int = 0, line: int = 1, final: bool = True) -> None:
        super().__init__(data, file, offset, line, final)
        self.end = 0
        self._forget()
        self.loader = _Loader(self.text)

    # --- events

    def event(self) -> Any:
        try:
            return self.loader.get_event()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            index = min(getattr(mark, "index", 0), len(self.text))
            if index == len(self.text):
                self.need_more()
            raise BadInput(self.place(self.text, index), self._syntax(error, index)) from None

    def _syntax(self, error: yaml.MarkedYAMLError, index: int) -> str:
        if "nesting depth" in (error.problem or ""):
            # The parser's own bound, which it meets before it has given us an event.
            return _TOO_DEEP
        what = f"not YAML: {error.problem or 'unexpected text'}"
        context: Any = error.context_mark
        if error.context and context:
            what += f" ({error.context} of line {self.first_line + context.line})"
        if self.text[index : index + 1] == "\t":
            return what + "; use spaces instead of tabs"
        starts = {index, min(getattr(context, "index", index), index)}
        lines = [self.text[self.line_start(i) : self.line_end(i)] for i in starts]
        if any(_OPENING_BRACES.search(line) for line in lines):
            return what + '; put quotes around a text that begins with "{{"'
        return what + "; a text with special characters needs quotes or a | block"

    def open(self) -> Any:
        """The event that begins the document's node, or None if there is no document or it is empty."""
        self.event()
        event = self.event()
        if isinstance(event, yaml.StreamEndEvent):
            self.need_more()
            return None
        event = self.event()
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and not (event.value or event.anchor):
            self.need_more()
            self.close()
            return None
        return event

    def close(self) -> None:
        self.event()
        event = self.event()
        if not isinstance(event, yaml.StreamEndEvent):
            raise self.bad(event.start_mark, "a second document begins here; remove this line")

    # --- nodes

    def _forget(self) -> None:
        self.anchors: dict[str, tuple[Node, int]] = {}
        self.count = 0
        self.weight = 0
        self.aliased = 0

    def node(self, event: Any, depth: int) -> Node:
        """The node that begins with `event`. Afterwards `end` is where its content ends."""
        mark = self.mark(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, mark)
        self.count += 1
        if self.count > MAX_NODES:
            raise self.bad(mark, f"more than {MAX_NODES:,} values in one piece; split it")
        if event.tag is not None:
            raise self.bad(mark, f"the tag {event.tag!r} is not supported, every value is text; remove it")
        before = self.weight
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, mark)
        else:
            if depth > MAX_DEPTH:
                raise self.bad(mark, _TOO_DEEP)
            self.weight += 1
            inner = self._sequence if isinstance(event, yaml.SequenceStartEvent) else self._mapping
            node = inner(mark, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, self.weight - before)
        return node

    def _alias(self, event: Any, mark: Mark) -> Node:
        if event.anchor not in self.anchors:
            raise self.bad(
                mark, f"the alias *{event.anchor} has no anchor &{event.anchor} before it in its entry"
            )
        node, weight = self.anchors[event.anchor]
        self.weight += weight
        self.aliased += weight
        if self.aliased > MAX_ALIASED:
            raise self.bad(mark, "the aliases stand for too much text; write it out or use a parameter")
        self.end = event.end_mark.index
        return node

    def _scalar(self, event: Any, mark: Mark) -> Scalar:
        text: str = event.value
        self.weight += 1 + len(text)
        if len(text) > MAX_SCALAR:
            raise self.bad(mark, f"a text of more than {MAX_SCALAR >> 20} MiB; put it in a file on the nodes")
        if event.style == '"' and not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            raise self.bad(mark, "half of a surrogate pair is no character; write \\U and eight digits")
        end = event.end_mark.index
        if event.style in ("|", ">"):
            # Blank lines after a block are content only when it keeps them ("|+").
            begin = event.start_mark.index
            kept = text.endswith("\n\n") and self.text[end - 1] == "\n"
            end = end - 1 if kept else begin + len(self.text[begin:end].rstrip())
        # An empty text has no width; it counts where a ":" or "-" stands for it, not where the next thing begins.
        if event.end_mark.index > event.start_mark.index or self.text[end - 1 : end] in (":", "-", "?"):
            self.end = max(self.end, end)
        return Scalar(text, mark, event.style in (None, ""))

    def _sequence(self, mark: Mark, depth: int) -> Sequence:
        nodes = []
        while not isinstance(event := self.event(), yaml.SequenceEndEvent):
            nodes.append(self.node(event, depth + 1))
        self._ended(event)
        return Sequence(tuple(nodes), mark)

    def _mapping(self, mark: Mark, depth: int) -> Mapping:
        pairs = []
        lines: dict[str, int] = {}
        while not isinstance(event := self.event(), yaml.MappingEndEvent):
            at = self.mark(event.start_mark)
            key = self.node(event, depth + 1)
            if not isinstance(key, Scalar):
                raise self.bad(at, 'a key must be a text; a value that begins with "{{" or "[" needs quotes')
            if key.plain and key.text == "<<":
                raise self.bad(at, "the merge key << is not supported; write the keys out")
            if key.text in lines:
                raise self.bad(
                    at,
                    f"the key {key.text!r} is here a second time, first in line {lines[key.text]}; remove one",
                )
            lines[key.text] = at.line
            pairs.append((key, self.node(self.event(), depth + 1)))
        self._ended(event)
        return Mapping(tuple(pairs), mark)

    def _ended(self, event: Any) -> None:
        # The end of a block collection has no width and stands where the next thing begins.
        if event.end_mark.index > event.start_mark.index:
            self.end = event.end_mark.index

    # --- items

    def items(self) -> Iterator[Item]:
        begin = self.next_content(0)
        if self.text.startswith("...", begin) and begin == self.line_start(begin):
            # Only the end of the document is left in this piece.
            self._following(begin + 3, None)
            return
        event = self.open()
        if event is None:
            return
        if not isinstance(event, yaml.SequenceStartEvent):
            raise self.bad(event.start_mark, 'a list is expected here; begin each entry with "- "')
        if event.anchor is not None or event.tag is not None:
            raise self.bad(event.start_mark, "an anchor or a tag on the whole list is of no use; remove it")
        yield from self._flow_items(event) if event.flow_style else self._block_items(event)
        self.close()

    def _block_items(self, opening: Any) -> Iterator[Item]:
        dash = opening.start_mark.index
        while not isinstance(event := self.event(), yaml.SequenceEndEvent):
            self._forget()
            self.end = dash + 1
            node = self.node(event, 2)
            start, end = self.line_start(dash), self.line_end(self.end)
            following = self._following(self.end, dash - start)
            line = self.mark(event.start_mark).line - self.text.count("\n", dash, event.start_mark.index)
            yield self._item(node, start, end, line, dash - start)
            dash = following

    def _following(self, end: int, indent: int | None) -> int:
        """Where the next content after `end` begins, which must be an item in column `indent` or the end."""
        at = self.next_content(end)
        if at >= len(self.text):
            self.need_more()
            return at
        column = at - self.line_start(at)
        word = _WORD.match(self.text, at)
        # A word at the very end may be longer than it looks, if the text ends at a fault.
        known = word[0] if word and (self.final or word.end() < len(self.text)) else ""
        if not known:
            self.need_more()
        if (column == indent and known == "-") or (column == 0 and known == "..."):
            return at
        if column == 0 and known == "---":
            what = "a second document begins here; remove this line"
        elif "\n" in self.text[end:at]:
            what = 'neither a new entry nor part of the one above; begin each "- " in one column, indent the rest'
        else:
            what = "more text after the end of a value; put the whole in quotes, or use a | block"
        raise BadInput(self.place(self.text, at), what)

    def _flow_items(self, opening: Any) -> Iterator[Item]:
        event = self.event()
        while not isinstance(event, yaml.SequenceEndEvent):
            self._forget()
            start, line = event.start_mark.index, self.mark(event.start_mark).line
            node = self.node(event, 2)
            comma = _COMMA.match(self.text, self.end)
            end = comma.end() if comma else self.end
            event = self.event()
            outer = None
            if isinstance(event, yaml.SequenceEndEvent):
                self._ended(event)
                self._following(self.end, None)
                first = self.bytes_to(self.line_start(opening.start_mark.index))
                outer = (first, self.bytes_to(self.line_end(self.end)))
            yield self._item(node, start, end, line, 0, True, outer)
        self._ended(event)
        self._following(self.end, None)

    def _item(self, node: Node, start: int, end: int, *rest: Any) -> Item:
        first, last = self.bytes_to(start), self.bytes_to(end)
        if last - first > MAX_ITEM:
            raise self.bad(node.mark, f"an entry of more than {MAX_ITEM >> 20} MiB; split it")
        return Item(node, first, last, *rest)
