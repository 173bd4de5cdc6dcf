"""OpenSSH's configuration: what `Host`, `Match`, `Include` and the rest say of one destination.

asyncssh reads the files; what it leaves out or gets wrong for us is done here: tokens and `~` in known_hosts paths,
identity files that do not exist (ssh skips them, asyncssh fails), HashKnownHosts, and errors that name file and line.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from msgspec import Struct

from pegasus_py.errors import NodeError
from pegasus_py.node.hostkeys import HostKeys, KnownKey, algorithms_for

USER_CONFIG = "~/.ssh/config"
SYSTEM_CONFIG = "/etc/ssh/ssh_config"
USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")


class Destination(Struct, frozen=True):
    """Where somebody wants to go, as written: `host`, `user@host` or `ssh://user@host:port`."""

    host: str
    user: str | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A destination after the configuration has been asked.

    `asked` is the host as written, without user and port; `jumps` are the hops of ProxyJump as written. `login` are
    arguments for asyncssh about keys and algorithms. `keys` are the files that will be offered (None: the default
    ones), `missing` those that are named but not there. `connect_timeout` and `alive_interval` are in seconds, and
    `alive_count` is how many questions may stay unanswered (None: not said). `read` is the configuration as asyncssh
    has read it, so that not every connection reads it again; None where it depends on what is found on the way.
    """

    written: str
    asked: str
    host: str
    port: int
    user: str
    host_keys: HostKeys
    jumps: tuple[str, ...] = ()
    connect_timeout: float | None = None
    alive_interval: float | None = None
    alive_count: int | None = None
    keys: tuple[str, ...] | None = None
    missing: tuple[str, ...] = ()
    login: Mapping[str, Any] = field(default_factory=dict)
    read: Any = field(default=None, repr=False, compare=False)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


def parse_destination(text: str, *, hop: bool = False) -> Destination:
    """Read `[user@]host`, `ssh://[user@]host[:port]` and, for a hop of ProxyJump, `[user@]host[:port]`.

    ValueError in words if it is none of these.
    """
    with_port = hop
    rest = text
    if text.startswith("ssh://"):
        rest, with_port = text[len("ssh://") :].rstrip("/"), True
    user, at, host = rest.rpartition("@")
    port = None
    if with_port and (found := re.fullmatch(r"\[([^]]+)\](?::(\d+))?|([^:]+)(?::(\d+))?", host)):
        host = found[1] or found[3]
        port = int(found[2] or found[4] or 0) or None
    if not host or host.startswith("-") or (at and not user) or re.search(r"[\s/]", host):
        raise ValueError(f"{text!r} is no host name; write HOST, USER@HOST or ssh://USER@HOST:PORT")
    return Destination(host, user or None, port)


def config_files(override: Path | None = None) -> list[Path]:
    """The files that count: the given one alone (as with `ssh -F`), else the user's and then the system's."""
    candidates = [override] if override else [Path(USER_CONFIG).expanduser(), Path(SYSTEM_CONFIG)]
    return [file for file in candidates if override or file.is_file()]


def resolve(written: str, files: Sequence[Path], *, hop: bool = False, pins: dict[str, KnownKey]) -> Route:
    """Ask the configuration. Blocks (files, and commands of `Match exec`). NodeError, not transient, if it is bad."""
    from pegasus_py.node.sshimport import asyncssh

    try:
        to = parse_destination(written, hop=hop)
        arguments: dict[str, Any] = {"config": [str(f) for f in files], "host": to.host, "gss_host": None}
        if to.user:
            arguments["username"] = to.user
        if to.port:
            arguments["port"] = to.port
        # Without keys: they are looked at later, and a missing file is no fault.
        arguments |= {"client_keys": None, "known_hosts": b"", "agent_path": None, "pkcs11_provider": None}
        # OpenSSH knows no X.509, so a file with that name in ~/.ssh is not meant for us.
        arguments["x509_trusted_certs"] = None
        options = asyncssh.SSHClientConnectionOptions(**arguments)
        if options.config.has_match_final():
            options = asyncssh.SSHClientConnectionOptions(**arguments, final=True)
        return _route(written, to, options, files, pins)
    except OSError as error:
        what = f"cannot read {error.filename}: {error.strerror}"
    except (ValueError, asyncssh.Error) as error:
        what = _explain(str(error), files)
    raise NodeError(written, what, transient=False)


def _route(
    written: str, to: Destination, options: Any, files: Sequence[Path], pins: dict[str, KnownKey]
) -> Route:
    get = cast(Callable[..., Any], options.config.get)
    host, port, user = str(options.host), int(options.port), str(options.username)
    tokens = {
        "%": "%",
        "d": str(Path("~").expanduser()),
        "h": host,
        "i": str(os.getuid()),
        "k": get("HostKeyAlias") or to.host,
        "l": socket.gethostname(),
        "L": socket.gethostname().partition(".")[0],
        "n": to.host,
        "p": str(port),
        "r": user,
        "u": os.environ.get("USER") or user,
    }

    def paths(option: str, default: Sequence[str]) -> tuple[Path, ...]:
        return tuple(Path(_expand(p, tokens)).expanduser() for p in get(option, default))

    host_keys = HostKeys(
        host,
        port,
        get("HostKeyAlias"),
        paths("UserKnownHostsFile", USER_KNOWN_HOSTS),
        paths("GlobalKnownHostsFile", GLOBAL_KNOWN_HOSTS),
        _hash_known_hosts(files),
        pins,
    )
    login, keys, missing = _identities(get)
    if not get("Ciphers"):
        login["encryption_algs"] = CIPHERS
    if not get("HostKeyAlgorithms"):
        login["server_host_key_algs"] = algorithms_for(host_keys.lines())
    jumps = tuple(hop.strip() for hop in str(options.tunnel).split(",")) if options.tunnel else ()
    depends = options.canonicalize_hostname or options.config.has_match_final()
    return Route(
        written,
        to.host,
        host,
        port,
        user,
        host_keys,
        jumps,
        connect_timeout=float(get("ConnectTimeout") or 0) or None,
        # 0 is ssh's default, "never ask": but a connection that nobody asks after would be waited for forever.
        alive_interval=float(get("ServerAliveInterval") or 0) or None,
        alive_count=get("ServerAliveCountMax"),
        keys=keys,
        missing=missing,
        login=login,
        read=None if depends else options,
    )


CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
"""AES-GCM first: it costs 70 % of the CPU that chacha20, asyncssh's first choice, does."""


def _identities(get: Callable[..., Any]) -> tuple[dict[str, Any], tuple[str, ...] | None, tuple[str, ...]]:
    """What to tell asyncssh of keys; the files that will be offered (None: the default ones); those not there."""
    login: dict[str, Any] = {
        "ignore_encrypted": True,
        "client_keys": (),
        "agent_path": (),
        "agent_identities": (),
    }
    agent = get("IdentityAgent", ())
    if agent in ("SSH_AUTH_SOCK", "$SSH_AUTH_SOCK"):
        login["agent_path"] = os.environ.get("SSH_AUTH_SOCK", "")
    named = get("IdentityFile")
    if not named:
        return login, None, ()
    files = [str(Path(name).expanduser()) for name in named]
    private = [file for file in files if _is_private_key(file)]
    public = [p for file in files for p in (f"{file}.pub", file) if p.endswith(".pub") and Path(p).is_file()]
    login["client_keys"] = private
    if get("IdentitiesOnly"):
        login["agent_identities"] = public
        if not public:
            login["agent_path"] = ""
    else:
        login["agent_identities"] = None
    missing = tuple(file for file in files if not Path(file).exists() and not Path(f"{file}.pub").exists())
    return login, tuple(private), missing


def _is_private_key(file: str) -> bool:
    try:
        return b"PRIVATE KEY" in Path(file).read_bytes()[:4096]
    except OSError:
        return False


def _expand(text: str, tokens: Mapping[str, str]) -> str:
    """Expand %-tokens and ${VARIABLES} as ssh does; ValueError in the words that asyncssh uses."""

    def token(found: re.Match[str]) -> str:
        if found[1] not in tokens:
            raise ValueError(f"Invalid token expansion: {found[1]}")
        return tokens[found[1]]

    def variable(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise ValueError(f"Invalid environment expansion: {found[1]}")
        return os.environ[found[1]]

    return re.sub(r"\$\{(.*?)\}", variable, re.sub(r"%(.)", token, text))


def _hash_known_hosts(files: Sequence[Path]) -> bool:
    """Whether the first HashKnownHosts in the files, of whatever block, says yes: hashing too much does no harm."""
    for file in files:
        found = re.search(r"(?im)^\s*HashKnownHosts[\s=]+\"?(\w+)", file.read_text(errors="replace"))
        if found:
            return found[1].lower() in ("yes", "true")
    return False


def _explain(message: str, files: Sequence[Path]) -> str:
    """asyncssh's complaint with the file and the line in front, where they can be found."""
    if found := re.fullmatch(r"(.+) line (\d+): (.*)", message, re.DOTALL):
        return f"{found[1]}:{found[2]}: {found[3]}"
    for pattern, form, what in (
        (r"Invalid token expansion: (.*)", "%{}", "{} cannot be expanded here"),
        (r"Invalid environment expansion: (.*)", "${{{}}}", "the variable {} is not set"),
    ):
        if found := re.fullmatch(pattern, message):
            text = form.format(found[1])
            return _place_of(text, files) + what.format(text)
    return message if "host name" in message else f"the ssh configuration is not usable: {message}"


def _place_of(text: str, files: Sequence[Path]) -> str:
    for file in files:
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
            if text in line:
                return f"{file}:{number}: "
    return "ssh configuration: "
