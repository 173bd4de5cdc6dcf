"""Only text and colours leave."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegasus_py.show.terminal import cells, clean, clean_text, fit, plain, wrap, wrap_words

SGR = re.compile(r"\x1b\[[0-9;:]*m")
FRAGMENTS = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.text(max_size=8).map(lambda text: text.encode("utf-8", "replace")),
        st.sampled_from(
            [
                *(
                    b"\x1b",
                    b"\x1b[",
                    b"\x1b[31m",
                    b"\x1b[0m",
                    b"\x1b[m",
                    b"\x1b[2J",
                    b"\x1b]0;t\x07",
                    b"\x1b]",
                ),
                *(b"\xc2\x9b2J", b"\x1b[?25l", b"\r", b"\n", b"\xff", b"\x1b(B", b"\x9b31m", b"\x1bc"),
                *(b"\xe2\x80\xae", b"m", b"31m"),
            ]
        ),
    ),
    max_size=12,
).map(b"".join)


@pytest.mark.parametrize(
    ("foreign", "shown"),
    [
        (b"plain text\n", "plain text\n"),
        (b"tab\there\n", "tab\there\n"),
        (b"bell \x07 nul \x00 del \x7f\n", "bell ^G nul ^@ del ^?\n"),
        (b"\x1b[2J\x1b[Hclear\n", "clear\n"),
        (b"\x1b]0;owned\x07title\n", "title\n"),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\n", "link\n"),
        (b"\x1b]0;no end\n", "^[]0;no end\n"),
        (b"\x1b]0;" + b"t" * 5000 + b"\x07\n", "^[]0;" + "t" * 5000 + "^G\n"),
        (b"\x1bcreset\n", "^[creset\n"),
        (b"\x1b\x1b[2Jx\n", "^[x\n"),
        (b"c1 \xc2\x9b2J\n", "c1 \\x9b2J\n"),
        (b"not utf-8 \xff\xfe\n", "not utf-8 ��\n"),
        ("größe 漢字\n".encode(), "größe 漢字\n"),
        ("evil \u202e txt\n".encode(), "evil \\u202e txt\n"),
        (b"\x1b[31mred\x1b[0m\x1b(B\n", "red\n"),
    ],
)
def test_without_colour_nothing_but_text_is_left(foreign: bytes, shown: str) -> None:
    assert clean(foreign, colour=False).decode() == shown


@pytest.mark.parametrize(
    ("foreign", "shown"),
    [
        (b"\x1b[31mred\nnext\n", "\x1b[31mred\x1b[0m\nnext\n"),
        (b"\x1b[38:2::1:2:3mx\x1b[Ky\n", "\x1b[38:2::1:2:3mxy\x1b[0m\n"),
        (b"\x1b[?1049h\x1b[31\n", "^[[31\n"),
        (b"\x1b[" + b"1;" * 100 + b"m\n", "^[[" + "1;" * 100 + "m\n"),
    ],
)
def test_with_colour_sgr_is_left_and_reset_at_the_line_end(foreign: bytes, shown: str) -> None:
    assert clean(foreign, colour=True).decode() == shown


@given(FRAGMENTS, st.booleans())
def test_any_bytes_come_out_without_controls_but_sgr(data: bytes, colour: bool) -> None:
    shown = clean(data + b"\n", colour).decode()
    bare = SGR.sub("", shown) if colour else shown
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", bare)
    assert shown.count("\n") == data.count(b"\n") + 1
    for line in shown.split("\n"):
        assert "\x1b" not in line or line.endswith(("\x1b[0m", "\x1b[m"))


@given(st.text())
def test_names_and_reasons_become_one_clean_line(text: str) -> None:
    shown = plain(text)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", shown)
    assert plain(shown) == shown


def test_a_surrogate_from_a_file_name_can_be_printed() -> None:
    assert plain("log-\udcff.txt").encode() == b"log-?.txt"


@pytest.mark.parametrize(
    "evil", [b"\x1b", b"\x1b[", b"\x1b]", b"\x1b]aaaa", b"\x1b[1", b"\x1b[ ", b"\x00", b"\x1b[1;"]
)
def test_hostile_repetition_is_shown_in_linear_time(evil: bytes) -> None:
    """With quadratic work this test would not end."""
    block = evil * (1_000_000 // len(evil)) + b"\n"
    shown = clean(block, colour=True)
    assert b"\x1b" not in shown
    assert shown.endswith(b"\n")


@pytest.mark.parametrize(
    ("text", "columns"),
    [("abc", 3), ("漢字", 4), ("e\u0301", 1), ("\x1b[31mab\x1b[0m", 2), ("", 0), ("👍", 2)],
)
def test_cells(text: str, columns: int) -> None:
    assert cells(text) == columns


def test_fit_cuts_by_columns() -> None:
    assert fit("abcdef", 6) == "abcdef"
    assert fit("abcdefg", 6) == "abcde…"
    assert fit("漢字漢字", 6) == "漢字…"
    assert fit("abc", 0) == ""


def test_wrap_carries_the_colour_to_the_next_piece() -> None:
    assert wrap("\x1b[31mabcdef\x1b[0m", 4) == ["\x1b[31mabcd\x1b[0m", "\x1b[31mef\x1b[0m"]


def test_words_stay_whole_where_they_can() -> None:
    assert wrap_words("stopping; nothing new starts", 12) == ["stopping;", "nothing new", "starts"]
    assert wrap_words("see /a/long/path now", 6) == ["see", "/a/lon", "g/path", "now"]


@given(st.text("ab 漢", max_size=60), st.integers(2, 30))
def test_words_fit_and_lose_nothing(text: str, width: int) -> None:
    lines = wrap_words(text, width)
    assert all(cells(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@given(FRAGMENTS, st.integers(2, 30))
def test_wrapped_pieces_fit_and_lose_nothing(data: bytes, width: int) -> None:
    line = clean_text(data.replace(b"\n", b"").decode("utf-8", "replace"), colour=True).expandtabs()
    pieces = wrap(line, width)
    assert all(cells(piece) <= width for piece in pieces)
    assert SGR.sub("", "".join(pieces)) == SGR.sub("", line)
