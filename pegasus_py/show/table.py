"""A table of text for a terminal or a pipe. Not `rich`'s: ten thousand rows must print at once, from any text."""

from __future__ import annotations

from collections.abc import Sequence

from pegasus_py.show.terminal import RESET, cells, fit, plain

GAP = 2


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int | None,
    colour: bool = False,
    flexible: Sequence[int] = (),
) -> list[str]:
    """The lines of a table, the headers first; cells are foreign text.

    With a `width`, the columns numbered in `flexible` are cut until the lines fit, the widest first; the others
    never are. Columns that are empty in all rows are left out.
    """
    used = [at for at in range(len(headers)) if any(row[at] for row in rows)]
    texts = [[plain(row[at]) for at in used] for row in ([*headers], *rows)]
    sizes = [max(map(cells, column)) for column in zip(*texts, strict=True)]
    if width is not None:
        _shrink(sizes, [at for at, column in enumerate(used) if column in flexible], width)
    lines = [_line(row, sizes) for row in texts]
    if colour:
        lines[0] = f"\x1b[1m{lines[0]}{RESET}"
    return lines


def _shrink(sizes: list[int], flexible: list[int], width: int) -> None:
    spare = sum(sizes) + GAP * (len(sizes) - 1) - width
    while spare > 0 and flexible:
        widest = max(flexible, key=sizes.__getitem__)
        if sizes[widest] <= 8:
            return
        sizes[widest] -= 1
        spare -= 1


def _line(row: Sequence[str], sizes: Sequence[int]) -> str:
    shown = [fit(text, size) for text, size in zip(row, sizes, strict=True)]
    padded = [text + " " * (size - cells(text)) for text, size in zip(shown, sizes, strict=True)]
    return (" " * GAP).join(padded).rstrip()
