"""Bytes in any pieces become complete lines, in bounded memory."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pegasus_py.show import lines as lines_module
from pegasus_py.show.lines import CUT, LIMIT, Lines

ONE = [1] * 9


def shown(*chunks: bytes) -> bytes:
    lines = Lines()
    return b"".join(map(lines.feed, chunks)) + lines.end()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", b""),
        (b"a\nb\n", b"a\nb\n"),
        (b"a\nb", b"a\nb\n"),
        (b"\n\n", b"\n\n"),
        (b"dos\r\nlines\r\n", b"dos\nlines\n"),
        (b" 10%\r 50%\r100%\n", b"100%\n"),
        (b"\r 10%\r 50%\r100%\r\ndone\n", b"100%\ndone\n"),
        (b"\r 10%\r 50%", b" 50%\n"),
        (b" 10%\r 50%\r", b" 50%\n"),
        (b"\r 10%|#   |\r           \r", b""),
        (b"\r 10%|#   |\r           \rdone\n", b"done\n"),
        (b"a\r\r\nb\r\r\n", b"a\nb\n"),
    ],
)
def test_what_is_shown(data: bytes, expected: bytes) -> None:
    assert shown(data) == expected
    assert shown(*(data[at : at + 1] for at in range(len(data)))) == expected


@example([b"bcdefgh", b"xy", b"\r", b"a\n"], [9], ONE)
@example([b"bcdefgh", b"x", b"\r", b"a\n"], [8], ONE)
@example([b"bcdefgh", b"xy", b"\n"], [9], ONE)
@example([b"aaaaa", b"\r", b" "], [6], ONE)
@given(
    st.lists(
        st.sampled_from([b"a", b"aaaaa", b"\n", b"\r", b"\xc3\xa9", b"bcdefgh", b"\xff", b"\r\n", b" "]),
        max_size=40,
    ),
    st.lists(st.integers(0, 80), max_size=8),
    st.lists(st.integers(1, 3), min_size=9, max_size=9),
)
def test_how_the_bytes_are_divided_makes_no_difference(
    parts: list[bytes], cuts: list[int], together: list[int]
) -> None:
    data = b"".join(parts)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    chunks = [data[a:b] for a, b in pairwise(edges)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "LIMIT", 8)
        lines = Lines()
        whole = shown(data)
        pieces: list[bytes] = []
        while chunks:
            # Some of them together, as they come in one read.
            count = together[len(pieces)]
            pieces.append(lines.feed(*chunks[:count]))
            del chunks[:count]
            assert len(lines.tail) <= 9
        assert b"".join(pieces) + lines.end() == whole


def test_a_line_without_end_is_shown_in_pieces_and_never_kept() -> None:
    lines = Lines()
    total, block = 64 * 1024 * 1024, b"x" * (1024 * 1024)
    size = pieces = 0
    for _ in range(total // len(block)):
        done = lines.feed(block)
        assert len(lines.tail) <= LIMIT
        assert all(len(line) <= LIMIT + len(CUT) for line in done.split(b"\n"))
        size += done.count(b"x")
        pieces += done.count(CUT)
    assert size + lines.end().count(b"x") == total
    assert pieces == total // LIMIT - 1


def test_a_long_line_in_one_block_is_cut_between_characters() -> None:
    text = "x" + "é" * LIMIT
    first, *rest = shown(text.encode() + b"\nshort\n").decode().split(CUT.decode())
    assert len(first.encode()) <= LIMIT
    assert "".join([first, *rest]) == text + "\nshort\n"


@pytest.mark.parametrize("over", [0, 1])
def test_the_limit_is_exact(over: int) -> None:
    expected = b"x" * LIMIT + (CUT + b"x\n" if over else b"\n")
    assert shown(b"x" * (LIMIT + over) + b"\n") == expected
    assert shown(b"x" * LIMIT, b"x" * over + b"\n") == expected


def test_a_line_after_a_bar_is_no_bar() -> None:
    lines = Lines()
    seen = []
    for data in (b"\r 10%", b"\r 20%\n  "):
        lines.feed(data)
        seen.append(lines.bar)
    assert seen == [True, False]
    assert lines.end() == b"  \n"


def test_an_endless_bar_keeps_only_its_last_state() -> None:
    lines = Lines()
    for percent in range(100_000):
        assert lines.feed(b"\r%d it" % percent) == b""
    assert bytes(lines.tail) == b"99999 it"
    assert lines.bar
