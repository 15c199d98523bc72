"""One Modbus RTU line, on a serial port or behind a raw TCP gateway.

RTU replies carry no number: nothing but unit, function and length tells a late reply from the one awaited.
So only a frame with exactly those and a good CRC is believed; after any failure the line is drained until
it has been silent for as long as that unit was ever slow; and no request is sent whose reply would look
like one that is still owed (the caller asks for another length, or the line waits longer).
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import Final

from drivers.modbus_tcp import Encode
from drivers.modbus_transport import Port
from drivers.modbus_unit import RefusedError, Request, Unit
from edge_agent.clock import NS, Clock
from edge_agent.errors import DeviceError, WireError
from edge_agent.vocabulary import CRC, TIMEOUT, WIRE, WRONG_REPLY

_BITS_PER_CHARACTER: Final = 11
_MOST_HEARD: Final = 4096  # bytes per request, and while waiting for silence
_PATIENCE_NS: Final = 2 * NS  # with a line that is never silent
_HALF_OPEN: Final = 3  # as in modbus_tcp


def silence_ns(baudrate: int) -> int:
    """3.5 characters, the pause between frames; 1.75 ms above 19200 Bd (Modbus over Serial Line V1.02, 2.5.1.1)."""
    return 1_750_000 if baudrate > 19_200 else 7 * _BITS_PER_CHARACTER * NS // (2 * baudrate)


class RtuExchange:
    """Requests and replies on one line; reopens the port once where it was lost after it had worked."""

    def __init__(
        self,
        port: Port,
        clock: Clock,
        encode: Encode,
        crc_is_good: Callable[[bytes], bool],
        *,
        baudrate: int,
        gap_s: float,
        warm_up_s: float,
        echo: bool,
        may_be_half_open: bool,
    ) -> None:
        self._port = port
        self._clock = clock
        self._mono_ns = clock.mono_ns
        self._encode = encode
        self._crc_is_good = crc_is_good
        self._character_ns = _BITS_PER_CHARACTER * NS // baudrate
        self._rest_ns = max(silence_ns(baudrate), int(gap_s * NS))
        self._warm_up_s = warm_up_s
        self._echo = echo
        self._most_silent = _HALF_OPEN if may_be_half_open else 0
        self._wanted = False
        self._served = False
        self._silent = 0
        self._answered: Unit | None = None  # by whom the last request was; None: by nobody
        self._active_ns = 0  # when the line was last in use
        self._quarantine_ns = 0

    def open(self) -> None:
        self._wanted = True
        if not self._port.is_open:
            self._reopen()

    def close(self) -> None:
        self._wanted = False
        self._port.close()

    def request(self, unit: int, fc: int, address: int, count: int) -> Request:
        """Encode a read."""
        frame = self._encode(unit, fc, address, count)
        head, refused = bytes([unit, fc, 2 * count]), bytes([unit, fc | 0x80])
        return Request(unit, fc, address, count, frame, 5 + 2 * count, head, refused)

    def ask(self, request: Request, unit: Unit, limit_ns: int = 0) -> bytes:
        """The registers' bytes.

        Raises DeviceError (RefusedError for an exception reply), and WireError when the port is gone.
        """
        unit.requests += 1
        limit_ns = limit_ns or unit.limit
        try:
            return self._ask(request, unit, limit_ns)
        except WireError:
            if not self._served:
                raise
        self._reopen()
        return self._ask(request, unit, limit_ns)

    def _ask(self, request: Request, unit: Unit, limit_ns: int) -> bytes:
        if not self._port.is_open:
            self._reopen()
        if unit.pending and request.count in unit.owes(self._mono_ns()):
            self._quarantine_ns = max(self._quarantine_ns, unit.ceiling)
        self._settle()
        wire_ns = (len(request.frame) + request.size) * self._character_ns
        began_ns = self._mono_ns()
        self._port.write(request.frame)
        heard = b""
        left_ns = limit_ns + wire_ns
        while left_ns > 0 and len(heard) < _MOST_HEARD:
            chunk = self._port.read(left_ns / NS)
            if not chunk:
                break
            heard += chunk
            if self._echo and heard.startswith(request.frame):
                heard = heard[len(request.frame) :]
            now_ns = self._mono_ns()
            data = self._find(request, heard)
            if data is not None:
                self._active_ns = now_ns
                self._served = True
                self._silent = 0
                if len(data) == 1:
                    raise self._refused(request, unit, data[0])
                unit.answered(max(0, now_ns - began_ns - wire_ns))
                unit.pending.clear()
                self._answered = unit
                return data
            left_ns = began_ns + limit_ns + wire_ns - now_ns
        self._active_ns = self._mono_ns()
        raise self._failed(request, unit, limit_ns, heard)

    def _find(self, request: Request, heard: bytes) -> bytes | None:
        """The data of the reply to this request within what was heard, or the one byte of an exception.

        Noise and frames of others around it are skipped; a frame counts only whole.
        """
        for head, size in ((request.head, request.size), (request.refused, 5)):
            at = heard.find(head)
            while 0 <= at <= len(heard) - size:
                frame = heard[at : at + size]
                if self._crc_is_good(frame):
                    return frame[len(head) : -2]
                at = heard.find(head, at + 1)
        return None

    def _settle(self) -> None:
        """Return when the line has been silent for long enough; drop what arrives meanwhile."""
        began_ns = now_ns = self._mono_ns()
        need_ns = max(self._rest_ns, self._quarantine_ns)
        wait_ns = self._active_ns + need_ns - now_ns
        dropped = 0
        while junk := self._port.read(max(0, wait_ns) / NS):
            dropped += len(junk)
            wait_ns = need_ns
            if dropped > _MOST_HEARD or self._mono_ns() - began_ns > need_ns + _PATIENCE_NS:
                self._port.close()
                self._served = False
                hint = "wrong baud rate or parity, A and B swapped, no termination, or another master on the line"
                raise WireError(WIRE, "the line is never silent", hint=hint)
        if dropped and self._answered is not None:
            self._answered.doubled += 1
        self._answered = None
        self._quarantine_ns = 0

    def _refused(self, request: Request, unit: Unit, code: int) -> RefusedError:
        unit.refused(code)
        now_ns = self._mono_ns()
        if not unit.owes(now_ns):
            return RefusedError(request.unit, code)
        # An exception has no length: this may be the late one, and then ours is still to come.
        unit.owe(request.count, now_ns)
        self._quarantine_ns = min(unit.slowest, unit.ceiling) + self._rest_ns
        return RefusedError(request.unit, code, doubtful=True)

    def _failed(self, request: Request, unit: Unit, limit_ns: int, heard: bytes) -> DeviceError:
        self._quarantine_ns = min(unit.slowest, unit.ceiling) + self._rest_ns
        unit.owe(request.count, self._active_ns)
        echo_only = heard.startswith(request.frame)
        if echo_only:
            heard = heard[len(request.frame) :]
        if heard:
            if request.head in heard or request.refused in heard or request.head.startswith(heard):
                unit.damaged(request.count)
                hint = "check termination, shielding, A/B bias and cable length"
                return DeviceError(CRC, f"the answer of unit {unit.number} is damaged", hint=hint)
            unit.wrong += 1
            hint = "another unit or master talks, or baud rate and parity are wrong"
            return DeviceError(WRONG_REPLY, f"unit {unit.number}: {heard[:8].hex(' ')} … is no answer", hint=hint)
        unit.silent()
        self._silent += 1
        if self._most_silent and self._silent >= self._most_silent:
            self._port.close()  # the gateway may have restarted without telling us; the next question reconnects
        hint = "check power, A/B wiring, unit id, baud rate and parity"
        if echo_only:
            unit.echoes += 1
            hint = f"only our own request came back: the adapter echoes (`echo: true`); {hint}"
        limit_ms = limit_ns // 1_000_000
        return DeviceError(TIMEOUT, f"unit {unit.number} does not answer within {limit_ms} ms", hint=hint)

    def _reopen(self) -> None:
        if not self._wanted:
            raise WireError(WIRE, "the bus is closed")
        self._port.open()
        self._served = False
        self._silent = 0
        self._active_ns = self._mono_ns()
        if self._warm_up_s:
            self._clock.wait(Event(), self._warm_up_s)
