"""What OpenSSH's configuration says counts; what it gets wrong is told with file and line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pegasus_py.errors import NodeError
from pegasus_py.node.hostkeys import KnownKey
from pegasus_py.node.sshconfig import Destination, Route, config_files, parse_destination, resolve


def route(home: Path, config: str, written: str = "alpha") -> Route:
    ssh = home / ".ssh"
    ssh.mkdir(exist_ok=True)
    (ssh / "config").write_text(config)
    pins: dict[str, KnownKey] = {}
    return resolve(written, [ssh / "config"], pins=pins)


def complaint(home: Path, config: str, written: str = "alpha") -> str:
    with pytest.raises(NodeError) as caught:
        route(home, config, written)
    assert not caught.value.transient
    assert "\n" not in str(caught.value)
    return caught.value.what


@pytest.mark.parametrize(
    ("text", "hop", "expected"),
    [
        ("alpha", False, Destination("alpha")),
        ("me@alpha", False, Destination("alpha", "me")),
        ("me@corp@alpha", False, Destination("alpha", "me@corp")),
        ("::1", False, Destination("::1")),
        ("ssh://me@alpha:2222", False, Destination("alpha", "me", 2222)),
        ("ssh://[::1]:2222", False, Destination("::1", None, 2222)),
        ("me@alpha:2222", True, Destination("alpha", "me", 2222)),
        ("[::1]:22", True, Destination("::1", None, 22)),
    ],
)
def test_destinations(text: str, hop: bool, expected: Destination) -> None:
    assert parse_destination(text, hop=hop) == expected


@pytest.mark.parametrize("text", ["", "@alpha", "-oProxyCommand=evil", "a b", "me@-x", "alpha/beta"])
def test_what_is_no_destination(home: Path, text: str) -> None:
    assert "is no host name" in complaint(home, "", text)


def test_the_first_value_counts_and_the_user_may_be_in_the_name(home: Path) -> None:
    config = "Host alpha\n  HostName 192.0.2.1\n  Port 2222\n  User ann\nHost *\n  Port 1\n  User bob\n"
    found = route(home, config)
    assert (found.host, found.port, found.user) == ("192.0.2.1", 2222, "ann")
    assert route(home, config, "eve@alpha").user == "eve"
    assert route(home, config, "ssh://alpha:7").port == 7


def test_match_and_include(home: Path) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh/more").write_text("Host al*\n  Port 2022\n")
    config = "Include more\nMatch host alpha\n  User matched\nMatch user matched\n  ConnectTimeout 3\n"
    found = route(home, config)
    assert (found.port, found.user, found.connect_timeout) == (2022, "matched", 3.0)
    assert route(home, config, "beta").port == 22


def test_keepalive(home: Path) -> None:
    config = "Host alpha\n  ServerAliveInterval 1\n  ServerAliveCountMax 2\nHost *\n  ServerAliveInterval 0\n"
    found = route(home, config)
    assert (found.alive_interval, found.alive_count) == (1.0, 2)
    found = route(home, config, "beta")
    assert (found.alive_interval, found.alive_count) == (None, None)


def test_match_exec_and_final(home: Path) -> None:
    config = 'Match host alpha exec "true"\n  Port 2001\nMatch final host alpha\n  User last\n'
    found = route(home, config)
    assert (found.port, found.user) == (2001, "last")


def test_known_hosts_paths_are_expanded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "/w")
    config = "Host *\n  UserKnownHostsFile ~/a %d/b/%h-%p ${WHERE}/c\n  GlobalKnownHostsFile /g/%n\n"
    keys = route(home, config).host_keys
    assert keys.user_files == (home / "a", home / "b/alpha-22", Path("/w/c"))
    assert keys.global_files == (Path("/g/alpha"),)


def test_default_known_hosts_are_those_of_ssh(home: Path) -> None:
    keys = route(home, "").host_keys
    assert keys.user_files == (home / ".ssh/known_hosts", home / ".ssh/known_hosts2")
    assert Path("/etc/ssh/ssh_known_hosts") in keys.global_files


def test_identity_files_that_are_missing_are_no_fault(home: Path) -> None:
    found = route(home, "IdentityFile ~/.ssh/nowhere\nIdentitiesOnly yes\n")
    assert found.missing == (f"{home}/.ssh/nowhere",)
    assert found.keys == ()
    assert found.login["agent_path"] == ""


def test_proxy_jump_is_a_list_of_hops_and_none_is_none(home: Path) -> None:
    assert route(home, "ProxyJump me@one:2222,two\n").jumps == ("me@one:2222", "two")
    assert route(home, "ProxyJump none\nHost *\n ProxyJump one\n").jumps == ()


def test_ciphers_of_the_configuration_win_over_ours(home: Path) -> None:
    assert route(home, "").login["encryption_algs"][0] == "aes128-gcm@openssh.com"
    assert "encryption_algs" not in route(home, "Ciphers aes256-ctr\n").login


@pytest.mark.parametrize(
    ("config", "line", "what"),
    [
        ("Host *\n  Port many\n", 2, "Invalid Port integer value"),
        ("Host *\n\nMatch strange yes\n", 3, "Invalid match condition strange"),
        ('Host "alpha\n', 1, "No closing quotation"),
        ("Host *\n  IdentityFile ${NOT_SET}/id\n", 2, "the variable ${NOT_SET} is not set"),
        ("Host *\n  IdentityFile ~/%q\n", 2, "%q cannot be expanded here"),
        ("Host *\n  UserKnownHostsFile ~/%q\n", 2, "%q cannot be expanded here"),
    ],
)
def test_faults_are_told_with_file_and_line(home: Path, config: str, line: int, what: str) -> None:
    said = complaint(home, config)
    assert said.startswith(f"{home}/.ssh/config:{line}: ")
    assert what in said


def test_a_configuration_that_cannot_be_read_is_named(home: Path) -> None:
    with pytest.raises(NodeError, match="cannot read /nowhere/config: No such file"):
        resolve("alpha", [Path("/nowhere/config")], pins={})


def test_which_files_count(home: Path) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh/config").write_text("")
    assert config_files()[0] == home / ".ssh/config"
    assert config_files(Path("/x")) == [Path("/x")]
    assert (Path("/etc/ssh/ssh_config") in config_files()) is os.path.isfile("/etc/ssh/ssh_config")  # noqa: PTH113
