"""The far end of a Modbus wire: one thread that answers for twins, on a TCP port or a pseudo-terminal.

What goes wrong on a wire happens here; what goes wrong inside a meter happens in the twin.
"""

from __future__ import annotations

import heapq
import os
import random
import selectors
import socket
import struct
import threading
import tty
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

from drivers.simulated.meter import MeterTwin
from edge_agent.clock import NS, Clock

_NO_TARGET: Final = 0x0B  # a gateway whose unit does not answer
_TICK_S: Final = 0.05  # how soon a scripted disconnect is noticed
_NOISE: Final = 5  # bytes


class Question(NamedTuple):
    """A request: ``mark`` is its transaction (TCP), ``pdu`` begins with the function code."""

    mark: int
    unit: int
    pdu: bytes


def crc16(data: bytes | bytearray) -> bytes:
    """The checksum that ends an RTU frame, low byte first (Modbus over Serial Line V1.02, 6.2.2)."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return struct.pack("<H", crc)


def take_rtu(buffer: bytearray) -> Iterator[Question]:
    """Remove every whole request from the front; what is none is skipped byte by byte."""
    while len(buffer) >= 8:  # every request that reads or writes one register is 8 bytes long
        if crc16(buffer[:6]) == buffer[6:8]:
            yield Question(0, buffer[0], bytes(buffer[1:6]))
            del buffer[:8]
        else:
            del buffer[0]


def frame_rtu(mark: int, unit: int, pdu: bytes) -> bytes:
    """A reply on a serial line."""
    del mark
    body = bytes([unit]) + pdu
    return body + crc16(body)


def take_tcp(buffer: bytearray) -> Iterator[Question]:
    """Remove every whole request from the front."""
    while len(buffer) >= 8:
        mark, _, length, unit = struct.unpack_from(">HHHB", buffer)
        if len(buffer) < 6 + length:
            return
        pdu = bytes(buffer[7 : 6 + length])
        del buffer[: 6 + length]
        yield Question(mark, unit, pdu)


def frame_tcp(mark: int, unit: int, pdu: bytes) -> bytes:
    """A reply over TCP."""
    return struct.pack(">HHHB", mark, 0, 1 + len(pdu), unit) + pdu


class ModbusTwinServer:
    """Serves several units on one wire. Open with ``listen`` or ``open_pty``; ``close`` ends its thread.

    ``units`` may grow while it runs. Scripts of faults go by the twins' own time, so closing and
    opening again does not start them anew.
    """

    def __init__(self, units: Mapping[int, MeterTwin], clock: Clock) -> None:
        self._units = units
        self._clock = clock
        self._random = random.Random(8)  # noqa: S311 - noise on a wire, no secret
        self._checked_ns = 0
        self._is_scripted = False
        self._buffers: dict[int, bytearray] = {}  # open descriptor → bytes of an unfinished request
        self._outbox: list[tuple[int, int, int, bytes]] = []  # due ns, order, descriptor, frame
        self._order = count()
        self._stop = False
        self._up = False
        self._thread: threading.Thread | None = None

    # --- opening and closing, from the owner's thread

    @property
    def is_open(self) -> bool:
        return self._thread is not None

    def listen(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Serve Modbus TCP; the port, a free one where 0 was asked for."""
        self._take, self._frame, self._is_tcp = take_tcp, frame_tcp, True
        self._address = (host, port)
        self._go(self._bind, self._unbind)
        return self._address[1]

    def open_pty(self, link: Path) -> None:
        """Serve Modbus RTU on a pseudo-terminal; ``link`` leads to it, also after a disconnect gave it another name."""
        self._take, self._frame, self._is_tcp = take_rtu, frame_rtu, False
        self._link = link
        self._go(self._plug_in, self._unplug)

    def set_fault(self, unit: int, kind: str | None) -> None:
        """Begin a fault of one unit now, or end it with None. Any thread."""
        self._units[unit].impose(kind)
        self._poke()

    def close(self) -> None:
        """End the thread and free the wire; harmless when closed."""
        if self._thread is not None:
            self._stop = True
            self._poke()
            self._thread.join()
            self._thread = None
            self._waker.close()

    def _go(self, up: Callable[[], None], down: Callable[[], None]) -> None:
        self._bring_up, self._bring_down = up, down
        self._stop = False
        self._selector = selectors.DefaultSelector()
        self._waker, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._bring_up()
        self._up = True
        self._checked_ns = 0
        self._follow_script()  # nobody gets through to a wire that is gone from the start
        self._thread = threading.Thread(target=self._run, name="modbus-twins", daemon=True)
        self._thread.start()

    def _poke(self) -> None:
        if self._thread is not None:
            self._waker.send(b"!")

    # --- the two kinds of wire, from here on in the server's thread

    def _bind(self) -> None:
        self._listener = socket.create_server(self._address)
        self._address = self._listener.getsockname()[:2]
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _unbind(self) -> None:
        self._selector.unregister(self._listener)
        self._listener.close()

    def _plug_in(self) -> None:
        master, self._slave = os.openpty()  # the slave stays open, or the master would fail whenever nobody listens
        tty.setraw(self._slave)
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(os.ttyname(self._slave))
        self._attach(master)

    def _unplug(self) -> None:
        self._link.unlink(missing_ok=True)
        os.close(self._slave)

    def _attach(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._buffers[fd] = bytearray()
        self._selector.register(fd, selectors.EVENT_READ)

    def _detach(self, fd: int) -> None:
        if self._buffers.pop(fd, None) is not None:
            self._selector.unregister(fd)
            os.close(fd)
            self._outbox = [item for item in self._outbox if item[2] != fd]
            heapq.heapify(self._outbox)

    # --- the loop

    def _run(self) -> None:
        while not self._stop:
            self._follow_script()
            for key, _ in self._selector.select(self._patience_s()):
                self._serve(key.fileobj)
            self._send_due()
        self._take_down()
        self._selector.close()
        self._woken.close()

    def _patience_s(self) -> float | None:
        if self._outbox:
            return min(_TICK_S, max(0.0, (self._outbox[0][0] - self._clock.mono_ns()) / NS))
        return _TICK_S if self._is_scripted else None

    def _follow_script(self) -> None:
        """Now and then, and when told of a fault: take the wire away, or bring it back."""
        now_ns = self._clock.mono_ns()
        if now_ns - self._checked_ns < _TICK_S * NS:
            return
        self._checked_ns = now_ns
        twins = list(self._units.values())
        self._is_scripted = any(fault.kind == "disconnect" for twin in twins for fault in twin.settings.faults)
        gone = any("disconnect" in twin.faults() for twin in twins)
        if gone and self._up:
            self._take_down()
        elif not gone and not self._up:
            self._bring_up()
            self._up = True

    def _take_down(self) -> None:
        if self._up:
            for fd in list(self._buffers):
                self._detach(fd)
            self._bring_down()
            self._up = False

    def _serve(self, source: object) -> None:
        if source is self._woken:
            self._woken.recv(64)
            self._checked_ns = 0
        elif isinstance(source, socket.socket):
            with suppress(OSError):
                connection, _ = source.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._attach(connection.detach())
        elif isinstance(source, int) and source in self._buffers:
            self._hear(source)

    def _hear(self, fd: int) -> None:
        try:
            data = os.read(fd, 4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._detach(fd)
            return
        buffer = self._buffers[fd]
        buffer += data
        for question in self._take(buffer):
            self._answer(fd, question)

    def _answer(self, fd: int, question: Question) -> None:
        twin = self._units.get(question.unit)
        if twin is None:
            if self._is_tcp:
                self._post(fd, 0.0, self._frame(*question[:2], bytes([question.pdu[0] | 0x80, _NO_TARGET])))
            return
        faults = twin.faults()
        if "silent" not in faults:
            frame = self._spoil(question, twin.reply(question.pdu), faults)
            self._post(fd, twin.settings.latency + (twin.settings.late_by if "late" in faults else 0.0), frame)

    def _spoil(self, question: Question, pdu: bytes, faults: frozenset[str]) -> bytes:
        """The frame as it goes over the wire, with whatever is wrong with it."""
        unit = question.unit
        for fault in sorted(faults):
            if fault.startswith("exception-"):
                pdu = bytes([question.pdu[0] | 0x80, int(fault[-2:], 16)])
        if "wrong-function" in faults:
            pdu = bytes([pdu[0] ^ 0x07]) + pdu[1:]  # 3 ↔ 4
        if "wrong-unit" in faults:
            unit = unit % 247 + 1
        frame = self._frame(question.mark, unit, pdu)
        if "crc" in faults:
            frame = frame[:-1] + bytes([frame[-1] ^ 0x01])
        if "cut" in faults:
            frame = frame[: len(frame) // 2]
        return self._random.randbytes(_NOISE) + frame if "garbage-before" in faults else frame

    def _post(self, fd: int, delay_s: float, frame: bytes) -> None:
        heapq.heappush(self._outbox, (self._clock.mono_ns() + int(delay_s * NS), next(self._order), fd, frame))

    def _send_due(self) -> None:
        while self._outbox and self._outbox[0][0] <= self._clock.mono_ns():
            _, _, fd, frame = heapq.heappop(self._outbox)
            try:
                os.write(fd, frame)
            except BlockingIOError:
                continue  # nobody reads: the bytes are lost, as on a wire
            except OSError:
                self._detach(fd)
