"""What systemd wants to know (sd_notify(3)): one datagram per message, nothing where nobody asked.

Only the daemon itself calls these (``NotifyAccess=main``). None of them raises: a supervisor that
does not listen must not stop the work.
"""

from __future__ import annotations

import os
import socket


def ready(status: str = "") -> None:
    """Start-up is complete: the config is valid and the database open."""
    _send("READY=1", *([f"STATUS={_one_line(status)}"] if status else []))


def stopping() -> None:
    """Shutdown has begun."""
    _send("STOPPING=1")


def status(text: str) -> None:
    """One line for ``systemctl status``."""
    _send(f"STATUS={_one_line(text)}")


def watchdog() -> None:
    """Still making progress. Call it after a look at every worker, never from a timer of its own."""
    _send("WATCHDOG=1")


def watchdog_interval_s() -> float | None:
    """How often to call :func:`watchdog`: half of what systemd waits. None when it does not watch us."""
    try:
        allowed_us = int(os.environ.get("WATCHDOG_USEC", "0"))
        watched = int(os.environ.get("WATCHDOG_PID", str(os.getpid()))) == os.getpid()
    except ValueError:
        return None
    return allowed_us / 2e6 if watched and allowed_us > 0 else None


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _send(*lines: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # an abstract socket has a zero byte where we write @
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as speaker:
            speaker.sendto("\n".join(lines).encode(errors="replace"), address)
    except (OSError, ValueError):
        pass
