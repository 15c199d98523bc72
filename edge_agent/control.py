"""How the command line asks the running daemon: a Unix socket, a question and its answer per connection, as JSON.

Only the daemon's own user, root and members of its group get in (peer credentials); nothing else listens.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import structlog

from edge_agent.errors import EdgeAgentError
from edge_agent.payload import json_object

log = structlog.get_logger("control")

_LINE_MAX: Final = 65_536
_PATIENCE_S: Final = 10.0  # for a question to be asked, and for its answer to be taken
_AGAIN_S: Final = 1.0

Answer = Callable[[dict[str, Any]], dict[str, Any]]


class UnreachableError(EdgeAgentError, ConnectionError):
    """No daemon answers at the socket."""


def socket_path(state_dir: Path) -> Path:
    """Where the daemon of this state folder listens."""
    runtime = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if runtime:
        return Path(runtime) / "control.sock"
    service = Path("/run/edge-agent/control.sock")
    if state_dir == Path("/var/lib/edge-agent"):
        try:
            if service.exists():
                return service
        except PermissionError:
            return service  # whoever asks there is told what is missing
    return state_dir / "control.sock"


class ControlServer:
    """The listening side. ``answer(question)`` is called in the server's thread."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self._path = path
        self._answer = answer
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Listen; raises OSError."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            # An AF_UNIX address holds 107 bytes; a deep state folder is reached through its descriptor.
            with _short(self._path) as address:
                self._path.unlink(missing_ok=True)
                listener.bind(address)
            self._path.chmod(0o660)
            listener.listen(8)
        except OSError:
            listener.close()
            raise
        self._socket = listener

    def body(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """One question at a time: nobody needs more of a control socket."""
        listener = self._socket
        if listener is None:
            return
        listener.settimeout(5.0)
        while not stop.is_set():
            progress()
            try:
                peer, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                if listener.fileno() < 0:
                    return  # closed: it is time to stop
                stop.wait(_AGAIN_S)  # too many open files, most likely
                continue
            with peer:
                self._serve(peer)

    def _serve(self, peer: socket.socket) -> None:
        if not _may_ask(peer):
            log.warning("control refused", uid=_credentials(peer)[1])
            return
        try:
            if question := _question(peer):
                peer.settimeout(_PATIENCE_S)
                peer.sendall(json.dumps(self._reply(question), default=str).encode() + b"\n")
        except OSError:
            return  # it hung up, or takes too long

    def _reply(self, line: bytes) -> dict[str, Any]:
        try:
            return {"ok": True, **self._answer(json_object(line))}
        except (ValueError, EdgeAgentError) as error:
            return {"ok": False, "error": str(error)}

    def close(self) -> None:
        """Stop listening; wakes the thread that waits for a caller."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            self._path.unlink(missing_ok=True)


def _question(peer: socket.socket) -> bytes:
    """One line. Its time is that of the whole line: who sends it byte by byte holds up nobody for long."""
    deadline = time.monotonic() + _PATIENCE_S
    found = b""
    while b"\n" not in found and len(found) < _LINE_MAX:
        peer.settimeout(max(0.001, deadline - time.monotonic()))
        part = peer.recv(_LINE_MAX)
        if not part:
            break
        found += part
    return found.partition(b"\n")[0]


def ask(path: Path, question: dict[str, Any], timeout_s: float = 10.0) -> dict[str, Any]:
    """Ask the daemon; raises UnreachableError when none answers, EdgeAgentError when it refuses."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer, _short(path) as address:
            peer.settimeout(timeout_s)
            peer.connect(address)
            with peer.makefile("rwb") as lines:
                lines.write(json.dumps(question).encode() + b"\n")
                lines.flush()
                line = lines.readline()
    except PermissionError as error:
        raise UnreachableError(
            f"not allowed to ask the daemon at {path}", hint="run it with sudo, or join the group edge-agent"
        ) from error
    except OSError as error:
        raise UnreachableError(
            f"no daemon answers at {path}", hint="is it running? systemctl status edge-agent"
        ) from error
    if not line:
        raise UnreachableError(f"the daemon at {path} hung up", hint="it accepts its own user, root and its group only")
    reply: dict[str, Any] = json.loads(line)
    if not reply.pop("ok", False):
        raise EdgeAgentError(str(reply.get("error", "refused")))
    return reply


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _credentials(peer: socket.socket) -> tuple[int, int, int]:
    """pid, uid and gid of the caller, from the kernel."""
    pid, uid, gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return pid, uid, gid


def _may_ask(peer: socket.socket) -> bool:
    # The socket's mode (0660) already keeps out whoever is not of the group; this is the second lock.
    _, uid, gid = _credentials(peer)
    if uid in {0, os.getuid()} or gid == os.getgid():
        return True
    import grp  # noqa: PLC0415
    import pwd  # noqa: PLC0415

    try:
        return pwd.getpwuid(uid).pw_name in grp.getgrgid(os.getgid()).gr_mem
    except KeyError:
        return False
