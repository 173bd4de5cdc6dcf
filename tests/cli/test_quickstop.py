"""The short way of `pegasus stop` means what typer would make of the same words."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from pegasus_py.cli import quickstop, stop
from pegasus_py.cli.app import app
from pegasus_py.errors import NoController

Asked = list[tuple[Path, bool, bool]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    calls: Asked = []

    def ask(queue_file: Path, *, now: bool, wait: bool) -> str:
        calls.append((queue_file, now, wait))
        return "asked"

    monkeypatch.setattr(quickstop, "ask_stop", ask)
    monkeypatch.setattr("pegasus_py.run.requests.ask_stop", ask)
    return calls


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--now"],
        ["--wait"],
        ["--wait", "--now"],
        ["-Q", "a b.yaml"],
        ["--now", "--queue-file", "x/y.yaml"],
    ],
)
def test_it_asks_what_typer_asks(words: list[str], asked: Asked) -> None:
    assert quickstop.quick_stop(words)
    app(args=["stop", *words], standalone_mode=False)
    assert len(asked) == 2 and asked[0] == asked[1]


@pytest.mark.parametrize(
    "words", [["--help"], ["--no"], ["x"], ["-Q"], ["-Q", "--now"], ["-Qx"], ["--now=1"]]
)
def test_other_words_are_left_to_typer(words: list[str], asked: Asked) -> None:
    assert not quickstop.quick_stop(words)
    assert not asked


def test_it_knows_all_options_of_the_verb() -> None:
    assert set(inspect.signature(stop.stop).parameters) == {"queue_file", "wait", "now"}


def test_without_a_controller_it_says_so(workdir: Path) -> None:
    with pytest.raises(NoController, match="no controller runs here"):
        quickstop.quick_stop([])
