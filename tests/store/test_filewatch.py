"""Inotify tells of every way in which the queue file may come to be another, and of nothing that is not near it."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from pathlib import Path

import pytest

from pegasus_py.store.filewatch import FileWatch


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write("- more\n")


def replace(path: Path) -> None:
    new = path.with_name("new")
    new.write_text("- other\n")
    new.rename(path)


def is_told(watch: FileWatch, seconds: float) -> bool:
    return bool(select.select([watch], [], [], seconds)[0])


@pytest.mark.parametrize(
    "change",
    [
        append,
        replace,
        Path.unlink,
        Path.touch,
        lambda p: p.write_text(""),
        lambda p: p.rename(p.with_name("old")),
    ],
    ids=["append", "replace", "remove", "touch", "empty", "rename"],
)
def test_a_change_is_told(tmp_path: Path, change: Callable[[Path], object]) -> None:
    path = tmp_path / "queue.yaml"
    path.write_text("- one\n")
    with FileWatch(path) as watch:
        change(path)
        assert is_told(watch, 10)


def test_a_file_that_comes_is_told(tmp_path: Path) -> None:
    with FileWatch(tmp_path / "queue.yaml") as watch:
        (tmp_path / "queue.yaml").write_text("- one\n")
        assert is_told(watch, 10)


def test_what_is_read_or_written_beside_it_is_not(tmp_path: Path) -> None:
    """A job that logs into the queue's directory wakes nobody."""
    path, log = tmp_path / "queue.yaml", tmp_path / "log"
    path.write_text("- one\n")
    log.touch()
    (tmp_path / "below").mkdir()
    with FileWatch(path) as watch:
        append(log)
        path.read_text()
        (tmp_path / "below" / "file").touch()
        assert not is_told(watch, 0.2)


def test_without_the_directory_it_cannot_be_done_and_leaves_nothing_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    with pytest.raises(FileNotFoundError):
        FileWatch(tmp_path / "gone" / "queue.yaml")
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208
