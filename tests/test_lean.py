"""Libraries imported without what they can do without, and an interpreter that is afterwards as it was."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pegasus_py.lean import absent, hollow, wide_patterns_later

NAME = "colorsys"


def said(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_missing_for_a_while() -> None:
    sys.modules.pop(NAME, None)
    with absent(NAME), pytest.raises(ImportError):
        __import__(NAME)
    assert __import__(NAME).__name__ == NAME


def test_what_is_imported_already_stays() -> None:
    there = __import__(NAME)
    with absent(NAME):
        assert __import__(NAME) is there
    assert sys.modules[NAME] is there


def test_it_is_back_after_an_error() -> None:
    sys.modules.pop(NAME, None)
    with pytest.raises(ZeroDivisionError), absent(NAME):
        1 / 0  # noqa: B018
    assert NAME not in sys.modules


def test_it_has_whatever_is_wanted_for_a_while() -> None:
    sys.modules.pop(NAME, None)
    with hollow(NAME):
        made = __import__(NAME)
        assert isinstance(made.anything, type)
        assert not hasattr(made, "__path__")
    assert __import__(NAME).rgb_to_hsv(0, 0, 0) == (0, 0, 0)


def test_what_is_imported_already_is_not_hollow() -> None:
    there = __import__(NAME)
    with hollow(NAME):
        assert __import__(NAME) is there
    assert sys.modules[NAME] is there


def test_a_wide_pattern_is_compiled_when_it_is_used() -> None:
    usual = re.compile
    with wide_patterns_later():
        wide = re.compile("[^a-z\U00010000-\U0010ffff]", re.ASCII)
        broken = re.compile("[\U0010ffff")
        assert re.compile("a-z") is usual("a-z")
    assert re.compile is usual
    assert type(wide).__name__ != "Pattern"
    with pytest.raises(re.error):
        broken.search("")
    found = wide.search("ab\U0001f600!")
    assert found is not None and found[0] == "!"
    assert wide.flags & re.ASCII


def test_compiling_is_as_before_after_an_error() -> None:
    usual = re.compile
    with pytest.raises(ZeroDivisionError), wide_patterns_later():
        1 / 0  # noqa: B018
    assert re.compile is usual


ONLY_LIGHT = """
import sys
from pegasus_py.lean import without_openssl
without_openssl()
import pegasus_py.run.life, pegasus_py.node.sshlink
print(sorted({"ssl", "_hashlib", "cryptography.x509", "asyncssh.sftp", "filelock"} & set(sys.modules)))
"""


def test_a_run_needs_neither_tls_nor_x509_nor_sftp() -> None:
    """And who comes later may have all of it."""
    code = f"""{ONLY_LIGHT}
import ssl, cryptography.x509, asyncssh.sftp
print(ssl.create_default_context().protocol.name, asyncssh.sftp.SFTPClient.open.__name__)
"""
    assert said(code).splitlines() == ["[]", "PROTOCOL_TLS_CLIENT open"]


def test_a_run_is_such_a_one(tmp_path: Path) -> None:
    """It ends at once, for there are no nodes."""
    code = f"""
import os, sys
os.chdir({str(tmp_path)!r})
from pegasus_py.cli.main import main
try:
    main(["q"])
except SystemExit as leaving:
    print(leaving.code, sorted({{"ssl", "_hashlib", "asyncio"}} & set(sys.modules)))
"""
    assert said(code) == "2 ['asyncio']\n"


def test_the_hashes_are_the_same() -> None:
    code = """
import hashlib, hmac
print(*(getattr(hashlib, name)(b"x").hexdigest() for name in ("md5", "sha1", "sha256", "sha384", "sha512")))
print(hmac.new(b"key", b"x", "sha1").hexdigest())
"""
    assert said(f"from pegasus_py.lean import without_openssl\nwithout_openssl()\n{code}") == said(code)


def test_an_interpreter_without_hashes_of_its_own_takes_those_of_openssl() -> None:
    code = """
import sys
from pegasus_py import lean
lean.HASHES = ("_no_such_module",)
lean.without_openssl()
import hashlib
print("_hashlib" in sys.modules)
"""
    assert said(code) == "True\n"
