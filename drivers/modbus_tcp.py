"""One Modbus TCP connection: ask, and believe only the reply to what was asked.

A reply counts when transaction, protocol, unit, function and byte count all match. Late replies of older
transactions are dropped, so a timeout needs no cure here. Hot path: two system calls, nothing allocated
per register.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from threading import Event
from typing import Final

from drivers.modbus_transport import connect, timeval
from drivers.modbus_unit import NOBODY_HOME, RefusedError, Request, Unit
from edge_agent.clock import NS, Clock
from edge_agent.errors import DeviceError, WireError
from edge_agent.vocabulary import TIMEOUT, WIRE, WRONG_REPLY

_TID: Final = struct.Struct(">H")
_MBAP: Final = struct.Struct(">HHH")
_LENGTHS: Final = range(2, 255)  # of unit, function and data, by the specification
_MOST_READS: Final = 64  # per request: a peer that floods us is dropped
_HALF_OPEN: Final = 3  # timeouts in a row, of all units together, after which a new connection is tried

Encode = Callable[[int, int, int, int], bytes]
"""Unit, function code, address, count → request frame."""


class _LostError(Exception):
    """The connection ended."""


class TcpExchange:
    """Requests and replies over one connection; reconnects once where an idle peer closed it."""

    def __init__(
        self, host: str, port: int, clock: Clock, encode: Encode, *, connect_s: float, gap_s: float, warm_up_s: float
    ) -> None:
        self._where = f"{host}:{port}"
        self._connect_to = (host, port, connect_s)
        self._clock = clock
        self._mono_ns = clock.mono_ns
        self._encode = encode
        self._gap_ns = int(gap_s * NS)
        self._warm_up_s = warm_up_s
        self._socket: socket.socket | None = None
        self._wanted = False
        self._served = False  # a reply came over this connection
        self._silent = 0
        self._tid = 0
        self._limit_ns = 0  # what the socket's receive timeout is now
        self._free_at_ns = 0
        self._buffer = bytearray(1024)  # the longest frame has 260; there may be a hundred such lines
        self._view = memoryview(self._buffer)
        self._filled = 0

    def open(self) -> None:
        self._wanted = True
        if self._socket is None:
            self._connect()

    def close(self) -> None:
        self._wanted = False
        self._disconnect()

    def request(self, unit: int, fc: int, address: int, count: int) -> Request:
        """Encode a read; only its transaction number changes later."""
        head = struct.pack(">HHBBB", 0, 3 + 2 * count, unit, fc, 2 * count)
        frame = self._encode(unit, fc, address, count)[_TID.size :]
        return Request(unit, fc, address, count, frame, 9 + 2 * count, head, bytes([unit, fc | 0x80]))

    def ask(self, request: Request, unit: Unit, limit_ns: int = 0) -> bytes | memoryview:
        """The registers' bytes, valid until the next question.

        Raises DeviceError (RefusedError for an exception reply), and WireError when the connection is gone.
        """
        unit.requests += 1
        limit_ns = limit_ns or unit.limit
        try:
            return self._ask(request, unit, limit_ns)
        except _LostError as lost:
            self._disconnect()
            if not self._served:
                raise self._gone(lost) from lost
        self._connect()
        try:
            return self._ask(request, unit, limit_ns)
        except _LostError as lost:
            self._disconnect()
            raise self._gone(lost) from lost

    def _ask(self, request: Request, unit: Unit, limit_ns: int) -> bytes | memoryview:
        link = self._socket or self._reconnect()
        if self._gap_ns:
            self._keep_gap()
        self._tid = tid = self._tid + 1 & 0xFFFF
        buffer = self._buffer
        if limit_ns != self._limit_ns:
            self._set_limit(link, limit_ns)
        began_ns = self._mono_ns()
        try:
            link.sendall(_TID.pack(tid) + request.frame)
            if not self._filled:
                got = link.recv_into(buffer)
                if got == request.size and _TID.unpack_from(buffer)[0] == tid and buffer.startswith(request.head, 2):
                    unit.answered(self._mono_ns() - began_ns)
                    self._served = True
                    self._silent = 0
                    return self._view[9:got]
                if not got:
                    raise _LostError("the connection was closed")
                self._filled = got
            body = self._assemble(link, unit, tid, began_ns + limit_ns)
            return self._judge(request, unit, body, self._mono_ns() - began_ns)
        except BlockingIOError:
            raise self._timed_out(unit, limit_ns) from None
        except DeviceError:
            raise
        except OSError as error:
            raise _LostError(error.strerror or str(error)) from error
        finally:
            self._free_at_ns = self._mono_ns() + self._gap_ns if self._gap_ns else 0

    def _assemble(self, link: socket.socket, unit: Unit, tid: int, deadline_ns: int) -> bytes:
        """The slow way, for replies in pieces or late ones before ours: unit, function and data of our transaction."""
        for _ in range(_MOST_READS):
            while (frame := self._next_frame(unit)) is not None:
                if frame[0] == tid:
                    return frame[1]
                unit.late += 1
            left_ns = deadline_ns - self._mono_ns()
            if left_ns <= 0:
                raise BlockingIOError
            self._set_limit(link, left_ns)
            got = link.recv_into(self._view[self._filled :])
            if not got:
                raise _LostError("the connection was closed")
            self._filled += got
        raise self._nonsense(unit, "sends without end")

    def _next_frame(self, unit: Unit) -> tuple[int, bytes] | None:
        """Take one whole frame out of the buffer: its transaction, and unit, function and data."""
        if self._filled < _MBAP.size:
            return None
        tid, protocol, length = _MBAP.unpack_from(self._buffer)
        if protocol or length not in _LENGTHS:
            raise self._nonsense(unit, f"sends protocol {protocol}, length {length}")
        end = _MBAP.size + length
        if self._filled < end:
            return None
        body = bytes(self._view[_MBAP.size : end])
        rest = bytes(self._view[end : self._filled])
        self._view[: len(rest)] = rest
        self._filled = len(rest)
        return tid, body

    def _judge(self, request: Request, unit: Unit, body: bytes, took_ns: int) -> bytes:
        self._served = True
        self._silent = 0
        if len(body) == request.size - _MBAP.size and body.startswith(request.head[4:]):
            unit.answered(took_ns)
            return body[3:]
        if len(body) == 3 and body.startswith(request.refused):
            unit.refused(body[2])
            if body[2] not in NOBODY_HOME:
                unit.answered(took_ns)
            raise RefusedError(request.unit, body[2])
        unit.wrong += 1
        raise DeviceError(
            WRONG_REPLY,
            f"unit {request.unit} answered something else ({body[:8].hex(' ')} …)",
            hint="does the gateway mix up its units?",
        )

    def _timed_out(self, unit: Unit, limit_ns: int) -> DeviceError:
        unit.silent()
        self._silent += 1
        if self._filled or self._silent >= _HALF_OPEN:
            # Half a reply leaves the stream out of step, which would cost the next unit its answer. Where nobody
            # at all answers, the peer may have restarted without telling us. The next question reconnects.
            self._disconnect()
        return DeviceError(
            TIMEOUT,
            f"unit {unit.number} at {self._where} does not answer within {limit_ns // 1_000_000} ms",
            hint="is the unit id right, and the device on? a slow one needs a higher `timeout_floor`",
        )

    def _nonsense(self, unit: Unit, what: str) -> DeviceError:
        """What follows cannot be trusted either: start afresh at the next question."""
        unit.wrong += 1
        self._disconnect()
        hint = "is this Modbus TCP? a serial gateway in raw mode needs kind modbus-rtu-over-tcp"
        return DeviceError(WRONG_REPLY, f"{self._where} {what}", hint=hint)

    def _gone(self, lost: _LostError) -> WireError:
        hint = "many devices take only one or two masters: does another one hold the connection?"
        return WireError(WIRE, f"{self._where}: {lost}", hint=hint)

    def _reconnect(self) -> socket.socket:
        if not self._wanted:
            raise WireError(WIRE, f"{self._where} is closed")
        return self._connect()

    def _connect(self) -> socket.socket:
        self._socket = connect(*self._connect_to)
        self._served = False
        self._silent = self._filled = self._limit_ns = 0
        if self._warm_up_s:
            self._clock.wait(Event(), self._warm_up_s)
        return self._socket

    def _disconnect(self) -> None:
        link, self._socket = self._socket, None
        if link is not None:
            link.close()

    def _set_limit(self, link: socket.socket, limit_ns: int) -> None:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(limit_ns / NS))
        self._limit_ns = limit_ns

    def _keep_gap(self) -> None:
        wait_ns = self._free_at_ns - self._mono_ns()
        if wait_ns > 0:
            self._clock.wait(Event(), wait_ns / NS)
