"""known_hosts, without a server: which line speaks of which host, and what follows from it."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from pegasus_py.node.hostkeys import HostKeys, KnownKey, Verdict, algorithms_for, parse_known_hosts

ED, RSA = "ssh-ed25519", "ssh-rsa"


def keys(
    tmp_path: Path, text: str, host: str = "alpha", port: int = 22, alias: str | None = None
) -> HostKeys:
    file = tmp_path / "known_hosts"
    file.write_text(text)
    return HostKeys(host, port, alias, (file,))


@pytest.mark.parametrize(
    ("names", "name", "matches"),
    [
        ("alpha", "alpha", True),
        ("alpha,beta", "beta", True),
        ("ALPHA", "alpha", True),
        ("alpha", "alphabet", False),
        ("al*", "alpha", True),
        ("a?pha", "alpha", True),
        ("*,!alpha", "alpha", False),
        ("!alpha", "beta", False),
        ("[alpha]:2222", "[alpha]:2222", True),
        ("[alpha]:*", "[alpha]:2222", True),
        ("[alpha]:2222", "alpha", False),
        ("[a]lpha", "alpha", False),
        ("|1|nonsense", "alpha", False),
    ],
)
def test_which_names_a_line_speaks_of(names: str, name: str, matches: bool) -> None:
    (line,) = parse_known_hosts(f"{names} {ED} AAAA", "f")
    assert line.is_for(name) is matches


def test_lines_that_are_not_understood_are_skipped_and_counted() -> None:
    text = f"# comment\n\nalpha\n@strange alpha {ED} AAAA\nalpha {ED} BBBB a comment\n"
    (line,) = parse_known_hosts(text, "f")
    assert (line.blob, str(line.place)) == ("BBBB", "f:5")


def test_known_unknown_and_changed_are_told_apart(tmp_path: Path) -> None:
    book = keys(tmp_path, f"other {ED} AAAA\nalpha {ED} BBBB\n")
    assert book.judge(ED, "BBBB").verdict is Verdict.KNOWN
    changed = book.judge(ED, "CCCC")
    assert (changed.verdict, str(changed.place)) == (Verdict.CHANGED, f"{tmp_path}/known_hosts:2")
    assert keys(tmp_path, f"other {ED} AAAA\n").judge(ED, "BBBB").verdict is Verdict.UNKNOWN


def test_a_key_of_another_kind_is_a_change_too(tmp_path: Path) -> None:
    assert keys(tmp_path, f"alpha {RSA} AAAA\n").judge(ED, "BBBB").verdict is Verdict.CHANGED


def test_a_revoked_key_stays_revoked_though_it_is_known(tmp_path: Path) -> None:
    book = keys(tmp_path, f"alpha {ED} AAAA\n@revoked * {ED} AAAA\n")
    assert book.judge(ED, "AAAA").verdict is Verdict.REVOKED


def test_another_port_falls_back_to_the_plain_name_for_trust_but_not_for_alarm(tmp_path: Path) -> None:
    book = keys(tmp_path, f"alpha {ED} AAAA\n", port=2222)
    assert book.judge(ED, "AAAA").verdict is Verdict.KNOWN
    assert book.judge(ED, "BBBB").verdict is Verdict.UNKNOWN


def test_an_alias_replaces_name_and_port(tmp_path: Path) -> None:
    book = keys(tmp_path, f"alias {ED} AAAA\nalpha {ED} BBBB\n", port=2222, alias="alias")
    assert book.judge(ED, "AAAA").verdict is Verdict.KNOWN
    assert book.judge(ED, "BBBB").verdict is Verdict.CHANGED


def test_a_file_is_looked_through_once_for_a_name_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    is_for = KnownKey.is_for

    def spy(self: KnownKey, name: str) -> bool:
        looked.append(name)
        return is_for(self, name)

    monkeypatch.setattr(KnownKey, "is_for", spy)
    found = keys(tmp_path, f"alpha {ED} AAAA\n")
    for _ in range(3):
        assert found.judge(ED, "AAAA").verdict is Verdict.KNOWN
    assert looked == ["alpha"]
    changed = keys(tmp_path, f"alpha {ED} AAAA\n@revoked alpha {ED} AAAA\n")
    assert changed.judge(ED, "AAAA").verdict is Verdict.REVOKED


@pytest.mark.parametrize("hashed", [False, True])
def test_what_is_learnt_is_known_afterwards_and_ssh_keygen_finds_it(tmp_path: Path, hashed: bool) -> None:
    file = tmp_path / "new" / "known_hosts"
    public = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(public)], check=True)
    kind, blob, *_ = Path(f"{public}.pub").read_text().split()
    HostKeys("Alpha", 2222, None, (file,), hashed=hashed).learn(kind, blob)
    again = HostKeys("alpha", 2222, None, (file,))
    assert again.judge(kind, blob).verdict is Verdict.KNOWN
    assert ("alpha" not in file.read_text()) is hashed
    found = subprocess.run(
        ["ssh-keygen", "-F", "[alpha]:2222", "-f", str(file)], capture_output=True, text=True
    )
    assert blob in found.stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_learning_mends_a_last_line_without_its_newline(tmp_path: Path) -> None:
    book = keys(tmp_path, f"beta {ED} AAAA")
    book.learn(ED, "BBBB")
    assert [line.names for line in parse_known_hosts((tmp_path / "known_hosts").read_text(), "f")] == [
        "beta",
        "alpha",
    ]


def test_what_was_learnt_into_the_void_is_still_held_to() -> None:
    book = HostKeys("alpha", 22, None, (Path("/dev/null"),))
    book.learn(ED, "AAAA")
    assert book.judge(ED, "AAAA").verdict is Verdict.KNOWN
    assert book.judge(ED, "BBBB").verdict is Verdict.CHANGED


def test_known_kinds_are_asked_for_first_and_certificates_before_them() -> None:
    rsa = parse_known_hosts(f"alpha {RSA} AAAA", "f")
    assert algorithms_for(rsa)[:2] == ["rsa-sha2-512", "rsa-sha2-256"]
    authority = parse_known_hosts(f"@cert-authority * {ED} AAAA", "f")
    assert algorithms_for(authority)[0] == "ssh-ed25519-cert-v01@openssh.com"
    assert not any("cert" in name for name in algorithms_for(()))
