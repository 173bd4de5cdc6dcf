"""Libraries imported without what they can do without, and an interpreter that is afterwards as it was."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pegasus_py.absent import absent

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


def test_a_run_needs_neither_tls_nor_x509() -> None:
    """And who comes later may have both."""
    code = """
import sys
import pegasus_py.cli.quickrun, pegasus_py.node.sshlink
print(sorted({"ssl", "cryptography.x509"} & set(sys.modules)))
import ssl, cryptography.x509
print(ssl.create_default_context().protocol.name)
"""
    assert said(code).splitlines() == ["[]", "PROTOCOL_TLS_CLIENT"]
