"""Running `pegasus` as a user does: to its end, in the background, or in a terminal of 80 columns."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.procs import wait_until

LIMIT = 60.0
"""Seconds that any run here may take."""
TREE = Path(__file__).parents[2]


def command() -> list[str]:
    """The installed `pegasus` when it is there, else the package of this tree."""
    script = Path(sys.executable).with_name("pegasus")
    return [str(script)] if script.exists() else [sys.executable, "-m", "pegasus_py"]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(TREE), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **(extra or {})}


@dataclass(frozen=True)
class Result:
    """How a run ended. `out` and `err` are text, with replacements for what is not UTF-8."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.out[-3000:]}\n--- stderr\n{self.err[-3000:]}"

    @property
    def said(self) -> list[str]:
        """The lines of stdout without the name of the sub-node, sorted."""
        return sorted(line.partition("] ")[2] for line in self.out.splitlines())

    @property
    def nodes(self) -> set[str]:
        """The sub-nodes that printed something."""
        return {line[1:].partition("] ")[0] for line in self.out.splitlines()}


def pegasus(
    *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, prefix: Sequence[str] = ()
) -> Result:
    """Run to the end with an empty stdin. `prefix` goes before the command."""
    done = subprocess.run(
        [*prefix, *command(), *arguments],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=LIMIT,
        env=environment(env),
        cwd=cwd,
    )
    return Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


class Running:
    """`pegasus` in the background, its output in files."""

    def __init__(self, directory: Path, arguments: Sequence[str]) -> None:
        number = len(list(directory.glob("run-*.out")))
        self._out, self._err = directory / f"run-{number}.out", directory / f"run-{number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*command(), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment(),
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        return self._err.read_text(errors="replace")

    def until_said(self, text: str) -> None:
        """Wait until `text` is on stdout or stderr."""

        def said() -> bool:
            assert text in self.out + self.err or self.process.poll() is None, (
                f"ended without {text!r}: {self.result()}"
            )
            return text in self.out + self.err

        try:
            wait_until(said, f"{text!r} to be said", 20)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.out}\n{self.err}") from None

    def result(self) -> Result:
        """Wait for its end."""
        return Result(self.process.wait(LIMIT), self.out, self.err)


@contextlib.contextmanager
def running(directory: Path, *arguments: str) -> Iterator[Running]:
    """Start it; at the end of the block it is killed if it still runs (a test that went well has ended it)."""
    run = Running(directory, arguments)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGINT)
            run.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.process.wait(15)
            run.process.kill()
            run.process.wait(10)


class Gate:
    """A command that says that it has begun and goes on when it is told to; all nodes see this machine's files.

    It needs no quotes in YAML.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.begun, self.open_ = directory / f"{name}.begun", directory / f"{name}.open"
        begun, opened = shlex.quote(str(self.begun)), shlex.quote(str(self.open_))
        # It gives up after a while, so that nothing stays behind when a test fails.
        ask = f"[ ! -e {opened} ] && [ $i -lt 600 ]"
        self.command = f"touch {begun}; i=0; while {ask}; do i=$((i + 1)); sleep 0.05; done"

    def wait(self) -> None:
        wait_until(self.begun.exists, f"{self.begun.name}", 20)

    def open(self) -> None:
        self.open_.touch()


class Terminal:
    """A command in a terminal of its own. `text` is all that it has printed."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str] | None = None, columns: int = 80) -> None:
        self._fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        settings = {"TERM": "xterm-256color", "COLUMNS": "", **(env or {})}
        self.process = subprocess.Popen(
            list(words),
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=environment(settings),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inner)
        self.text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def until_said(self, text: str, times: int = 1) -> None:
        """Wait until `text` has been printed so often."""
        deadline = time.monotonic() + 20
        while self.text.count(text) < times:
            assert self._read(deadline), f"no {text!r} in {self.text!r}"

    def end(self) -> int:
        """Read to the end; the exit status."""
        deadline = time.monotonic() + LIMIT
        while self._read(deadline):
            pass
        return self.process.wait(10)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
            self.process.kill()
        self.process.wait(10)
        os.close(self._fd)

    def _read(self, deadline: float) -> bool:
        """Take in what comes next; False at the end, or when it is too late."""
        ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            return False
        self.text += self._decoder.decode(data)
        return bool(data)


@contextlib.contextmanager
def terminal(*arguments: str, env: Mapping[str, str] | None = None, columns: int = 80) -> Iterator[Terminal]:
    """`pegasus` in a terminal."""
    shown = Terminal([*command(), *arguments], env, columns)
    try:
        yield shown
    finally:
        shown.close()


def write(directory: Path, hosts: str | None, queue: str | None) -> None:
    """Write hosts.yaml and queue.yaml."""
    if hosts is not None:
        (directory / "hosts.yaml").write_text(hosts)
    if queue is not None:
        (directory / "queue.yaml").write_text(queue)


def records(file: Path) -> list[str]:
    """The entries of a consumed.yaml with their lines, without the comments."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [line for line in lines if not line.startswith("#")]
