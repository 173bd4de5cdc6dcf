"""Any queue, popped in any way, killed anywhere: every task comes once, and no other byte changes."""

from __future__ import annotations

import random
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pegasus_py.core.entries import parse_entry
from pegasus_py.core.model import Task
from pegasus_py.core.yamltext import items, plain_item
from pegasus_py.store import poprecord
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
        path.write_text(EDITS[edit] + path.read_text())


def _pop_all(engine: Engine, most: int) -> None:
    while engine.pop(most):
        engine.queue.sync()
    engine.queue.compact()


def _is_killed(engine: Engine, patch: pytest.MonkeyPatch, at: int, torn: bool, most: int, edit: str) -> bool:
    """Pop all, killed at the `at`-th write and started again; whether it came to that."""
    expected = tasks_in(engine.path)
    with patch.context() as inner:
        faults = Faults(inner, at, torn)
        with suppress(Killed):
            _pop_all(engine, most)
    if faults.dead:
        _edit(engine.path, edit)
    engine.restart()
    _pop_all(engine, most)
    extra = tasks_of(EDITS[edit]) if faults.dead else []
    assert [t for t in engine.tasks if t not in extra] == expected
    assert [t for t in engine.tasks if t in extra] == extra
    engine.check_consumed()
    top = EDITS[edit] if edit == "comment" and faults.dead else ""
    assert engine.path.read_text() == top + "# what to do\n# then\n"
    assert not leftovers(engine.path.parent)
    return faults.dead


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("most", [1, 3, 64])
@pytest.mark.parametrize("torn", [False, True])
def test_killed_at_each_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bool, most: int, edit: str
) -> None:
    at = 1
    while True:
        path = _fresh(tmp_path, at) / "queue.yaml"
        path.write_text(QUEUE + ("" if edit == "none" else "\n"))
        with Engine(path) as engine:
            if not _is_killed(engine, monkeypatch, at, torn, most, edit):
                break
        at += 1
    assert at > 10


def _fresh(directory: Path, number: int) -> Path:
    fresh = directory / str(number)
    fresh.mkdir()
    return fresh


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pops=st.integers(0, 11),
    most=st.integers(1, 4),
    queue=st.sampled_from(["old", "new", "torn"]),
    consumed=st.sampled_from(["old", "new", "half", "zeros"]),
    seed=st.integers(0, 2**32).map(random.Random),
    append=st.booleans(),
)
def test_power_cut_after_the_last_pop(
    monkeypatch: pytest.MonkeyPatch,
    pops: int,
    most: int,
    queue: str,
    consumed: str,
    seed: random.Random,
    append: bool,
) -> None:
    """What was not flushed is old, new, or torn; the note that the pop was applied is of another boot."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        path = Path(directory, "queue.yaml")
        path.write_text(QUEUE + "\n")
        expected = tasks_in(path)
        record = path.with_name("consumed.yaml")
        with monkeypatch.context() as patch:
            patch.setattr(poprecord, "_boot_id", lambda: "before")
            engine = stack.enter_context(Engine(path))
            for _ in range(pops):
                engine.pop()
            engine.queue.sync()
            old, inode = path.read_bytes(), path.stat().st_ino
            old_record = record.read_bytes() if record.exists() else b""
            engine.pop(most)
            new, new_record = path.read_bytes(), record.read_bytes()
        if path.stat().st_ino == inode:
            torn = bytes(b if seed.random() < 0.5 else a for a, b in zip(old, new, strict=True))
            path.write_bytes({"old": old, "new": new, "torn": torn}[queue])
        elif queue == "old":
            path.write_bytes(old)
        size = len(old_record) + (len(new_record) - len(old_record)) // 2
        record.write_bytes(
            {
                "old": old_record,
                "new": new_record,
                "half": new_record[:size],
                "zeros": old_record.ljust(len(new_record), b"\0"),
            }[consumed]
        )
        if append:
            with path.open("a") as file:
                file.write("- appended\n")
        engine.restart()
        assert engine.tasks + tasks_in(path) == expected + tasks_of("- appended\n" if append else "")
        engine.check_consumed()
        while engine.pop():
            pass
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
