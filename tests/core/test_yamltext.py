"""The YAML reader: everything is text, every fault has its place, and the first item is found in a piece."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pegasus_py.core import yamlsource, yamltext
from pegasus_py.core.yamltext import (
    Cut,
    Item,
    Mapping,
    Node,
    Scalar,
    Sequence,
    items,
    load,
    load_item,
    plain_item,
)
from pegasus_py.core.yamlwrite import inline, scalar
from pegasus_py.errors import BadInput


def plain(node: Node | None) -> object:
    """Lists, dicts and texts, for comparing."""
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    if isinstance(node, Mapping):
        return {key.text: plain(value) for key, value in node.items}
    return None


def fault(data: bytes | str) -> str:
    with pytest.raises(BadInput) as caught:
        list(items(data.encode() if isinstance(data, str) else data, "q.yaml"))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(params=["CBaseLoader", "BaseLoader"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of PyYAML's parsers: the C one may be missing where PyYAML was built from source."""
    if not hasattr(yaml, request.param):
        pytest.skip("PyYAML without libyaml")
    monkeypatch.setattr(yamltext, "_Loader", getattr(yaml, request.param))


def test_scalars_keep_their_source_text(parser: None) -> None:
    texts = ["0.10", "yes", "010", "1e-4", "1:30", "~", "null", "0x1F", "2024-01-01", ".inf", "<", "="]
    assert plain(load(f"[{', '.join(texts)}]".encode(), "q")) == texts
    assert plain(load(b"['0.10', \"a\\tb\"]", "q")) == ["0.10", "a\tb"]


def test_marks_count_from_one_and_offsets_are_bytes() -> None:
    node = load("# ü\n- é: 'x'\n  b: \N{GRINNING FACE}\n  c: d\n".encode(), "q")
    assert isinstance(node, Sequence)
    entry = node.items[0]
    assert isinstance(entry, Mapping)
    marks = [tuple(value.mark) for _, value in entry.items]
    assert marks == [(2, 6, 11), (3, 6, 20), (4, 6, 30)]


@pytest.mark.parametrize(
    "text", ["", "\n\n", "# only\n", "---\n", "\ufeff", "\ufeff# c\n", "---\n# c\n...\n"]
)
def test_nothing_is_an_empty_document(text: str, parser: None) -> None:
    assert load(text.encode(), "q") is None
    assert list(items(text.encode(), "q")) == []
    assert load_item(text.encode(), "q") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n- b: 1\n  b: 2\n", "q.yaml:3:3: the key 'b' is here a second time, first in line 2"),
        ("- !!int 3\n", "q.yaml:1:3: the tag "),
        ("- &a x\n- *a\n", "q.yaml:2:3: the alias *a has no anchor"),
        ("- &a [*a]\n", "q.yaml:1:7: the alias *a has no anchor"),
        ("- <<: {a: b}\n", "q.yaml:1:3: the merge key"),
        ("- {{ x }}\n", "needs quotes"),
        ('- "{{ x }}" y\n', "q.yaml:1:13: more text after the end of a value"),
        ("a: b\n", "q.yaml:1:1: a list is expected"),
        ("text\n", "q.yaml:1:1: a list is expected"),
        ("- a\nb\n", "q.yaml:2:1: neither a new entry nor part of the one above"),
        ("- a\n - b\n- c: d\n e: f\n", "q.yaml:4:2: "),
        ("- a\n---\n- b\n", "q.yaml:2:1: a second document"),
        ("[a]\n---\n- b\n", "q.yaml:2:1: a second document"),
        ("- 'a\n", "q.yaml:2:1: not YAML"),
        ("- a\n- \x1b[0m\n", "q.yaml:2:3: the character U+001B"),
        ("- a\x00\n", "q.yaml:1:4: the character U+0000"),
        ("- a\u2028b\n", "q.yaml:1:4: the character U+2028"),
        ("- a\rb\n", "q.yaml:1:4: the character U+000D"),
        ("&x\n- a\n", "q.yaml:1:1: an anchor"),
        ("- \t a\n", "q.yaml:1:3: not YAML"),
        ("[a, b\n", "q.yaml:"),
        ("- a\n\t\n- b\n", "use spaces instead of tabs"),
        ("- @x\n", "q.yaml:1:3: not YAML"),
        ("%FOO\n- a\n", "q.yaml:1:"),
    ],
)
def test_faults_are_one_line_with_a_place(text: str, says: str) -> None:
    assert says in fault(text)


def test_not_utf8_is_named_with_its_place() -> None:
    assert fault("- ok\n- é".encode() + b"\xff\n").startswith("q.yaml:2:4: byte 0xff is not UTF-8")


def test_what_stands_before_a_fault_is_given() -> None:
    for bad in (b"- \xff\n", b"- \x07\n", b"- {\n", b"oops\n"):
        data = b"- a\n- b\n- c\n" + bad
        fault(data)
        assert [plain(item.node) for item in everything(data)][:2] == ["a", "b"]


def test_a_bad_byte_after_the_first_item_does_not_spoil_it() -> None:
    item = load_item(b"- a\n- \xff\n", "q")
    assert item is not None and plain(item.node) == "a"


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "- " * 100_000,
        "? " * 100_000,
        "- " + "{" * 100_000,
        "[{" * 50_000,
        "- " + "[" * 51 + "]" * 51,
    ],
)
def test_deep_nesting_is_refused(text: str) -> None:
    fault(text)


def test_depth_within_the_bound_is_read() -> None:
    assert load(b"[" * 50 + b"]" * 50, "q") is not None


def test_an_alias_bomb_is_refused_and_honest_aliases_are_not() -> None:
    lines = ["- a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 40)]
    assert "aliases stand for too much" in fault("\n".join(lines))
    honest = load(b"- a: &x [1, 2]\n  b: *x\n- c: *x\n", "q")
    assert plain(honest) == [{"a": ["1", "2"], "b": ["1", "2"]}, {"c": ["1", "2"]}]


def test_sizes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamltext, "MAX_SCALAR", 100)
    monkeypatch.setattr(yamltext, "MAX_NODES", 50)
    monkeypatch.setattr(yamltext, "MAX_ITEM", 300)
    assert "a text of more than" in fault("- a\n- " + "x" * 101)
    assert "more than 50 values" in fault("- [" + "a, " * 60 + "]")
    assert "an entry of more than" in fault("- [" + "a" * 90 + ", a" * 10 + " " * 300 + "]")
    assert len(list(items(b"- [a, b]\n" * 100, "q"))) == 100
    monkeypatch.setattr(yamlsource, "MAX_FILE", 1000)
    assert "larger than" in fault("- a\n" * 300)


def test_half_a_surrogate_pair_is_refused(parser: None) -> None:
    fault('- "\\ud800"\n')


# --- items and their lines


DOCUMENTS = [
    "- a\n- b\n- c",
    "- a # c\n# d\n\n- b: 1\n  c: |\n    x\n\n\n# e\n- - é\n  - 'x\n\n  y'\n",
    "- b: \"multi\n\n  line\"\n- 'x\ny'\n# c\n- |\n  a\n\n\n  b\n\n- c:\n  - d\n  - e: [1,\n2]\n"
    "- >-\n\n  x\n   y\n\n- - - q\n- f\n...\n",
    "# c\r\n---\r\n  - a\r\n    b\r\n  - c: |+\r\n      d\r\n\r\n  - e\r\n",
    "[a, b: c,\n# about\n {d: e,\n f: [g]}, 'h\n i', \"j\"\n] # end\n",
    "\ufeff- é: ü\n  \u20ac: '\U0001f600'\n- x\n",
    "-\n-\n- k:\n- l:\n  - m\n-\n  # c\n  n\n\n# last\n",
    "- a\n  # c\n- b: # c\n    # d\n    e\n    # f\n",
    "- |2\n    x\n  y\n- {a: &a b, c: *a}\n- ? a\n  :\n- ? [x]\n",
    "- ? a\n- |+\n\n\n- |-\n  x\n   \n\n- x",
    "\t# c\n- a\n  \t# c\n \t\n- b\n",
    "[]\n# c\n",
    "--- [a]\n",
]


def everything(data: bytes) -> list[Item]:
    """The items up to the first fault."""
    found = []
    try:
        for item in items(data, "q"):
            found.append(item)
    except BadInput:
        pass
    return found


def check_pieces(data: bytes) -> None:
    """From each item on, every piece of the rest gives that item as the whole document does, or asks for more."""
    whole = everything(data)
    starts = [(0, 1)]
    if whole and not whole[0].flow:
        starts += [(item.end, item.line + data.count(b"\n", item.start, item.end)) for item in whole]
    for (offset, line), expected in zip(starts, [*whole, None], strict=False):
        cuts = 0
        for end in range(offset, len(data) + 1):
            try:
                item = load_item(data[offset:end], "q", offset=offset, line=line, final=False)
            except Cut:
                cuts += 1
                continue
            except BadInput:
                assert expected is None
                continue
            if expected is None and item is not None:
                # The whole has a fault further on, or in the blank lines before, which a piece need not see.
                fault(data)
                continue
            assert item == expected
            assert item is None or item.node.mark == expected.node.mark  # type: ignore[union-attr]
        assert cuts
        if expected is not None:
            assert load_item(data[offset:], "q", offset=offset, line=line) == expected


@pytest.mark.parametrize("text", DOCUMENTS)
def test_the_first_item_of_a_piece_is_that_of_the_whole(text: str, parser: None) -> None:
    check_pieces(text.encode())


@pytest.mark.parametrize("text", DOCUMENTS)
def test_items_are_the_document(text: str, parser: None) -> None:
    try:
        whole = plain(load(text.encode(), "q"))
    except BadInput:
        with pytest.raises(BadInput):
            list(items(text.encode(), "q"))
        return
    assert [plain(item.node) for item in items(text.encode(), "q")] == (whole or [])


@pytest.mark.parametrize("text", DOCUMENTS)
def test_without_its_first_item_the_document_is_the_others(text: str) -> None:
    data = text.encode()
    heads = everything(data)
    for head, expected in zip(heads, [heads[i:] for i in range(1, len(heads))], strict=False):
        first = load_item(data, "q")
        assert first is not None and first.node == head.node
        data = data[: first.start] + data[first.end :]
        assert [item.node for item in everything(data)] == [item.node for item in expected]


def test_an_item_owns_its_lines_and_what_follows_belongs_to_the_next() -> None:
    data = b"# top\n- a: 1 # x\n  b: 2 # y\n\n# about c\n- c\n- |\n  d\n\n\n- |+\n  e\n\n- f"
    owned = [data[item.start : item.end] for item in items(data, "q")]
    assert owned == [b"- a: 1 # x\n  b: 2 # y\n", b"- c\n", b"- |\n  d\n", b"- |+\n  e\n\n", b"- f"]


def test_flow_items_own_their_comma_and_the_last_one_knows_the_list() -> None:
    data = b"# top\n[a, # one\n  # about b\n  b ,c]\n# end\n"
    found = list(items(data, "q"))
    assert [data[item.start : item.end] for item in found] == [b"a, ", b"b ,", b"c"]
    assert [item.outer for item in found] == [None, None, (6, 36)]
    assert data[6:36] == b"[a, # one\n  # about b\n  b ,c]\n"


def test_a_fault_in_the_first_item_is_told_without_the_whole_file() -> None:
    with pytest.raises(BadInput):
        load_item(b"- @a\n- b\n" + b"- c\n" * 10, "q", final=False)


def test_places_count_from_the_start_of_the_file() -> None:
    with pytest.raises(BadInput, match=r"^q:12:3: "):
        load_item(b"# c\n- @a\n- b\n", "q", offset=500, line=11)


# --- properties


_words = st.text(st.sampled_from("ab:#-'\"[]{},&*!|>?%@`{} \t\n0é\U0001f600"), max_size=12)
_texts = st.one_of(st.text(max_size=30), _words)


@given(_texts)
@settings(max_examples=400, deadline=None)
def test_every_text_reads_back_as_written(text: str) -> None:
    block = f"- {scalar(text, 2)}\n- x: {scalar(text, 4)}\n- b\n"
    flow = f"[{inline(text, flow=True)}, {{x: {inline(text, flow=True)}}}]"
    assert "\n" not in flow
    for data in (block, block.replace("\n", "\r\n") if "\r" not in text else block):
        assert plain(load(data.encode(), "q")) == [text, {"x": text}, "b"]
    assert plain(load(flow.encode(), "q")) == [text, {"x": text}]


def test_plain_texts_stay_plain_and_scripts_stay_readable() -> None:
    assert inline("python train.py --lr 0.10") == "python train.py --lr 0.10"
    assert inline("a, b") == "a, b" and inline("a, b", flow=True) == "'a, b'"
    assert inline("{{ x }}") == "'{{ x }}'"
    assert scalar("a\n  b\n", 2) == "|\n  a\n    b"


@given(st.lists(_texts, min_size=1, max_size=4), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "  "]))
@settings(max_examples=60, deadline=None)
def test_pieces_of_written_lists(texts: list[str], newline: str, margin: str) -> None:
    lines = [f"{margin}- {scalar(text, len(margin) + 2)}\n# c\n" for text in texts]
    check_pieces("".join(lines).replace("\n", newline).encode())


@given(st.text(st.sampled_from("ab-:#'\"[],{} \n\t|>&*?\r"), max_size=40))
@settings(max_examples=400, deadline=None)
def test_any_text_is_read_or_refused_and_pieces_agree(text: str) -> None:
    check_pieces(("- a\n" + text).encode())


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    everything(data)


_lines = st.text(st.sampled_from("ab- :#'\"[.~$/{}!\t\né\\<"), max_size=14)


@given(
    _lines,
    st.sampled_from(["\n", "\r\n", ""]),
    st.sampled_from(["", "- b\n", "-b\n", " c\n", "# d\n", "-\n", "b\n"]),
    st.booleans(),
)
@settings(max_examples=800, deadline=None)
def test_the_short_cut_agrees_with_the_parser(text: str, newline: str, after: str, final: bool) -> None:
    data = f"- {text}{newline}{after}".encode()
    quick = plain_item(data, 0, final=final)
    if quick is None:
        return
    item = load_item(data, "q", final=final)
    assert item is not None and isinstance(item.node, Scalar)
    assert (item.node.text, item.end, item.node.mark.column) == quick


def test_the_short_cut_is_taken() -> None:
    data = b"- echo a:b 'c' {x} \"y\" $z # \n- . ./env; python train.py --bs 8\r\n- last"
    assert plain_item(data, 0) is None
    assert plain_item(data, 29) == (". ./env; python train.py --bs 8", 64, 3)
    assert plain_item(data, 64) is None
    assert plain_item(data, 64, final=True) == ("last", 70, 3)
