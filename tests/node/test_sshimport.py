"""The import of asyncssh asks no compiler for libraries, and leaves the interpreter as it was."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pegasus_py.node import sshimport


def test_it_asks_no_other_program() -> None:
    code = """
import sys
started = set()
sys.addaudithook(lambda event, about: event == "subprocess.Popen" and started.add(str(about[0]).rpartition("/")[2]))
from pegasus_py.node import sshimport
print(sorted(started), sshimport.asyncssh.__name__)
"""
    if not sshimport.LIST.exists():
        pytest.skip("this C library keeps no list")
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[] asyncssh\n", done.stderr


def test_what_is_in_the_list_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ctypes.util.find_library is not sshimport.find_library
    usual = ctypes.util.find_library("c")
    assert sshimport.find_library("c") == usual
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    listed = tmp_path / "list"
    monkeypatch.setattr(sshimport, "LIST", listed)
    assert sshimport.find_library("c") == usual, "without a list"
    listed.write_bytes(b"\0libm.so.6\0/lib/liba.so\0/lib/liba.so.8.1\0/usr/lib/libb.so\0libabc.so.1\0")
    assert sshimport.find_library("c") is None
    found = {name: sshimport.find_library(name) for name in ("m", "a", "b", "ab", "abc")}
    assert found == {"m": "libm.so.6", "a": "liba.so.8.1", "b": "libb.so", "ab": None, "abc": "libabc.so.1"}
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    assert sshimport.find_library("c") == usual
