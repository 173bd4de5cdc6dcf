"""Any queue, popped in any way, killed anywhere: every task comes once, and no other byte changes."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from pegasus_py.core.entries import Entry, parse_entry
from pegasus_py.core.model import Task
from pegasus_py.core.yamltext import items, plain_item
from pegasus_py.errors import BadInput
from pegasus_py.store import disk
from pegasus_py.store.poprecord import decode
from pegasus_py.store.queuefile import QueueFile
from tests.store.queue_harness import Engine, Faults, Killed, leftovers, tasks_in, without_filler

WORDS = st.sampled_from(
    [
        "true",
        "echo hi",
        "echo {{ x }} done",
        "a:b",
        "0.10",
        "yes",
        "x # no",
        "über",
        "it's",
        "- -",
        "a, b",
        "[1]",
    ]
)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@st.composite
def entries(draw: st.DrawFn) -> tuple[str, int]:
    """The text of an entry in one of many styles, and how many tasks it stands for."""
    word = draw(WORDS)
    kind = draw(st.integers(0, 7))
    if kind <= 1:
        return f"- run {draw(st.integers(0, 3))}\n", 1
    if kind == 2:
        return f"- {_quoted(word)}  # why\n", 1
    if kind == 3:
        return "- |\n  first\n\n  # no comment\n  last\n", 1
    if kind == 4:
        return f"- {{command: {_quoted(word)}, x: [1]}}\n", 1
    lists = draw(st.lists(st.lists(WORDS, min_size=1, max_size=3), min_size=1, max_size=3))
    count = 1
    text = f"- command: {_quoted(word)}\n"
    if kind == 5:
        text, count = f"- command:\n    - {_quoted(word)}\n    - |\n      two\n      lines\n", 2
    for i, values in enumerate(lists):
        count *= len(values)
        if kind == 6:
            text += f"  p{i}:\n" + "".join(f"    # one\n    - {_quoted(v)}\n" for v in values)
        else:
            text += f"  p{i}: [{', '.join(map(_quoted, values))}]\n"
    return text, count


COMMENTS = st.sampled_from(["", "", "", "# a comment\n", "\n", "\n# one\n\n#two\n", "#~ mine\n", "# ü\n"])


@st.composite
def queues(draw: st.DrawFn) -> list[tuple[bytes, int]]:
    """A queue file as blocks of bytes with the number of their tasks; comments have none."""
    blocks: list[tuple[str, int]] = [(draw(st.sampled_from(["", "", "---\n", "# head\n"])), 0)]
    for entry in draw(st.lists(entries(), max_size=5)):
        blocks += [entry, (draw(COMMENTS), 0)]
    indent = draw(st.sampled_from(["", "", "  "]))
    newline = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    made = []
    for text, count in blocks:
        if indent and count:
            text = "".join(indent + line for line in text.splitlines(keepends=True))
        made.append((text.replace("\n", newline).encode(), count))
    if draw(st.booleans()) and made[-1][0] == b"":
        made.pop()
        if made:
            made[-1] = (made[-1][0].removesuffix(newline.encode()), made[-1][1])
    if draw(st.sampled_from([False, False, False, True])):
        made.insert(0, (b"\xef\xbb\xbf", 0))
    return made


def _remaining(blocks: list[tuple[bytes, int]], popped: int) -> tuple[bytes, bytes, bool]:
    """What must stand before and after the head, and whether the head is an entry that is partly consumed."""
    before = b""
    for i, (data, count) in enumerate(blocks):
        if count == 0:
            before += data
        elif popped >= count:
            popped -= count
        else:
            rest = b"".join(d for d, _ in blocks[i + 1 :])
            return (before, rest, True) if popped else (before, data + rest, False)
    return before, b"", False


@settings(max_examples=150, deadline=None)
@given(blocks=queues(), batches=st.lists(st.integers(1, 5), min_size=1), compacting=st.integers(0, 4))
def test_pop_all(blocks: list[tuple[bytes, int]], batches: list[int], compacting: int) -> None:
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        path = Path(directory, "queue.yaml")
        path.write_bytes(b"".join(data for data, _ in blocks))
        expected = tasks_in(path)
        engine = stack.enter_context(Engine(path))
        done = 0
        for turn in range(len(expected) + 1):
            done += (popped := engine.pop(batches[turn % len(batches)]))
            if not popped:
                break
            assert engine.tasks == expected[:done]
            data = path.read_bytes()
            before, after, partly = _remaining(blocks, done)
            left = without_filler(data)
            assert left.startswith(before) and left.endswith(after)
            assert partly or left == before + after
            assert tasks_in(path) == expected[done:]
            assert not leftovers(path.parent)
            if compacting and turn % compacting == 0:
                engine.queue.compact()
                assert tasks_in(path) == expected[done:]
                assert partly or path.read_bytes() == before + after
        engine.check_consumed()
        engine.queue.compact()
        assert path.read_bytes() == b"".join(data for data, count in blocks if not count)


QUEUE = """\
# what to do
- echo one
- true
- true
# then
- command: sweep {{ a }}
  a: [1, 2, 3]
  b: [x, y]
- |
  many
  lines
- last"""


EDITS = {"none": "", "append": "- appended\n", "comment": "# top\n", "prepend": "- before\n"}


def _edit(path: Path, edit: str) -> None:
    """What the user does to the file before Pegasus is started again."""
    if edit == "append":
        with path.open("a") as file:
            file.write(EDITS[edit])
    elif edit != "none":
        path.write_bytes(EDITS[edit].encode() + path.read_bytes())


def _pop_all(engine: Engine, most: int, flush: bool) -> None:
    while engine.pop(most):
        if flush:
            engine.queue.sync()
    engine.queue.compact()


def _is_killed(
    engine: Engine, patch: pytest.MonkeyPatch, at: int, torn: bool, most: int, flush: bool, edit: str
) -> bool:
    """Pop all, killed at the `at`-th write and started again; whether it came to that."""
    expected = tasks_in(engine.path)
    with patch.context() as inner:
        faults = Faults(inner, at, torn)
        with suppress(Killed):
            _pop_all(engine, most, flush)
    if faults.dead:
        _edit(engine.path, edit)
    engine.restart()
    _pop_all(engine, most, flush)
    extra = tasks_of(EDITS[edit]) if faults.dead else []
    assert [t for t in engine.tasks if t not in extra] == expected
    assert [t for t in engine.tasks if t in extra] == extra
    engine.check_consumed()
    top = EDITS[edit] if edit == "comment" and faults.dead else ""
    assert engine.path.read_text() == top + "# what to do\n# then\n"
    assert not leftovers(engine.path.parent)
    return faults.dead


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize(("most", "flush"), [(1, False), (1, True), (3, False), (64, True)])
@pytest.mark.parametrize("torn", [False, True])
def test_killed_at_each_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bool, most: int, flush: bool, edit: str
) -> None:
    at = 1
    while True:
        path = _fresh(tmp_path, at) / "queue.yaml"
        path.write_text(QUEUE + ("" if edit == "none" else "\n"))
        with Engine(path) as engine:
            if not _is_killed(engine, monkeypatch, at, torn, most, flush, edit):
                break
        at += 1
    assert at > 10


def _fresh(directory: Path, number: int) -> Path:
    fresh = directory / str(number)
    fresh.mkdir()
    return fresh


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    blocks=queues() | st.just([(QUEUE.encode() + b"\n", 11)]) | st.just([(b"- true\n" * 20, 20)]),
    before=st.integers(0, 11),
    batches=st.lists(st.integers(1, 4), min_size=1, max_size=8),
    block=st.sampled_from([1, 3, 40, 1000]),
    consumed=st.sampled_from(["old", "new", "part", "zeros"]),
    seed=st.integers(0, 2**32).map(random.Random),
    edit=st.sampled_from(list(EDITS)),
)
def test_power_cut_after_pops_that_were_not_flushed(
    monkeypatch: pytest.MonkeyPatch,
    blocks: list[tuple[bytes, int]],
    before: int,
    batches: list[int],
    block: int,
    consumed: str,
    seed: random.Random,
    edit: str,
) -> None:
    """Each block is as one of the pops left it; the note that they were applied is of another boot."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        path = Path(directory, "queue.yaml")
        text = b"".join(data for data, _ in blocks)
        # What the user adds is to fit: lines of their own, in the same column.
        odd = text.startswith((b"---", b"\xef")) or any(data.startswith(b" ") for data, _ in blocks)
        assume(edit == "none" or (text.endswith(b"\n") and not odd))
        path.write_bytes(text)
        expected = tasks_in(path)
        record = path.with_name("consumed.yaml")
        record.write_bytes(b"")
        with monkeypatch.context() as patch:
            patch.setattr(disk, "boot_id", lambda: "before")
            engine = stack.enter_context(Engine(path))
            for _ in range(before):
                engine.pop()
            engine.queue.sync()
            states = engine.pop_all(batches)
        versions = [state.queue for state in states]
        old_record, new_record = states[0].consumed, states[-1].consumed
        if states[0].inode == states[-1].inode:
            size = len(versions[-1])
            places = range(0, size, block)
            path.write_bytes(b"".join(seed.choice(versions)[at : at + block] for at in places))
        elif seed.random() < 0.5:
            path.write_bytes(versions[0])
        size = len(old_record) + seed.randint(0, len(new_record) - len(old_record))
        record.write_bytes(
            {
                "old": old_record,
                "new": new_record,
                "part": new_record[:size],
                "zeros": new_record[:size].ljust(len(new_record), b"\0"),
            }[consumed]
        )
        _edit(path, edit)
        engine.restart()
        extra = tasks_of(EDITS[edit])
        left = tasks_in(path)
        assert left == (
            extra + expected[len(engine.tasks) :]
            if edit == "prepend"
            else expected[len(engine.tasks) :] + extra
        )
        engine.check_consumed()
        while engine.pop():
            pass
        engine.check_consumed()


LATER = {
    "insert": lambda data, at: data[:at] + b"- urgent\n" + data[at:],
    "delete": lambda data, at: data[:at] + data[data.index(b"\n", at) + 1 :],
    "change": lambda data, at: data[:at] + b"- changed" + data[data.index(b"\n", at) :],
    "both ends": lambda data, at: b"# note\n" + data + b"- more\n",
    "insert and top": lambda data, at: b"# note\n" + data[:at] + b"- urgent\n" + data[at:],
}
"""What the user does to the file beside what has been popped, `at` being where the next entry begins."""


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    line=st.sampled_from(
        ["- ./simulate --with-defaults\n", "- process file {i:04d} with a long line" + 60 * "." + "\n"]
    ),
    before=st.integers(0, 40),
    batches=st.lists(st.integers(1, 4), min_size=1, max_size=30),
    block=st.sampled_from([512, 4096]),
    seed=st.integers(0, 2**32).map(random.Random),
    edit=st.sampled_from(list(LATER)),
)
def test_power_cut_and_then_an_edit_beside_what_was_popped(
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    before: int,
    batches: list[int],
    block: int,
    seed: random.Random,
    edit: str,
) -> None:
    """Nothing is lost and nothing comes twice, also where all entries are equal."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        path = Path(directory, "queue.yaml")
        path.write_text("".join(line.format(i=i) for i in range(300)))
        with monkeypatch.context() as patch:
            patch.setattr(disk, "boot_id", lambda: "before")
            engine = stack.enter_context(Engine(path))
            for _ in range(before):
                engine.pop()
            engine.queue.sync()
            versions = [state.queue for state in engine.pop_all(batches)]
        done = versions[-1]
        at = done.index(b"\n- ") + 1
        torn = b"".join(seed.choice(versions)[n : n + block] for n in range(0, len(done), block))
        # Without any stamp, and with edits on both sides, nobody can tell where it was.
        stamps = [decode(blob).stamp.encode() for blob in engine.blobs]
        assume(edit not in ("both ends", "insert and top") or any(stamp in torn for stamp in stamps))
        path.write_bytes(LATER[edit](done, at))
        expected = tasks_in(path)
        path.write_bytes(LATER[edit](torn, at))
        engine.restart()
        assert tasks_in(path) == expected
        engine.check_consumed()


def tasks_of(text: str) -> list[Task]:
    return [t for item in items(text.encode(), "q") for t in parse_entry(item.node, "q").tasks()]


@settings(max_examples=150, deadline=None)
@given(
    actions=st.lists(
        st.tuples(
            st.sampled_from(
                ["pop", "pop", "pop", "append", "prepend", "comment", "drop", "compact", "restart", "save"]
            ),
            st.integers(1, 4),
            entries(),
        ),
        max_size=25,
    )
)
@example(
    actions=[
        ("append", 1, ("- true\n", 1)),
        ("pop", 1, ("", 0)),
        ("append", 1, ("- true\n", 1)),
        ("restart", 1, ("", 0)),
    ]
)
def test_edits_between_pops_follow_a_model(actions: list[tuple[str, int, tuple[str, int]]]) -> None:
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        path = Path(directory, "queue.yaml")
        path.write_text("")
        engine = stack.enter_context(Engine(path))
        model: list[Task] = []
        taken: list[Task] = []
        for action, number, (text, _) in actions:
            if action == "pop":
                engine.pop(number)
                taken, model = taken + model[:number], model[number:]
            elif action == "append":
                with path.open("a") as file:
                    file.write(text)
                model += tasks_of(text)
            elif action in ("prepend", "comment"):
                # As an editor does: written beside and renamed.
                new = path.with_name("edited")
                new.write_text((text if action == "prepend" else "# top\n") + path.read_text())
                new.rename(path)
                model = (tasks_of(text) if action == "prepend" else []) + model
            elif action == "save":
                path.write_bytes(without_filler(path.read_bytes()))
            elif action == "drop":
                path.write_text(text)
                model = tasks_of(text)
            elif action == "compact":
                engine.queue.compact()
            else:
                engine.restart()
            assert engine.tasks == taken
            assert tasks_in(path) == model
        engine.check_consumed()


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(alphabet="-ab: #'\"[]{},&*!|>%@`?\t~0.\\", max_size=20),
    after=st.sampled_from(["", "- next\n", "# c\n", "  more\n", "x\n"]),
)
def test_the_short_cut_reads_what_the_parser_reads(text: str, after: str) -> None:
    data = f"- {text}\n{after}".encode()
    found = plain_item(data, final=True)
    if found is not None:
        item = next(items(data, "q"))
        assert parse_entry(item.node, "q").commands == (found[0],)
        assert item.end == found[1]


def _read(entries: Iterator[Entry]) -> list[object]:
    """What is read, with its places, and how it ends."""
    found: list[object] = []
    try:
        found.extend((entry, entry.place) for entry in entries)
    except BadInput as error:
        found.append(str(error))
    return found


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    plain=st.integers(0, 3),
    rest=queues().map(lambda blocks: b"".join(data for data, _ in blocks))
    | st.binary(max_size=20)
    | st.text(alphabet="-a: #'[]{}&*!|>\n~.", max_size=30).map(str.encode),
    newline=st.sampled_from([b"\n", b"\r\n"]),
)
def test_the_whole_queue_is_read_as_the_parser_reads_it(
    plain: int, rest: bytes, newline: bytes, tmp_path: Path
) -> None:
    data = b"".join(b"-%srun %d" % (b" " * (1 + n), n) + newline for n in range(plain)) + rest
    path = tmp_path / "queue.yaml"
    path.write_bytes(data)
    wanted = _read(parse_entry(item.node, str(path)) for item in items(data, str(path)))
    assert _read(QueueFile(path).entries()) == wanted
