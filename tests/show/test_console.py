"""What the user sees while a run goes on."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegasus_py.core.events import (
    Ended,
    NodeDown,
    NodeSetAside,
    NodeUp,
    Note,
    QueueBad,
    QueueMended,
    Started,
    Stopping,
)
from pegasus_py.core.model import End, JobState
from pegasus_py.show import console as console_module
from pegasus_py.show.console import Console
from pegasus_py.show.terminal import cells
from tests.show.samples import Screen, attempt, ended, named, node, output

SGR = re.compile(r"\x1b\[[0-9;:]*m")


def test_in_a_pipe_lines_are_plain_and_complete() -> None:
    screen = Screen()
    screen.console.handle(output(b"\x1b[31mred\x1b[0m\n" + b"w" * 300 + b"\nlast"))
    assert screen.out == "[node-1] red\n[node-1] " + "w" * 300 + "\n"
    screen.console.handle(ended())
    assert screen.out.endswith("\n[node-1] last\n")


def test_a_line_of_one_job_is_never_divided_by_another() -> None:
    screen = Screen()
    screen.console.handle(output(b"one ", 1))
    screen.console.handle(output(b"other\nsecond ", 2, "node-2"))
    screen.console.handle(output(b"line\n", 1))
    screen.console.handle(output(b"half\n", 2, "node-2"))
    assert screen.out.splitlines() == ["[node-2] other", "[node-1] one line", "[node-2] second half"]


@pytest.mark.parametrize("size", range(40))
def test_a_bar_never_comes_between_a_line_and_its_name(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Wherever in it what has been collected is handed on."""
    monkeypatch.setattr(console_module, "FULL", 60)
    screen = Screen(width=80, live=True)
    screen.console.handle(output(b"10%\r20%\r", 2, "node-2"))
    screen.console.handle(output(b"x" * size + b"\nnext\n", 1))
    screen.console.handle(output(b"last\n", 1))
    shown = [line.rpartition("\r\x1b[K")[2] for line in screen.out.split("\n")]
    assert shown == ["[node-1] " + "x" * size, "[node-1] next", "[node-1] last", "[node-2] 20%"]


def test_a_new_attempt_does_not_continue_the_line_of_the_old_one() -> None:
    screen = Screen()
    screen.console.handle(output(b"half"))
    screen.console.handle(ended(state=JobState.LOST, status=None, retry_in=1.0))
    screen.console.handle(output(b"whole\n"))
    assert screen.out.splitlines() == ["[node-1] half", "[node-1] whole"]


def test_lines_that_were_begun_are_printed_at_the_end() -> None:
    screen = Screen()
    screen.console.handle(output(b"half"))
    screen.console.close()
    assert screen.raw_out.getvalue() == b"[node-1] half\n"


def test_a_terminal_gets_wrapped_lines_behind_aligned_prefixes() -> None:
    screen = Screen(width=40, names=("a", "node-1"))
    screen.console.handle(output(b"x" * 70 + b"\n" + "漢".encode() * 20 + b"\n1\t2\n"))
    screen.console.handle(output(b"short\n", 2, "a"))
    lines = screen.out.splitlines()
    assert lines[:3] == ["[node-1] " + "x" * 31, "[node-1] " + "x" * 31, "[node-1] " + "x" * 8]
    assert lines[3:5] == ["[node-1] " + "漢" * 15, "[node-1] " + "漢" * 5]
    assert lines[5:] == ["[node-1] 1       2", "[a]      short"]
    assert all(cells(line) <= 40 for line in lines)


def test_with_colour_each_sub_node_has_its_own_and_lines_are_reset() -> None:
    screen = Screen(colour=True, width=80)
    screen.console.handle(output(b"\x1b[1mbold\nplain\n"))
    screen.console.handle(output(b"x\n", 2, "node-2"))
    assert screen.out == (
        "\x1b[36m[node-1]\x1b[0m \x1b[1mbold\x1b[0m\n\x1b[36m[node-1]\x1b[0m plain\n"
        "\x1b[33m[node-2]\x1b[0m x\n"
    )


def test_progress_bars_do_not_flood_a_pipe() -> None:
    screen = Screen()
    for percent in range(101):
        screen.console.handle(output(b"\r%3d%%|##  | %d/100" % (percent, percent)))
        screen.console.flush()
    assert screen.out == ""
    screen.console.handle(ended())
    assert screen.out == "[node-1] 100%|##  | 100/100\n"


def test_a_terminal_shows_the_bar_that_moved_last_and_keeps_it_out_of_the_lines() -> None:
    screen = Screen(width=40, live=True)
    screen.console.handle(output(b"\r 10%" + b"#" * 60))
    assert screen.out == "[node-1]  10%" + "#" * 25 + "…"
    screen.console.handle(output(b"line\n", 2, "node-2"))
    first, second = screen.out.split("\r\x1b[K", 1)
    assert second.startswith("[node-2] line\n[node-1]  10%##")
    screen.console.handle(output(b"\r 90%"))
    screen.console.handle(ended())
    assert screen.out.endswith("\r\x1b[K[node-1]  90%\n")
    assert first.count("\n") == 0


def test_starts_are_one_line_cut_to_the_terminal() -> None:
    wide, narrow = Screen(), Screen(width=40)
    start = Started(attempt(12, command="echo " + "y" * 100 + "\nsecond"))
    for screen in (wide, narrow):
        screen.console.handle(start)
        assert screen.out == ""
    assert wide.err == "[node-1] 12 $ echo " + "y" * 100 + " ...\n"
    assert narrow.err == "[node-1] 12 $ echo " + "y" * 20 + "…\n"


def test_a_command_of_a_megabyte_is_a_short_line() -> None:
    screen = Screen()
    screen.console.handle(Started(attempt(command="z" * 1_000_000)))
    assert len(screen.err) < 600
    screen.console.handle(Started(attempt(command="a" + " " * 2000 + "b")))
    assert screen.err.endswith("1 $ a ...\n")


def test_starts_tell_name_attempt_and_recovery() -> None:
    screen = Screen()
    screen.console.handle(Started(named(3, "train", "python t.py")))
    screen.console.handle(Started(attempt(4, number=2), recovered=True))
    assert screen.err.splitlines() == [
        "[node-1] 3 (train) $ python t.py",
        "[node-1] 4 (attempt 2, from an earlier run) $ true",
    ]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            ended(12, JobState.FAILED, 3),
            "[node-1] job 12 failed: exit 3 (log .pegasus/queue.yaml/logs/12.1.log)",
        ),
        (
            ended(12, JobState.FAILED, 137, retry_in=5.0),
            "[node-1] job 12 failed: exit 137 (SIGKILL) (log .pegasus/queue.yaml/logs/12.1.log); "
            "next attempt in 5s",
        ),
        (
            ended(1, JobState.LOST, None, reason="the node\x1b[2J rebooted\n"),
            "[node-1] job 1 is lost: the node rebooted  (log .pegasus/queue.yaml/logs/1.1.log)",
        ),
        (NodeUp(node(), again=True), "[node-1] connected again"),
        (NodeDown(node(), "no route", 5.0), "[node-1] cannot be reached: no route; trying again"),
        (NodeDown(node(), "reset", 5.0, was_up=True), "[node-1] connection lost: reset; trying again"),
        (
            NodeDown(node(), "host key changed", None),
            "[node-1] cannot be reached: host key changed; not tried again in this run",
        ),
        (NodeSetAside(node(), "full"), "[node-1] set aside: full"),
        (QueueBad("queue.yaml:3:1: bad"), "pegasus: queue.yaml:3:1: bad"),
        (QueueMended(), "pegasus: the queue file can be read again"),
        (
            Stopping(1),
            "pegasus: stopping; nothing new starts, waiting for 1 running command; Ctrl-C again ends what runs",
        ),
        (Stopping(2, now=True), "pegasus: stopping now; ending 2 running commands"),
        (Stopping(0), "pegasus: stopping; no command is running"),
        (Note("hi\nthere", warning=True), "pegasus: warning: hi there"),
    ],
)
def test_what_happens_is_one_line_on_stderr(event: Ended, line: str) -> None:
    screen = Screen()
    screen.console.handle(event)
    assert screen.err == line + "\n"
    assert screen.out == ""


def test_a_stop_is_told_over_the_terminals_own_mark_and_between_words() -> None:
    screen = Screen(width=40)
    screen.console.handle(Stopping(1))
    assert screen.err == (
        "\rpegasus: stopping; nothing new starts,\nwaiting for 1 running command; Ctrl-C\nagain ends what runs\n"
    )


def test_a_node_that_stays_away_is_named_once() -> None:
    screen = Screen()
    for delay in (1.0, 2.0, 4.0):
        screen.console.handle(NodeDown(node(), "no route", delay))
    screen.console.handle(NodeDown(node(), "refused", 8.0))
    assert len(screen.err.splitlines()) == 2


def test_a_success_is_told_when_it_took_a_while_and_never_when_quiet() -> None:
    loud, quiet = Screen(), Screen(quiet=True)
    for screen in (loud, quiet):
        screen.console.handle(Started(attempt()))
        screen.console.handle(ended())
        screen.console.handle(Ended(attempt(2), End(JobState.SUCCEEDED, 0, duration=187.0), "2.log"))
        screen.console.handle(ended(3, JobState.FAILED, 1))
    assert loud.err.splitlines()[1:2] == ["[node-1] job 2 succeeded after 3m07s"]
    assert [line.split(":")[0] for line in quiet.err.splitlines()] == ["[node-1] job 3 failed"]


def test_survivors_are_named() -> None:
    screen = Screen()
    end = End(JobState.TIMED_OUT, 143, survivors=("123 (python)",))
    screen.console.handle(Ended(attempt(), end, "1.log"))
    assert "left processes that could not be ended: 123 (python)\n" in screen.err


def test_a_closed_stdout_is_quiet_and_stderr_goes_on() -> None:
    class Closed(io.BytesIO):
        def write(self, data: object, /) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    err = io.BytesIO()
    console = Console(Closed(), err, colour=False, width=None, names=())
    for job in range(3):
        console.handle(output(b"x\n", job))
        console.handle(ended(job, JobState.FAILED, 1))
        console.flush()
    console.close()
    assert err.getvalue().count(b"\n") == 3
    assert b"Broken" not in err.getvalue()


def test_a_report_comes_after_the_lines_and_knows_its_stream() -> None:
    screen = Screen(width=40, colour=True)
    screen.console.handle(Note("before"))
    screen.console.report(lambda width, colour: f"{width} {colour}\n")
    assert screen.err == "pegasus: before\n40 True\n"
    screen.console.report(lambda width, colour: "table\n", err=False)
    assert screen.out == "table\n"


def test_only_the_stream_that_is_a_terminal_gets_colours_and_wrapping() -> None:
    out, err = io.BytesIO(), io.BytesIO()
    console = Console(out, err, colour=True, width=30, names=("node-1",), terminals=(False, True))
    console.handle(output(b"\x1b[31m" + b"x" * 50 + b"\n"))
    console.handle(NodeUp(node(), again=True))
    console.close()
    assert out.getvalue() == b"[node-1] " + b"x" * 50 + b"\n"
    assert err.getvalue() == b"\x1b[36m[node-1]\x1b[0m connected again\n"


def test_the_width_follows_the_window() -> None:
    """From the first line after it was resized, however long before."""
    out, err = io.BytesIO(), io.BytesIO()
    width = 80
    console = Console(out, err, colour=False, width=80, names=("node-1",), measure=lambda: width)
    console.handle(output(b"x" * 30 + b"\n"))
    console.flush()
    width = 34
    console.handle(output(b"x" * 30 + b"\n"))
    console.flush()
    width = 60
    console.handle(output(b"x" * 30 + b"\n"))
    console.flush()
    width = 50
    console.report(lambda width, colour: f"{width}\n")
    console.close()
    assert out.getvalue().splitlines() == [b"[node-1] " + b"x" * n for n in (30, 25, 5, 30)]
    assert err.getvalue() == b"50\n"


def test_without_streams_nothing_fails() -> None:
    console = Console(None, None, colour=False, width=None, names=())
    console.handle(output(b"x\n"))
    console.handle(ended(1, JobState.FAILED, 1))
    console.close()
    assert console.backlog == 0


WORDS = st.text("abc é漢", min_size=0, max_size=12)
JUNK = st.sampled_from([b"\x1b[2J", b"\x07", b"\xff", b"\x1b[31m", b"\x00", b"\r\n", b"\r", b"\x1b]0;x\x07"])


@given(
    st.lists(st.tuples(st.integers(1, 3), st.one_of(st.binary(max_size=20), JUNK, WORDS.map(str.encode)))),
    st.booleans(),
    st.sampled_from([None, 80]),
)
def test_whatever_jobs_print_only_text_and_colours_leave(
    chunks: list[tuple[int, bytes]], colour: bool, width: int | None
) -> None:
    screen = Screen(colour=colour, width=width)
    for job, data in chunks:
        screen.console.handle(output(data, job))
    screen.console.close()
    bare = SGR.sub("", screen.out) if colour else screen.out
    # A tab is text in a pipe (`cut -f` must work) and blanks on a terminal.
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", bare)
    assert width is None or "\t" not in bare
    assert bare == "" or bare.endswith("\n")
    assert all(line.startswith("[node-1] ") for line in bare.split("\n")[:-1])


@given(st.lists(st.tuples(st.integers(1, 3), st.lists(WORDS, max_size=4), st.integers(0, 40))))
def test_plain_lines_come_out_whole_and_in_order(writes: list[tuple[int, list[str], int]]) -> None:
    screen = Screen(names=("j1", "j2", "j3"))
    said: dict[str, list[str]] = {"j1": [], "j2": [], "j3": []}
    for job, lines, cut in writes:
        data = "".join(line + "\n" for line in lines).encode()
        said[f"j{job}"] += lines
        screen.console.handle(output(data[:cut], job, f"j{job}"))
        screen.console.handle(output(b"elsewhere\n", 9, "other"))
        screen.console.handle(output(data[cut:], job, f"j{job}"))
    shown = screen.out.split("\n")[:-1]
    for name, lines in said.items():
        assert [line.removeprefix(f"[{name}] ") for line in shown if line.startswith(f"[{name}]")] == lines
    assert shown.count("[other] elsewhere") == len(writes)
