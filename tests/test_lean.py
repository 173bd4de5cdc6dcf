"""Libraries imported without what they can do without, and an interpreter that is afterwards as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pegasus_py.lean import absent

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


ONLY_LIGHT = """
import sys
from pegasus_py.lean import without_openssl
without_openssl()
import pegasus_py.run.life, pegasus_py.node.sshlink
print(sorted({"ssl", "_hashlib", "cryptography.x509"} & set(sys.modules)))
"""


def test_a_run_needs_neither_tls_nor_x509() -> None:
    """And who comes later may have both."""
    code = f"{ONLY_LIGHT}import ssl, cryptography.x509\nprint(ssl.create_default_context().protocol.name)"
    assert said(code).splitlines() == ["[]", "PROTOCOL_TLS_CLIENT"]


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
