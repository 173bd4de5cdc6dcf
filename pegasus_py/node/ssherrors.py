"""Why a connection could not be made, in words, and whether trying again may help.

Imports asyncssh, so it is itself imported only when there is something to explain.
"""

from __future__ import annotations

import shlex
import socket

import asyncssh

from pegasus_py.errors import NodeError
from pegasus_py.node.hostkeys import Verdict
from pegasus_py.node.sshconfig import Route
from pegasus_py.node.sshlink import Link

_DEFAULT_KEYS = "the default keys in ~/.ssh"


def dropped_early(error: Exception, link: Link) -> bool:
    """Whether the server hung up before the handshake, as sshd does when too many log in at once."""
    gone = isinstance(error, asyncssh.ConnectionLost | ConnectionResetError | BrokenPipeError)
    return gone and not link.handshaken and link.finding is None


def explain(error: Exception, route: Route, link: Link, name: str) -> NodeError:
    """The NodeError for what `asyncssh.connect` raised. `name` is how the user calls the node."""
    if key_trouble := _about_host_key(route, link):
        is_changed = link.finding is not None and link.finding.verdict is Verdict.CHANGED
        return NodeError(name, key_trouble, transient=False, hopeless=is_changed)
    what, transient = _in_words(error, route, link)
    return NodeError(name, what, transient=transient)


def _in_words(error: Exception, route: Route, link: Link) -> tuple[str, bool]:
    at = route.address
    match error:
        case TimeoutError() if link.handshaken:
            return f"logging in to {at} took too long", True
        case TimeoutError():
            return f"no SSH answer from {at} in time", True
        case socket.gaierror():
            return f"the name {route.host!r} cannot be resolved ({error.strerror})", True
        case ConnectionRefusedError():
            return f"connection refused by {at}: is sshd running there?", True
        case asyncssh.PermissionDenied():
            return _permission_denied(route), False
        case asyncssh.HostKeyNotVerifiable():
            lines = [str(key.place) for key in route.host_keys.revoked()] if "revoked" in error.reason else []
            where = f" (see {', '.join(lines)})" if lines else ""
            return f"host key not accepted: {error.reason}{_shown(link)}{where}", False
        case asyncssh.KeyExchangeFailed():
            return f"{at} and we have no algorithm in common: {error.reason}", False
        case asyncssh.ProtocolNotSupported():
            return f"{at} does not speak SSH 2: {error.reason}", False
        case asyncssh.ChannelOpenError():
            return f"the jump host {route.jumps[-1]} cannot reach {at}: {error.reason}", True
        case asyncssh.KeyImportError() | asyncssh.KeyEncryptionError():
            return f"a key file cannot be used: {error}", False
        case _ if dropped_early(error, link):
            return (
                f"{at} closes new connections at once (too many logins at a time, or we are not welcome)",
                True,
            )
        case OSError() if error.filename:
            return f"cannot read {error.filename}: {error.strerror}", False
        case OSError():
            return f"cannot connect to {at}: {error.strerror or error}", True
        case asyncssh.Error():
            return f"{at} ended the connection: {error.reason or type(error).__name__}", True
        case _:
            return f"the ssh configuration is not usable: {error}", False


def _permission_denied(route: Route) -> str:
    offered = _DEFAULT_KEYS if route.keys is None else ", ".join(route.keys) or "no key file"
    what = f"permission denied for user {route.user!r}; offered: {offered}"
    if route.login.get("agent_path") != "":
        what += " and the agent's keys"
    if encrypted := [file for file in route.keys or () if _is_encrypted(file)]:
        what += f"; {', '.join(encrypted)} has a passphrase: give it to the agent with ssh-add"
    if route.missing:
        what += f"; not there: {', '.join(route.missing)}"
    return what


def _is_encrypted(file: str) -> bool:
    try:
        asyncssh.read_private_key(file)
    except (asyncssh.KeyEncryptionError, asyncssh.KeyImportError) as error:
        return "assphrase" in str(error)
    except OSError:
        pass
    return False


def _shown(link: Link) -> str:
    return f" (it showed {link.fingerprint})" if link.fingerprint else ""


def _about_host_key(route: Route, link: Link) -> str | None:
    """What is wrong with the host key, or None if it is not what stopped us."""
    keys, found = route.host_keys, link.finding
    if link.learning_failed is not None:
        error = link.learning_failed
        return f"the new host key cannot be written to {error.filename}: {error.strerror}"
    if found is None or found.verdict is Verdict.KNOWN:
        return None
    if found.verdict is Verdict.UNKNOWN and link.handshaken:
        return None
    if found.verdict is Verdict.CHANGED:
        place = found.place
        file = f" -f {shlex.quote(place.file)}" if place and place.line else ""
        return (
            f"HOST KEY CHANGED: it is now {link.fingerprint}, but {place} has another one. Someone may be "
            f"listening in; if the change is right: ssh-keygen -R {shlex.quote(keys.name)}{file}"
        )
    if route.jumps or not keys.user_files:
        learn = f"log in once with: ssh {shlex.quote(route.written)}"
    else:
        port = f" -p {route.port}" if route.port != 22 else ""
        learn = f"add it with: ssh-keyscan{port} {shlex.quote(route.host)} >> {shlex.quote(str(keys.user_files[0]))}"
        if keys.alias:
            learn = f"log in once with: ssh {shlex.quote(route.written)}"
    return f"host key not known ({link.fingerprint}); compare it, then {learn}, or let --accept-new learn it"
