"""`pegasus lock`: the lock is held while the editor is open, and what the user has written is kept."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.e2e.program import Gate, pegasus, running, terminal, write

GOOD = "- echo one\n"


def editor(here: Path, name: str, body: str) -> str:
    """A program whose last argument is the file, as `$file`."""
    path = here / name
    path.write_text(f"#!/bin/sh\nfor file; do :; done\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_nothing_is_taken_while_the_editor_is_open(here: Path) -> None:
    gate, opened = Gate(here, "running"), Gate(here, "editor")
    write(here, "- node-1\n", f"- {gate.command}\n- echo old\n")
    slow = editor(here, "slow", f'{opened.command}; echo "- echo new" > "$file"')
    with running(here, "q") as run:
        gate.wait()
        with running(here, "lock", "--editor", slow) as lock:
            opened.wait()
            gate.open()
            run.until_said("locked by pegasus lock")
            assert "old" not in run.out and "- echo old" in (here / "queue.yaml").read_text()
            opened.open()
            assert lock.result().code == 0, lock.result()
        result = run.result()
    assert result.code == 0 and result.said == ["new"], result
    assert result.err.count("locked by pegasus lock") == 1, "it says so once"


def test_a_start_while_the_editor_is_open_waits_and_says_so(here: Path) -> None:
    opened = Gate(here, "editor")
    write(here, "- node-1\n", GOOD)
    assert pegasus("q").code == 0
    write(here, None, GOOD)
    with running(here, "lock", "--editor", editor(here, "slow", opened.command)) as lock:
        opened.wait()
        with running(here, "q") as run:
            run.until_said("locked by pegasus lock")
            assert pegasus("stop").code == 0
            assert run.result().code == 6, run.result()
        with running(here, "q") as run:
            run.until_said("locked by pegasus lock")
            opened.open()
            assert run.result().code == 0 and run.result().said == ["one"], run.result()
        assert lock.result().code == 0


def test_a_second_lock_waits_and_says_for_whom(here: Path) -> None:
    opened = Gate(here, "editor")
    write(here, None, GOOD)
    with running(here, "lock", "--editor", editor(here, "slow", opened.command)) as first:
        opened.wait()
        with running(here, "lock", "--editor", "true") as second:
            second.until_said(f"locked by pegasus lock (process {first.process.pid}")
            opened.open()
            assert first.result().code == 0 and second.result().code == 0


@pytest.mark.parametrize(
    ("option", "variables", "expected"),
    [
        ("{0}/mine -x 'two words'", {"VISUAL": "{0}/visual", "EDITOR": "{0}/editor"}, "mine -x two words"),
        (None, {"VISUAL": "{0}/visual --wait", "EDITOR": "{0}/editor"}, "visual --wait"),
        (None, {"EDITOR": "{0}/editor -n"}, "editor -n"),
        (None, {}, "vim"),
    ],
)
def test_which_editor(here: Path, option: str | None, variables: dict[str, str], expected: str) -> None:
    write(here, None, GOOD)
    tools = here / "bin"
    tools.mkdir()
    for name in ("mine", "visual", "editor", "vim", "nano"):
        (tools / name).write_text(f'#!/bin/sh\necho {name} "$@" > {here}/called\n')
        (tools / name).chmod(0o755)
    env = {name: value.format(tools) for name, value in variables.items()}
    env["PATH"] = f"{tools}:{os.environ['PATH']}"
    arguments = [] if option is None else ["--editor", option.format(tools)]

    assert pegasus("lock", *arguments, env=env).code == 0
    assert (here / "called").read_text() == f"{expected} queue.yaml\n"


def test_vi_and_nano_are_the_last_resorts(here: Path) -> None:
    write(here, None, GOOD)
    tools = here / "bin"
    tools.mkdir()
    env = {"PATH": str(tools)}
    assert "no editor found (vim, vi, nano)" in pegasus("lock", env=env).err
    for name in ("nano", "vi"):
        (tools / name).write_text(f"#!/bin/sh\necho {name} > {here}/called\n")
        (tools / name).chmod(0o755)
        assert pegasus("l", env=env).code == 0
        assert (here / "called").read_text() == f"{name}\n"


def test_an_editor_may_replace_the_file(here: Path) -> None:
    gate = Gate(here, "running")
    write(here, "- node-1\n", f"- {gate.command}\n- echo old\n")
    replacing = editor(here, "replacing", 'echo "- echo replaced" > "$file~"; mv "$file~" "$file"')
    with running(here, "q") as run:
        gate.wait()
        assert pegasus("lock", "--editor", replacing).code == 0
        gate.open()
        assert run.result().said == ["replaced"], run.result()


def test_without_a_terminal_a_bad_file_is_told_and_kept(here: Path) -> None:
    write(here, None, GOOD)
    run = pegasus("lock", "--editor", editor(here, "bad", 'echo "- [" >> "$file"'))
    assert run.code == 2 and "queue.yaml:3:1: not YAML" in run.err and "is kept as it is" in run.err, run
    assert (here / "queue.yaml").read_text() == f"{GOOD}- [\n"


def test_on_a_terminal_it_offers_to_edit_again(here: Path) -> None:
    write(here, None, GOOD)
    twice = 'if [ -e once ]; then echo "- echo mended" > "$file"; else touch once; echo "- [" >> "$file"; fi'
    with terminal("lock", "--editor", editor(here, "twice", twice)) as lock:
        lock.until_said("Edit again? [Y/n]")
        assert "queue.yaml:3:1: not YAML" in lock.text
        lock.type("\n")
        assert lock.end() == 0, lock.text
    assert (here / "queue.yaml").read_text() == "- echo mended\n"


def test_the_offer_may_be_declined_and_the_text_is_kept(here: Path) -> None:
    write(here, None, GOOD)
    with terminal("lock", "--editor", editor(here, "bad", 'echo "- [" >> "$file"')) as lock:
        lock.until_said("Edit again? [Y/n]")
        lock.type("n\n")
        assert lock.end() == 2, lock.text
    assert (here / "queue.yaml").read_text() == f"{GOOD}- [\n"


@pytest.mark.parametrize(
    ("end", "told"),
    [("exit 9", "the editor ended with status 9"), ("kill -9 $$", "the editor was ended by SIGKILL")],
)
def test_an_editor_that_fails_is_told_and_what_it_saved_is_kept(here: Path, end: str, told: str) -> None:
    write(here, None, GOOD)
    run = pegasus("lock", "--editor", editor(here, "failing", f'echo "- echo two" >> "$file"; {end}'))
    assert told in run.err, run
    assert (here / "queue.yaml").read_text() == f"{GOOD}- echo two\n"


def test_ctrl_c_belongs_to_the_editor(here: Path) -> None:
    """The editor takes it and goes on; the lock is still held."""
    write(here, None, GOOD)
    opened = Gate(here, "editor")
    body = f'trap "echo got it" INT; {opened.command}; echo "- echo two" >> "$file"'
    with terminal("lock", "--editor", editor(here, "patient", body)) as lock:
        opened.wait()
        lock.type("\x03")
        lock.until_said("got it")
        opened.open()
        assert lock.end() == 0, lock.text
    assert (here / "queue.yaml").read_text() == f"{GOOD}- echo two\n"


def test_a_killed_lock_leaves_nothing_locked(here: Path) -> None:
    opened = Gate(here, "editor")
    write(here, "- node-1\n", GOOD)
    with running(here, "lock", "--editor", editor(here, "slow", opened.command)) as lock:
        opened.wait()
        os.killpg(lock.process.pid, signal.SIGKILL)
        lock.process.wait(10)
    run = pegasus("q")
    assert run.code == 0 and run.said == ["one"] and "locked" not in run.err, run


@pytest.mark.parametrize(
    ("option", "told"), [("nonesuch -x", "there is no program"), ("'", "is not a command line")]
)
def test_no_such_editor(here: Path, option: str, told: str) -> None:
    write(here, None, GOOD)
    run = pegasus("lock", "--editor", option)
    assert run.code == 2 and "--editor" in run.err and told in run.err, run


def test_no_such_directory(here: Path) -> None:
    run = pegasus("lock", "-Q", "nowhere/queue.yaml", "--editor", "true")
    assert run.code == 2 and "there is no directory nowhere" in run.err, run
    assert not (here / "nowhere").exists()


def test_an_editor_that_fails_is_not_a_success(here: Path) -> None:
    write(here, None, GOOD)
    done = pegasus("lock", "--editor", editor(here, "failing", "exit 3"))
    assert done.code == 1 and "ended with status 3" in done.err


@pytest.mark.parametrize("text", ["- echo {{ x }\n", "- echo {{ x | nothing }}\n", "- echo {% if %}\n"])
def test_a_template_that_does_not_parse_is_told_at_once(here: Path, text: str) -> None:
    write(here, None, GOOD)
    (here / "wrong").write_text(text)
    done = pegasus("lock", "--editor", editor(here, "wrong-editor", f'cat {here}/wrong > "$file"'))
    assert done.code == 2 and "queue.yaml:1" in done.err, done
