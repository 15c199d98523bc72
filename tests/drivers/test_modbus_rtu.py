"""Modbus RTU on a real terminal and through a raw TCP gateway: damaged, foreign, late and missing replies."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers.modbus import (
    ModbusDeviceSettings,
    ModbusRtu,
    ModbusRtuOverTcp,
    ModbusRtuOverTcpSettings,
    ModbusRtuSettings,
    crc_is_good,
    rtu_frame,
)
from drivers.modbus_rtu import RtuExchange, silence_ns
from edge_agent.clock import ManualClock, SystemClock
from edge_agent.errors import DeviceError, WireError

ALL = frozenset({"default"})
LIMIT_S = 0.2  # long enough for a busy machine, short enough for a test


def crc(data: bytes) -> bytes:
    """Independent of the product: bit by bit, as in Modbus over Serial Line V1.02, 6.2.2."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return value.to_bytes(2, "little")


@dataclass(frozen=True)
class Asked:
    unit: int
    fc: int
    address: int
    count: int
    raw: bytes


def word(unit: int, fc: int, address: int) -> int:
    """What stands in a register: different for every unit, function and address."""
    return (unit * 7919 + fc * 104_729 + address * 31) % 65536


def right(asked: Asked) -> bytes:
    words = [word(asked.unit, asked.fc, asked.address + i) for i in range(asked.count)]
    body = struct.pack(f">BBB{asked.count}H", asked.unit, asked.fc, 2 * asked.count, *words)
    return body + crc(body)


def refusal(asked: Asked, code: int) -> bytes:
    body = bytes([asked.unit, asked.fc | 0x80, code])
    return body + crc(body)


def parse(raw: bytes) -> Asked:
    assert crc(raw[:-2]) == raw[-2:]
    return Asked(*struct.unpack(">BBHH", raw[:6]), raw=raw)


class Wait(float):
    """Seconds of silence within an answer."""


@dataclass
class Line:
    """A far end whose every answer is scripted: bytes, a Wait, or a list of these."""

    answer: Callable[[Asked], Any] = right
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._wake, self._waker = os.pipe()
        self._thread: threading.Thread | None = None

    def serve(self, fd: int) -> None:
        self._thread = threading.Thread(target=self._serve, args=(fd,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        os.write(self._waker, b"x")
        if self._thread:
            self._thread.join(5)

    def _serve(self, fd: int) -> None:
        heard = b""
        with suppress(OSError):
            while not self._ended.is_set():
                ready, _, _ = select.select([fd, self._wake], [], [])
                if self._wake in ready:
                    return
                data = os.read(fd, 256)
                if not data:
                    return
                heard += data
                while len(heard) >= 8:
                    raw, heard = heard[:8], heard[8:]
                    asked = parse(raw)
                    self.asked.append(asked)
                    actions = self.answer(asked)
                    for action in actions if isinstance(actions, list) else [actions]:
                        if isinstance(action, Wait):
                            self._ended.wait(action)
                        elif action:
                            self._write(fd, action)

    def _write(self, fd: int, data: bytes) -> None:
        while data and not self._ended.is_set():
            try:
                data = data[os.write(fd, data) :]
            except BlockingIOError:  # nobody reads
                self._ended.wait(0.002)


class Terminal(Line):
    """A pseudo-terminal; the bus opens it by a link, as by /dev/serial/by-id."""

    def plug(self, link: Path) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        link.unlink(missing_ok=True)
        link.symlink_to(os.ttyname(self._slave))
        self._link = link
        self.serve(self._master)

    def unplug(self) -> None:
        self.stop()
        self._link.unlink(missing_ok=True)
        os.close(self._slave)
        os.close(self._master)


class Gateway(Line):
    """A TCP port that passes bytes through."""

    def plug(self, _link: Path) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                self.connections += 1
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pass, args=(link,), daemon=True).start()

    def _pass(self, link: socket.socket) -> None:
        with link:
            self._serve(link.fileno())

    def unplug(self) -> None:
        self.stop()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


TIMES = {"timeout_floor": f"{LIMIT_S}s", "timeout_ceiling": f"{LIMIT_S}s", "baudrate": 115_200}


def rtu(link: Path, **options: Any) -> ModbusRtu:
    section = {"kind": "modbus-rtu", "port": str(link)} | TIMES | options
    return ModbusRtu("line", ModbusRtuSettings.model_validate(section), SystemClock())


@pytest.fixture
def link(tmp_path) -> Path:
    return tmp_path / "usb-adapter"


@pytest.fixture(params=["terminal", "gateway"])
def line(request, link) -> Iterator[Any]:
    far: Any = Terminal() if request.param == "terminal" else Gateway()
    far.plug(link)
    yield far
    with suppress(OSError):
        far.unplug()


@pytest.fixture
def terminal(link) -> Iterator[Terminal]:
    far = Terminal()
    far.plug(link)
    yield far
    with suppress(OSError):
        far.unplug()


@pytest.fixture
def make(request, link):
    """A bus on the line of this test, open."""
    opened: list[Any] = []
    far: Any = request.getfixturevalue("line" if "line" in request.fixturenames else "terminal")

    def build(**options: Any) -> Any:
        if isinstance(far, Terminal):
            bus: Any = rtu(link, **options)
        else:
            section = {"kind": "modbus-rtu-over-tcp", "host": "127.0.0.1", "port": far.port} | TIMES | options
            bus = ModbusRtuOverTcp("line", ModbusRtuOverTcpSettings.model_validate(section), SystemClock())
        opened.append(bus)
        bus.open()
        return bus

    yield build
    for bus in opened:
        bus.close()


@pytest.fixture
def meter(tmp_path):
    """A device whose quantities q<address> each are one register."""
    return lambda bus, addresses, **options: device_on(tmp_path, bus, addresses, **options)


def device_on(folder: Path, bus: Any, addresses: list[int], *, unit: int = 1, head: str = "", **options: Any) -> Any:
    rows = "\n".join(f"  q{at}: {{at: {at}, fc: 3, type: u16}}" for at in addresses)
    own = "\n".join(f"  q{at}: {{unit: ''}}" for at in addresses)
    path = folder / f"meter-{abs(hash((rows, head)))}.yaml"
    if not path.exists():
        text = f"name: X\nvendor: Y\nsource: Z\nconfidence: C\nverified: simulator\n{head}\n"
        path.write_text(f"{text}registers:\n{rows}\nquantities:\n{own}\n")
    chosen = ModbusDeviceSettings.model_validate({"bus": "line", "profile": str(path), "unit": unit} | options)
    return bus.device(f"meter-{unit}", chosen, bus.profile(chosen, Path()))


def expected(addresses: list[int], unit: int = 1) -> dict[str, float]:
    return {f"q{at}": float(word(unit, 3, at)) for at in addresses}


def failure(act: Callable[[], object]) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        act()
    return caught.value


# --- frames


def test_a_request_is_the_one_that_the_standard_prints():
    """Unit 17, three holding registers from 107; the CRC low byte first."""
    assert rtu_frame(0x11, 3, 0x6B, 3) == bytes.fromhex("11 03 006b 0003 7687")


@given(st.binary(min_size=1, max_size=255))
def test_the_crc_agrees_with_the_standard(data):
    """Our check accepts what the standard's bit by bit procedure makes, and no damaged bit of it."""
    frame = data + crc(data)
    assert crc_is_good(frame)
    assert not crc_is_good(frame[:-1] + bytes([frame[-1] ^ 1]))


def test_the_pause_between_frames_is_three_and_a_half_characters():
    """And 1.75 ms above 19200 Bd."""
    assert silence_ns(9600) == pytest.approx(3.5 * 11 / 9600 * 1e9, abs=1)
    assert silence_ns(115_200) == 1_750_000


# --- what comes back


def test_values_come_over_the_line(line, make, meter):
    """One request per block, and every value is its own register's."""
    bus = make()
    one, two = meter(bus, [0, 1, 5, 100], unit=1), meter(bus, [0, 1], unit=2)
    for _ in range(2):
        assert one.read(ALL) == (expected([0, 1, 5, 100]), {})
        assert two.read(ALL) == (expected([0, 1], unit=2), {})
    assert [(each.unit, each.address, each.count) for each in line.asked] == [(1, 0, 6), (1, 100, 1), (2, 0, 2)] * 2


@pytest.mark.parametrize("pieces", [1, 4])
def test_a_reply_in_pieces_is_put_together(line, make, meter, pieces):
    """Adapters and gateways deliver as they like."""

    def cut(asked: Asked) -> list[Any]:
        data = right(asked)
        return [part for i in range(0, len(data), pieces) for part in (data[i : i + pieces], Wait(0.002))]

    line.answer = cut
    assert meter(make(timeout_ceiling="2s"), [0, 1, 2]).read(ALL).values == expected([0, 1, 2])


@pytest.mark.parametrize("damage", [lambda data: data[:-1] + b"\xee", lambda data: data[:4]], ids=["flipped", "cut"])
def test_a_damaged_reply_gives_no_value_and_does_not_shift_the_next(line, make, meter, damage):
    """Absent now with a hint what to look at, right next time."""
    device = meter(make(), [0, 1])
    line.answer = lambda asked: damage(right(asked))
    error = failure(lambda: device.read(ALL))
    assert error.reason == "crc"
    assert "termination" in error.hint
    line.answer = right
    assert device.read(ALL).values == expected([0, 1])


@pytest.mark.parametrize(
    "noise",
    [
        b"\x00",
        b"\xff\xff\xff",
        b"\x01\x03",
        b"\x01\x03\x04",
        b"\x01\x03\x04\x01\x03\x04\x01",
        bytes(100),
        b"\x01\x83\x02",
    ],
)
def test_noise_around_a_reply_is_skipped(line, make, meter, noise):
    """Even when it looks like the beginning of the reply; nothing is ever decoded shifted."""
    device = meter(make(), [0, 1])
    line.answer = lambda asked: noise + right(asked) + noise
    for _ in range(2):
        assert device.read(ALL).values == expected([0, 1])


def test_another_units_frame_is_passed_over(line, make, meter):
    """Unit 2 answers first, whole and with a good CRC; we go on waiting for unit 1."""
    device = meter(make(), [0, 1], unit=1)
    foreign = Asked(2, 3, 0, 2, b"")
    line.answer = lambda asked: [right(foreign), Wait(0.01), right(asked)]
    assert device.read(ALL).values == expected([0, 1])
    line.answer = lambda _: right(foreign)
    assert failure(lambda: device.read(ALL)).reason == "wrong-reply"


@pytest.mark.parametrize("delay", [LIMIT_S + 0.05, LIMIT_S + 0.3])
def test_a_late_reply_never_becomes_another_registers_value(line, make, meter, delay):
    """The first block's reply comes when the second one, equally long, is awaited; or later still."""
    first = threading.Event()

    def late(asked: Asked) -> Any:
        if not first.is_set():
            first.set()
            return [Wait(delay), right(asked)]
        return right(asked)

    line.answer = late
    device = meter(make(), [0, 1, 500, 501])
    assert failure(lambda: device.read(ALL)).reason == "timeout"
    for _ in range(6):
        with suppress(DeviceError):
            values = device.read(ALL).values
            assert values.items() <= expected([0, 1, 500, 501]).items()
    assert device.read(ALL).values == expected([0, 1, 500, 501])


@pytest.mark.parametrize(("code", "text"), [(2, "exception-02"), (6, "exception-06"), (0x0B, "exception-0B")])
def test_a_refusal_is_heard_at_once(line, make, meter, code, text):
    """An exception reply ends the wait and stands as the reason."""
    bus = make(timeout_ceiling="5s")
    line.answer = lambda asked: refusal(asked, code)
    assert failure(lambda: bus.request(1, 3, 0, 4)).reason == text
    line.answer = lambda asked: refusal(asked, code) if asked.address == 0 else right(asked)
    sample = meter(bus, [50, 0]).read(ALL) if code != 0x0B else None
    assert sample is None or sample == (expected([50]), {"q0": text})


def test_an_echo_is_no_answer(line, make, meter):
    """An adapter that hears itself: its echo is stripped, and named when nothing else comes."""
    line.answer = lambda asked: asked.raw + right(asked)
    bus = make(echo=True)
    assert meter(bus, [0, 1]).read(ALL).values == expected([0, 1])
    bus.close()
    line.answer = lambda asked: asked.raw
    error = failure(lambda: meter(make(), [0, 1]).read(ALL))
    assert error.reason == "timeout"
    assert "echo" in error.hint


def test_a_line_that_is_never_silent_is_reset(terminal, make, meter):
    """Endless random bytes: bounded memory and time, the port is closed, and the hint says what to look at."""
    terminal.answer = lambda _: [os.urandom(64)] * 1000
    device = meter(make(), [0])
    assert failure(lambda: device.read(ALL)).reason in {"wrong-reply", "crc"}
    with pytest.raises(WireError, match="never silent") as caught:
        device.read(ALL)
    assert "baud rate" in caught.value.hint
    assert caught.value.reason == "bus-down"


# --- the port


def test_an_unplugged_adapter_is_a_lost_wire_and_comes_back_under_another_name(terminal, link, make, meter):
    """The descriptor is closed at once, and the link is followed afresh at the next opening."""
    bus = make()
    device = meter(bus, [0, 1])
    assert device.read(ALL).values == expected([0, 1])
    before = link.readlink()
    terminal.unplug()
    with pytest.raises(WireError) as caught:
        device.read(ALL)
    assert caught.value.reason == "not-found"
    bus.close()
    with pytest.raises(WireError, match="is not there"):
        bus.open()
    holding = os.openpty()  # takes the old name, which is free because our descriptor is closed
    again = Terminal()
    again.plug(link)
    assert link.readlink() != before
    try:
        bus.open()
        assert device.read(ALL).values == expected([0, 1])
    finally:
        again.unplug()
        for fd in holding:
            os.close(fd)


def test_an_adapter_replugged_between_two_polls_costs_nothing(terminal, link, make, meter):
    """The line worked before, so one new opening is tried within the same question."""
    device = meter(make(), [0, 1])
    assert device.read(ALL).values == expected([0, 1])
    terminal.unplug()
    terminal.__post_init__()
    terminal.plug(link)
    assert device.read(ALL).values == expected([0, 1])


def test_a_port_in_use_names_its_owner(terminal, link):
    """Two programs on one line would spoil each other's replies."""
    script = (
        "import fcntl, os, sys, time\n"
        f"fd = os.open({str(link)!r}, os.O_RDWR | os.O_NOCTTY)\n"
        "fcntl.flock(fd, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout
        assert owner.stdin
        owner.stdout.readline()
        with pytest.raises(WireError, match=f"process {owner.pid}") as caught:
            rtu(link).open()
        owner.stdin.close()
    assert caught.value.reason == "busy"
    bus = rtu(link)
    bus.open()
    bus.close()


def test_an_open_port_is_ours_alone(terminal, link, make):
    """Locked for those who ask, exclusive for those who do not; free again after close."""
    bus = make()
    fd = os.open(link, os.O_RDWR | os.O_NOCTTY)  # root may; the flag is there for everybody else
    state = bytearray(4)
    fcntl.ioctl(fd, 0x80045440, state)  # TIOCGEXCL
    assert struct.unpack("i", state) == (1,)
    with pytest.raises(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    bus.close()
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.ioctl(fd, 0x80045440, state)
    assert struct.unpack("i", state) == (0,)
    os.close(fd)


def test_the_port_is_set_as_the_settings_say(terminal, link):
    """Baud rate, parity and stop bits reach the terminal."""
    bus = rtu(link, baudrate=19200, parity="E", stopbits=2)
    bus.open()
    fd = os.open(link, os.O_RDWR | os.O_NOCTTY)
    _, _, cflag, _, ispeed, ospeed, _ = termios.tcgetattr(fd)
    os.close(fd)
    bus.close()
    assert ispeed == ospeed == termios.B19200
    assert cflag & termios.CSTOPB
    assert not cflag & termios.PARODD


def test_a_path_that_is_no_serial_port_says_so(tmp_path):
    """A plain file, and a missing one."""
    plain = tmp_path / "file"
    plain.write_text("")
    with pytest.raises(WireError, match="cannot be opened as a serial port"):
        rtu(plain).open()
    with pytest.raises(WireError, match="is not there"):
        rtu(tmp_path / "missing").open()


def test_a_port_without_rs485_mode_says_what_to_remove(terminal, link):
    """A pseudo-terminal has no RTS, as most USB adapters."""
    with pytest.raises(WireError, match="no RS-485 mode") as caught:
        rtu(link, rs485=True).open()
    assert "remove `rs485`" in caught.value.hint


def test_a_gateway_that_is_half_open_is_left_for_a_new_connection(tmp_path):
    """Three silences in a row, and the next question reconnects."""
    far = Gateway()
    far.plug(tmp_path)
    far.answer = lambda asked: right(asked) if far.connections == 2 else b""
    section = {"kind": "modbus-rtu-over-tcp", "host": "127.0.0.1", "port": far.port} | TIMES
    bus = ModbusRtuOverTcp("line", ModbusRtuOverTcpSettings.model_validate(section), SystemClock())
    bus.open()
    for _ in range(3):
        assert failure(lambda: bus.request(1, 3, 0, 2)).reason == "timeout"
    assert bus.request(1, 3, 0, 3) == right(Asked(1, 3, 0, 3, b""))[3:-2]
    bus.close()
    far.unplug()


# --- a line in imagined time: every fault, at every moment


class ImaginedLine:
    """Meters on a clock that only moves when somebody waits. Each unit answers in the order it was asked.

    ``answer``: to each request, the bytes and after how many seconds.
    """

    def __init__(self, clock: ManualClock) -> None:
        self.answer: Callable[[Asked], tuple[bytes, float]] = lambda asked: (right(asked), 0.02)
        self.is_open = False
        self._clock = clock
        self._coming: list[tuple[int, bytes]] = []
        self._last: dict[int, int] = {}
        self.sent: list[Asked] = []
        self.sent_at: list[float] = []

    @property
    def counts(self) -> list[int]:
        return [asked.count for asked in self.sent]

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None: ...

    def write(self, data: bytes) -> None:
        asked = parse(bytes(data))
        self.sent.append(asked)
        self.sent_at.append(self._clock.mono_ns() / 1e9)
        reply, delay_s = self.answer(asked)
        at = max(self._clock.mono_ns() + int(delay_s * 1e9), self._last.get(asked.unit, 0) + 1)
        self._last[asked.unit] = at
        if reply:
            self._coming.append((at, reply))
            self._coming.sort()

    def read(self, timeout_s: float) -> bytes:
        until = self._clock.mono_ns() + int(timeout_s * 1e9)
        if self._coming and self._coming[0][0] <= until:
            at, data = self._coming.pop(0)
            self._clock.advance(max(0, at - self._clock.mono_ns()) / 1e9)
            return data
        self._clock.advance(max(0, until - self._clock.mono_ns()) / 1e9)
        return b""


@dataclass
class Imagined:
    bus: ModbusRtu
    clock: ManualClock
    line: ImaginedLine
    folder: Path

    def meter(self, addresses: list[int], **options: Any) -> Any:
        return device_on(self.folder, self.bus, addresses, **options)


@pytest.fixture
def imagine(tmp_path):
    def build(*, gap_s: float = 0.0, warm_up_s: float = 0.0) -> Imagined:
        clock = ManualClock()
        section = {"kind": "modbus-rtu", "port": "/dev/none", "timeout_ceiling": "500ms"}
        bus = ModbusRtu("line", ModbusRtuSettings.model_validate(section), clock)
        line = ImaginedLine(clock)
        bus.exchange = RtuExchange(
            line,
            clock,
            rtu_frame,
            crc_is_good,
            baudrate=9600,
            gap_s=gap_s,
            warm_up_s=warm_up_s,
            echo=False,
            may_be_half_open=False,
        )
        bus.open()
        return Imagined(bus, clock, line, tmp_path)

    return build


def silent(_: Asked) -> tuple[bytes, float]:
    return b"", 0.0


def prompt(asked: Asked) -> tuple[bytes, float]:
    return right(asked), 0.02


@pytest.mark.parametrize("bit", range(72))
def test_a_flipped_bit_gives_no_value(imagine, bit):
    """Wherever in the frame it is: absent now, right next time."""

    def damage(asked: Asked) -> tuple[bytes, float]:
        data = bytearray(right(asked))
        data[bit // 8] ^= 1 << bit % 8
        return bytes(data), 0.02

    far = imagine()
    device = far.meter([0, 1])
    far.line.answer = damage
    assert failure(lambda: device.read(ALL)).reason in ({"crc"} if bit >= 24 else {"crc", "wrong-reply"})
    far.line.answer = prompt
    assert device.read(ALL).values == expected([0, 1])


@pytest.mark.parametrize("length", range(1, 9))
def test_a_cut_reply_gives_no_value(imagine, length):
    """Every length that is too short."""
    far = imagine()
    device = far.meter([0, 1])
    far.line.answer = lambda asked: (right(asked)[:length], 0.02)
    assert failure(lambda: device.read(ALL)).reason == "crc"
    far.line.answer = prompt
    assert device.read(ALL).values == expected([0, 1])


@pytest.mark.parametrize("wrong", [Asked(1, 4, 0, 2, b""), Asked(1, 3, 0, 1, b""), Asked(1, 3, 0, 3, b"")])
def test_a_reply_of_other_shape_is_no_reply(imagine, wrong):
    """Function and byte count must be those that were asked for, however good the CRC."""
    far = imagine()
    device = far.meter([0, 1])
    far.line.answer = lambda _: (right(wrong), 0.02)
    assert failure(lambda: device.read(ALL)).reason == "wrong-reply"
    far.line.answer = prompt
    assert device.read(ALL).values == expected([0, 1])


def test_after_a_silence_the_next_request_asks_for_another_length(imagine):
    """So that the late reply could not pass for the awaited one."""
    far = imagine()
    device = far.meter([0, 1])
    far.line.answer = silent
    failure(lambda: device.read(ALL))
    failure(lambda: device.read(ALL))
    far.line.answer = prompt
    assert device.read(ALL).values == expected([0, 1])
    assert device.read(ALL).values == expected([0, 1])
    assert far.line.counts == [2, 3, 4, 2]


def test_a_meter_that_allows_no_other_length_gets_a_longer_silence(imagine):
    """`align: true`: the same request again, but only after the line was silent for a whole ceiling."""
    far = imagine()
    device = far.meter([0, 1], head="align: true")
    foreign = Asked(1, 3, 600, 2, b"")
    far.line.answer = lambda _: (right(foreign), 0.55)
    failure(lambda: device.read(ALL))
    far.line.answer = prompt
    assert device.read(ALL).values == expected([0, 1])
    assert far.line.counts == [2, 2]
    assert far.line.sent_at[1] - far.line.sent_at[0] > 1.0


def test_a_meter_that_refuses_the_longer_read_is_read_as_before(imagine):
    """Exception 02 for our extra register disables nothing."""
    far = imagine()
    device = far.meter([0, 1])
    far.line.answer = silent
    failure(lambda: device.read(ALL))
    far.line.answer = lambda asked: (right(asked) if asked.count == 2 else refusal(asked, 2), 0.02)
    assert failure(lambda: device.read(ALL)).reason == "exception-02"
    assert device.read(ALL) == (expected([0, 1]), {})
    assert far.line.counts == [2, 3, 2]


def test_a_late_refusal_disables_nothing(imagine):
    """An exception carries no length: after a silence it may belong to the request before."""
    far = imagine()
    device = far.meter([0, 500])
    far.line.answer = lambda asked: (refusal(asked, 2), 0.7)
    failure(lambda: device.read(ALL))
    far.line.answer = prompt
    for _ in range(4):
        with suppress(DeviceError):
            device.read(ALL)
    assert device.read(ALL) == (expected([0, 500]), {})


FATES = st.tuples(
    st.sampled_from(["right", "right", "right", "lost", "damaged", "cut", "noisy", "busy"]),
    st.one_of(st.floats(0, 0.1), st.floats(0.1, 1.5), st.floats(1.5, 12)),
)
PLACES = [0, 1, 100, 101, 200, 201, 300]


def fated(asked: Asked, what: str) -> bytes:
    reply = right(asked)
    return {
        "right": reply,
        "lost": b"",
        "damaged": reply[:4] + bytes([reply[4] ^ 0x40]) + reply[5:],
        "cut": reply[: len(reply) // 2],
        "noisy": b"\x01\x03" + reply + b"\xff",
        "busy": refusal(asked, 6),
    }[what]


@given(fates=st.lists(FATES, max_size=40), pauses=st.lists(st.floats(0, 3), min_size=1, max_size=8))
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_value_is_its_own_registers_whatever_the_delays(imagine, fates, pauses):
    """Late, lost, damaged, cut and noisy replies of two meters, in any order: no foreign value, then all is well."""
    waiting = list(fates)

    def answer(asked: Asked) -> tuple[bytes, float]:
        what, delay_s = waiting.pop() if waiting else ("right", 0.02)
        return fated(asked, what), delay_s

    far = imagine()
    far.line.answer = answer
    devices = {unit: far.meter(PLACES, unit=unit) for unit in (1, 2)}
    for turn in range(20):
        for unit, device in devices.items():
            with suppress(DeviceError):
                sample = device.read(ALL)
                assert sample.values.items() <= expected(PLACES, unit).items()
                assert sample.values.keys() | sample.absent.keys() == set(device.quantities)
            far.clock.advance(pauses[turn % len(pauses)])
    waiting.clear()
    far.clock.advance(30)
    for unit, device in devices.items():
        for _ in range(2):
            with suppress(DeviceError):
                device.read(ALL)
        assert device.read(ALL) == (expected(PLACES, unit), {})


@given(chunks=st.lists(st.binary(min_size=1, max_size=60), max_size=30))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_from_the_line_become_a_value(imagine, chunks):
    """Whatever arrives, and in whatever pieces, a question ends with an error and in bounded time."""
    far = imagine()
    waiting = list(chunks)
    far.line.answer = silent
    quiet = far.line.read
    far.line.read = lambda timeout_s: waiting.pop() if waiting else quiet(timeout_s)
    for _ in range(3):
        failure(lambda: far.bus.request(1, 3, 0, 10))


def test_a_unit_that_owes_every_length_is_not_asked_more(imagine):
    """Asking a unit that is far behind would only put it further behind."""
    far = imagine()
    far.line.answer = lambda asked: (right(asked), 12.0)
    device = far.meter([0, 1])
    for _ in range(10):
        assert failure(lambda: device.read(ALL)).reason == "timeout"
    assert far.line.counts == [2, 3, 4, 5, 6]
    far.clock.advance(60)
    assert failure(lambda: device.read(ALL)).reason == "timeout"
    assert far.line.counts[-1] == 2


@pytest.mark.parametrize(("gap_s", "pause_s"), [(0.0, 3.5 * 11 / 9600), (0.25, 0.25)])
def test_requests_keep_their_distance(imagine, gap_s, pause_s):
    """Three and a half characters between a reply and the next request, or the gap that the settings want."""
    far = imagine(gap_s=gap_s)
    for _ in range(3):
        far.bus.request(1, 3, 0, 2)
    first, second, third = far.line.sent_at
    assert second - first == pytest.approx(0.02 + pause_s, abs=1e-6)
    assert third - second == pytest.approx(0.02 + pause_s, abs=1e-6)


def test_a_line_is_given_time_to_warm_up(imagine):
    """After opening, nothing is sent before the adapter and the meters are ready."""
    far = imagine(warm_up_s=1.5)
    far.bus.request(1, 3, 0, 2)
    assert far.line.sent_at[0] - ManualClock().mono_ns() / 1e9 >= 1.5


def test_after_a_silence_the_line_rests_as_long_as_the_unit_was_ever_slow(imagine):
    """The quarantine: the unit once took 0.3 s, so after its silence the next request waits for 0.3 s of quiet."""
    far = imagine()
    far.line.answer = lambda asked: (right(asked), 0.32)
    far.bus.request(1, 3, 0, 2)
    far.line.answer = silent
    failure(lambda: far.bus.request(1, 3, 0, 2))
    gave_up = far.clock.mono_ns() / 1e9
    far.line.answer = prompt
    far.bus.request(2, 3, 0, 2)
    assert 0.28 < far.line.sent_at[2] - gave_up < 0.35
