"""Nothing that reads us, or does not, can hold up the run."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from pegasus_py.show import outlet as outlet_module
from pegasus_py.show.outlet import Outlet


def raw_pipe() -> tuple[int, BinaryIO]:
    reader, writer = os.pipe()
    return reader, os.fdopen(writer, "wb", buffering=0)


def read_all(reader: int) -> bytes:
    with open(reader, "rb") as file:
        return file.read()


def test_a_reader_that_sleeps_holds_up_nobody_and_gets_all_later() -> None:
    reader, writer = raw_pipe()
    with writer:
        outlet = Outlet(writer, None, thread=True)
        for _ in range(100):
            outlet.send([(0, (b"x" * 10_000,))])
        assert outlet.backlog > 900_000
        got: list[bytes] = []
        reading = threading.Thread(target=lambda: got.append(read_all(reader)))
        reading.start()
        outlet.close(30)
        assert outlet.backlog == 0
    reading.join(30)
    assert got == [b"x" * 1_000_000]


def test_what_is_too_much_is_left_out_and_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(outlet_module, "MOST", 300_000)
    reader, writer = raw_pipe()
    with writer, (tmp_path / "err").open("wb", buffering=0) as err:
        outlet = Outlet(writer, err, thread=True)
        for _ in range(10):
            outlet.send([(0, (b"y" * 100_000,))])
            assert outlet.backlog <= 300_000
        reading = threading.Thread(target=lambda: read_all(reader))
        reading.start()
        outlet.close(30)
    reading.join(30)
    told = (tmp_path / "err").read_text()
    assert "bytes of output are not shown" in told
    assert told.count("\n") == 1


def test_what_belongs_together_is_left_out_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A prefix is small enough for room that its lines do not find."""
    monkeypatch.setattr(outlet_module, "MOST", 300_000)
    reader, writer = raw_pipe()
    got: list[bytes] = []
    with writer, (tmp_path / "err").open("wb", buffering=0) as err:
        outlet = Outlet(writer, err, thread=True)
        for _ in range(10):
            outlet.send([(0, (b"[node-1] ", b"y" * 99_999 + b"\n"))])
        reading = threading.Thread(target=lambda: got.append(read_all(reader)))
        reading.start()
        outlet.close(30)
    reading.join(30)
    lines = b"".join(got).splitlines()
    assert 0 < len(lines) < 10
    assert set(lines) == {b"[node-1] " + b"y" * 99_999}
    assert (tmp_path / "err").read_text().count("bytes of output are not shown") == 1


def test_a_closed_pipe_ends_quietly_and_frees_the_backlog(tmp_path: Path) -> None:
    reader, writer = raw_pipe()
    with writer, (tmp_path / "err").open("wb", buffering=0) as err:
        outlet = Outlet(writer, err, thread=True)
        os.close(reader)
        for _ in range(10):
            outlet.send([(0, (b"x" * 100_000,)), (1, (b"status\n",))])
        outlet.close(30)
        assert not outlet.open(0)
        assert outlet.open(1)
        assert outlet.backlog == 0
    assert (tmp_path / "err").read_text() == "status\n" * 10


def test_a_full_disk_is_told_once(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full, (tmp_path / "err").open("wb", buffering=0) as err:
        outlet = Outlet(full, err, thread=False)
        for _ in range(3):
            outlet.send([(0, (b"x\n",))])
    told = (tmp_path / "err").read_text()
    assert told.count("\n") == 1
    assert "No space left on device" in told


def test_a_pipe_made_non_blocking_by_someone_else_loses_nothing() -> None:
    reader, writer = raw_pipe()
    with writer:
        os.set_blocking(writer.fileno(), False)
        outlet = Outlet(writer, None, thread=True)
        outlet.send([(0, (b"z" * 1_000_000,))])
        got: list[bytes] = []
        reading = threading.Thread(target=lambda: got.append(read_all(reader)))
        reading.start()
        outlet.close(30)
    reading.join(30)
    assert got == [b"z" * 1_000_000]


PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from pegasus_py.core.events import Output, Started
from pegasus_py.show.stdio import make_console
from tests.show.samples import attempt
console = make_console(["node-1"])
console.handle(Started(attempt(7, command="work")))
console.handle(Output(attempt(7), (b"\\x1b[32mgreen\\x1b[0m\\n" * {lines},)))
console.close()
"""
ROOT = str(Path(__file__).parents[2])


def command(lines: int) -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(root=ROOT, lines=lines)]


def in_terminal(**env: str) -> str:
    """What the program writes when stdout and stderr are one terminal."""
    control, terminal = pty.openpty()
    with subprocess.Popen(
        command(1), stdout=terminal, stderr=terminal, env={**env, "PATH": os.environ["PATH"]}
    ) as child:
        os.close(terminal)
        got = b""
        try:
            while block := os.read(control, 65536):
                got += block
        except OSError:
            pass  # EIO: the last one that had the terminal open is gone
        assert child.wait(30) == 0
    os.close(control)
    return got.decode().replace("\r\n", "\n")


def test_a_terminal_gets_colours() -> None:
    shown = in_terminal(TERM="xterm", COLUMNS="80")
    assert "\x1b[36m[node-1]\x1b[0m \x1b[2m7 $ work\x1b[0m\n" in shown
    assert "\x1b[36m[node-1]\x1b[0m \x1b[32mgreen\x1b[0m\n" in shown


@pytest.mark.parametrize("env", [{"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}, {}])
def test_no_color_and_dumb_terminals_get_plain_lines(env: dict[str, str]) -> None:
    assert in_terminal(**env) == "[node-1] 7 $ work\n[node-1] green\n"


def test_a_pipe_gets_plain_lines() -> None:
    done = subprocess.run(command(2), capture_output=True, timeout=60, check=True, env={"TERM": "xterm"})
    assert done.stdout == b"[node-1] green\n" * 2
    assert done.stderr == b"[node-1] 7 $ work\n"


@pytest.mark.parametrize("closing", ["| head -n 1", ">&-", ">&- 2>&-"])
def test_a_closed_stdout_is_no_error(closing: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(root=ROOT, lines=200_000))
    script = f'( "$0" "$1"; echo $? >"$2" ) {closing}'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable, str(program), str(tmp_path / "status")],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (tmp_path / "status").read_text() == "0\n"
    assert done.stderr in (b"[node-1] 7 $ work\n", b"")
