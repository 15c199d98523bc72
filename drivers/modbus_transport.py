"""Bytes to and from a serial port or a TCP connection. Knows nothing of Modbus.

Whatever fails here closes the descriptor at once (so that the kernel can give a re-plugged adapter its
old name again) and is a WireError that says what to do. The path is followed afresh at every open.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import termios
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from edge_agent.errors import WireError
from edge_agent.vocabulary import BUSY, NOTHING_THERE, PERMISSION, WIRE

_AT_ONCE: Final = 4096  # bytes per read
_WRITE_PATIENCE_S: Final = 1.0
_BY_ID: Final = Path("/dev/serial/by-id")


class Port(Protocol):
    """A byte pipe. Every method raises WireError when the pipe is gone; it is closed then."""

    @property
    def is_open(self) -> bool: ...

    def open(self) -> None:
        """Open it; harmless when open."""
        ...

    def close(self) -> None: ...

    def write(self, data: bytes) -> None: ...

    def read(self, timeout_s: float) -> bytes:
        """What has arrived, as soon as anything has; nothing when nothing came in time."""
        ...


class _Descriptor:
    """Reading and writing, the same for a terminal and a socket."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._fd = -1
        self._poll = select.poll()

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    def close(self) -> None:
        raise NotImplementedError

    def read(self, timeout_s: float) -> bytes:
        self._check_open()
        try:
            if not self._poll.poll(max(0.0, timeout_s) * 1000):
                return b""
            data = os.read(self._fd, _AT_ONCE)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise self._lost(error.strerror or str(error)) from error
        if not data:
            raise self._lost("closed by the other side")
        return data

    def write(self, data: bytes) -> None:
        self._check_open()
        rest = memoryview(data)
        try:
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:
                    if not select.select([], [self._fd], [], _WRITE_PATIENCE_S)[1]:
                        raise self._lost("takes no more bytes") from None
        except OSError as error:
            if isinstance(error, WireError):
                raise
            raise self._lost(error.strerror or str(error)) from error

    def _opened(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def _check_open(self) -> None:
        if self._fd < 0:
            raise WireError(WIRE, f"{self._name} is closed")

    def _lost(self, why: str) -> WireError:
        self.close()
        return WireError(WIRE, f"{self._name}: {why}")


@dataclass(frozen=True, slots=True)
class Rs485:
    """The UART's own direction control: seconds between RTS and the first bit, and after the last."""

    before_s: float
    after_s: float


class SerialPort(_Descriptor):
    """A serial port by path, for us alone."""

    def __init__(
        self, path: str, *, baudrate: int, parity: str, stopbits: int, bytesize: int, rs485: Rs485 | None = None
    ) -> None:
        super().__init__(path)
        self._path = path
        self._line = {"baudrate": baudrate, "parity": parity, "stopbits": stopbits, "bytesize": bytesize}
        self._rs485 = rs485
        self._serial: Any = None

    def open(self) -> None:
        if self._serial is not None:
            return
        import serial.rs485  # noqa: PLC0415 - a line of TCP meters does not pay for it

        try:
            port = serial.Serial(self._path, timeout=0, exclusive=True, **self._line)
        except (OSError, ValueError, termios.error) as error:
            raise self._refused(error) from error
        self._serial = port
        self._opened(port.fileno())
        with suppress(OSError):  # flock keeps out those who ask; this keeps out the rest
            fcntl.ioctl(self._fd, termios.TIOCEXCL)
        if self._rs485 is not None:
            mode = serial.rs485.RS485Settings(delay_before_tx=self._rs485.before_s, delay_before_rx=self._rs485.after_s)
            try:
                port.rs485_mode = mode
            except (OSError, ValueError) as error:
                self.close()
                hint = "most USB adapters switch direction by themselves: remove `rs485`"
                raise WireError(WIRE, f"{self._path} has no RS-485 mode", hint=hint) from error

    def close(self) -> None:
        port, self._serial = self._serial, None
        if port is not None:
            with suppress(OSError):  # a pseudo-terminal would stay exclusive beyond our close
                fcntl.ioctl(self._fd, termios.TIOCNXCL)
            with suppress(OSError):
                port.close()
        self._fd = -1

    def _refused(self, error: Exception) -> WireError:
        number = getattr(error, "errno", None)
        if number in (errno.EBUSY, errno.EAGAIN):
            owner = _owner(self._path)
            return WireError(BUSY, f"{self._path} is in use", hint=f"stop {owner}, or name another port")
        if number in (errno.EACCES, errno.EPERM):
            hint = "the user needs the group dialout: sudo usermod -aG dialout USER, then log in again"
            return WireError(PERMISSION, f"{self._path}: not allowed", hint=hint)
        if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            there = sorted(str(path) for path in _BY_ID.glob("*")) if _BY_ID.is_dir() else []
            hint = f"present: {', '.join(there)}" if there else "no USB serial adapter is plugged in"
            return WireError(NOTHING_THERE, f"{self._path} is not there", hint=hint)
        return WireError(WIRE, f"{self._path} cannot be opened as a serial port: {error}")


def _owner(path: str) -> str:
    """Who has a device file open, as far as we may see."""
    real = os.path.realpath(path)
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if link.parts[2] != str(os.getpid()) and str(link.readlink()) == real:
                name = Path("/proc", link.parts[2], "comm").read_text().strip()
                return f"{name} (process {link.parts[2]})"
    return "the program that holds it"


def connect(host: str, port: int, timeout_s: float) -> socket.socket:
    """A TCP connection without delay and without time limits of its own; bounded also where SYNs vanish."""
    where = f"{host}:{port}"
    try:
        link = socket.create_connection((host, port), timeout=timeout_s)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(timeout_s))
        link.settimeout(None)
    except TimeoutError as error:
        hint = "check address, cable, power and firewall"
        raise WireError(WIRE, f"{where} does not answer within {timeout_s:g} s", hint=hint) from error
    except ConnectionRefusedError as error:
        hint = "is Modbus TCP enabled there, on this port? Many devices take only one or two masters"
        raise WireError(WIRE, f"{where} refuses the connection", hint=hint) from error
    except socket.gaierror as error:
        raise WireError(WIRE, f"{host!r} is no known host", hint="use its IP address, or check DNS") from error
    except OSError as error:
        raise WireError(WIRE, f"{where}: {error.strerror or error}", hint="check the network") from error
    return link


def timeval(seconds: float) -> bytes:
    """``struct timeval`` for SO_RCVTIMEO and SO_SNDTIMEO; never zero, which would mean forever."""
    micros = max(1, int(seconds * 1_000_000))
    return struct.pack("@ll", micros // 1_000_000, micros % 1_000_000)


class SocketPort(_Descriptor):
    """A TCP connection as a byte pipe."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        super().__init__(f"{host}:{port}")
        self._address = (host, port, timeout_s)
        self._socket: socket.socket | None = None

    def open(self) -> None:
        if self._socket is None:
            self._socket = connect(*self._address)
            self._opened(self._socket.fileno())

    def close(self) -> None:
        link, self._socket = self._socket, None
        if link is not None:
            link.close()
        self._fd = -1
