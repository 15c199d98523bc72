"""Modbus TCP against a far end that answers byte by byte what a test says: real sockets, every kind of wrong reply."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers.modbus import ModbusTcp, ModbusTcpDeviceSettings, ModbusTcpSettings, tcp_frame
from drivers.modbus_unit import Unit
from drivers.registers import load_profile
from drivers.sunspec import find_model
from edge_agent.clock import ManualClock, SystemClock
from edge_agent.errors import DeviceError, ProfileError, WireError

LIMIT_S = 0.2  # long enough for a busy machine, short enough for a test
ALL = frozenset({"default"})


@dataclass(frozen=True)
class Asked:
    """A request as the far end saw it."""

    tid: int
    unit: int
    fc: int
    address: int
    count: int
    connection: int


def word(unit: int, fc: int, address: int) -> int:
    """What stands in a register: different for every unit, function and address."""
    return (unit * 7919 + fc * 104_729 + address * 31) % 65536


def pdu(asked: Asked) -> bytes:
    words = [word(asked.unit, asked.fc, asked.address + i) for i in range(asked.count)]
    return struct.pack(f">BBB{asked.count}H", asked.unit, asked.fc, 2 * asked.count, *words)


def mbap(tid: int, body: bytes) -> bytes:
    return struct.pack(">HHH", tid, 0, len(body)) + body


def right(asked: Asked) -> bytes:
    return mbap(asked.tid, pdu(asked))


def refusal(asked: Asked, code: int) -> bytes:
    return mbap(asked.tid, bytes([asked.unit, asked.fc | 0x80, code]))


class Wait(float):
    """Seconds of silence within an answer."""


HANG_UP = object()
Answer = Callable[[Asked], Any]


@dataclass
class Peer:
    """A Modbus TCP server whose every answer is scripted: bytes, a Wait, HANG_UP, or a list of these."""

    answer: Answer = right
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self._ended = threading.Event()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._ended.set()
        for link in [self._listener, *self._open]:
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(link)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(link, self.connections), daemon=True).start()

    def _serve(self, link: socket.socket, number: int) -> None:
        with closing(link):
            try:
                while request := link.recv(12, socket.MSG_WAITALL):
                    tid, _, _, unit, fc, address, count = struct.unpack(">HHHBBHH", request)
                    asked = Asked(tid, unit, fc, address, count, number)
                    self.asked.append(asked)
                    actions = self.answer(asked)
                    for action in actions if isinstance(actions, list) else [actions]:
                        if action is HANG_UP:
                            return
                        if isinstance(action, Wait):
                            self._ended.wait(action)
                        elif action:
                            link.sendall(action)
            except (OSError, struct.error):
                return


@pytest.fixture
def peer() -> Iterator[Peer]:
    far = Peer()
    yield far
    far.close()


@pytest.fixture
def buses() -> Iterator[list[ModbusTcp]]:
    opened: list[ModbusTcp] = []
    yield opened
    for bus in opened:
        bus.close()


@pytest.fixture
def make(peer, buses):
    """A bus to the peer, open."""

    def build(**options: Any) -> ModbusTcp:
        text = {"timeout_floor": f"{LIMIT_S}s", "timeout_ceiling": f"{LIMIT_S}s", "connect_timeout": "500ms"}
        section = {"kind": "modbus-tcp", "host": "127.0.0.1", "port": peer.port} | text | options
        bus = ModbusTcp("wire", ModbusTcpSettings.model_validate(section), SystemClock())
        buses.append(bus)
        bus.open()
        return bus

    return build


@pytest.fixture
def meter(tmp_path):
    """A device whose quantities q<address> each are one register; a tuple (address, fc) for another function."""

    def build(bus: ModbusTcp, addresses: list[Any], *, unit: int = 1, head: str = "", **options: Any):
        places = [place if isinstance(place, tuple) else (place, 3) for place in addresses]
        rows = "\n".join(f"  q{at}: {{at: {at}, fc: {fc}, type: u16}}" for at, fc in places)
        own = "\n".join(f"  q{at}: {{unit: ''}}" for at, _ in places)
        text = "name: X\nvendor: Y\nsource: Z\nconfidence: C\nverified: simulator\n"
        path = tmp_path / f"meter-{abs(hash((rows, head)))}.yaml"
        path.write_text(f"{text}{head}\nregisters:\n{rows}\nquantities:\n{own}\n")
        section = {"bus": "wire", "profile": str(path), "unit": unit} | options
        chosen = ModbusTcpDeviceSettings.model_validate(section)
        return bus.device(f"meter-{unit}", chosen, bus.profile(chosen, Path()))

    return build


def expected(addresses: list[int], unit: int = 1, fc: int = 3) -> dict[str, float]:
    return {f"q{at}": float(word(unit, fc, at)) for at in addresses}


def reason(act: Callable[[], object]) -> str:
    with pytest.raises(DeviceError) as caught:
        act()
    return caught.value.reason


# --- what is asked and what comes back


def test_neighbouring_values_come_in_one_request(peer, make, meter):
    """A poll of values that stand near each other costs one request, and every value is its own register's."""
    device = meter(make(), [0, 1, 2, 10, 30])
    for _ in range(3):
        assert device.read(ALL) == (expected([0, 1, 2, 10, 30]), {})
    assert [(asked.address, asked.count) for asked in peer.asked] == [(0, 31)] * 3
    assert device.stats["requests"] == 3


def test_a_request_is_the_one_that_the_standard_prints():
    """Modbus Application Protocol V1.1b3, 6.3: three holding registers from 107 (wire address 0x6B)."""
    assert tcp_frame(0xFF, 3, 0x6B, 3) == bytes.fromhex("0000 0000 0006 ff 03 006b 0003")


@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 8, 9])
def test_a_reply_in_pieces_is_put_together(peer, make, meter, pieces):
    """TCP keeps no message borders: wherever the reply is cut, the values are the same."""

    def cut(asked: Asked) -> list[Any]:
        data = right(asked)
        return [part for i in range(0, len(data), pieces) for part in (data[i : i + pieces], Wait(0.002))]

    peer.answer = cut
    device = meter(make(timeout_floor="1s", timeout_ceiling="1s"), [0, 1, 2])
    assert device.read(ALL).values == expected([0, 1, 2])
    assert device.read(ALL).values == expected([0, 1, 2])


def test_a_late_reply_is_never_taken_for_another_registers(peer, make, meter):
    """The reply to a request that timed out arrives during the next one, equally long, and is dropped."""
    late = threading.Event()

    def slow_once(asked: Asked) -> Any:
        if not late.is_set():
            late.set()
            return [Wait(LIMIT_S + 0.04), right(asked), Wait(0.02)]
        return right(asked)

    peer.answer = slow_once
    bus = make()
    first, second = meter(bus, [0, 1]), meter(bus, [500, 501])
    assert reason(lambda: first.read(ALL)) == "timeout"
    assert second.read(ALL).values == expected([500, 501])
    assert first.read(ALL).values == expected([0, 1])
    assert second.stats["late_replies"] == 1
    assert peer.connections == 1


def test_replies_of_other_transactions_are_passed_over(peer, make, meter):
    """Two foreign transactions arrive before ours, in one piece."""
    peer.answer = lambda asked: (
        mbap(asked.tid ^ 1, pdu(asked)[:3] + bytes(2)) + mbap(asked.tid ^ 0x8000, pdu(asked)) + right(asked)
    )
    device = meter(make(), [0])
    assert device.read(ALL).values == expected([0])
    assert device.read(ALL).values == expected([0])


WRONG = {
    "unit": lambda asked: mbap(asked.tid, bytes([asked.unit ^ 1]) + pdu(asked)[1:]),
    "function": lambda asked: mbap(asked.tid, pdu(asked)[:1] + b"\x04" + pdu(asked)[2:]),
    "byte count": lambda asked: mbap(asked.tid, pdu(asked)[:2] + b"\x02" + pdu(asked)[3:]),
    "fewer registers": lambda asked: mbap(asked.tid, pdu(asked)[:2] + b"\x02" + pdu(asked)[3:5]),
    "more registers": lambda asked: mbap(asked.tid, pdu(asked)[:2] + b"\x06" + pdu(asked)[3:] + bytes(2)),
    "too short": lambda asked: mbap(asked.tid, pdu(asked)[:5]),
    "too long": lambda asked: mbap(asked.tid, pdu(asked) + b"\x00"),
    "protocol": lambda asked: struct.pack(">HHH", asked.tid, 1, 7) + pdu(asked),
    "length 65535": lambda asked: struct.pack(">HHH", asked.tid, 0, 65535) + pdu(asked),
    "length 255": lambda asked: struct.pack(">HHH", asked.tid, 0, 255) + pdu(asked) + bytes(250),
    "length 1": lambda asked: struct.pack(">HHH", asked.tid, 0, 1) + pdu(asked)[:1],
    "length 0": lambda asked: struct.pack(">HHH", asked.tid, 0, 0),
    "text": lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_reply_gives_no_value_and_the_next_one_is_right(peer, make, meter, what):
    """Unit, function, byte count, length and protocol must match, or nothing is believed."""
    device = meter(make(), [0, 1])
    peer.answer = WRONG[what]
    assert reason(lambda: device.read(ALL)) == "wrong-reply"
    assert device.stats["wrong_replies"] == 1
    peer.answer = right
    assert device.read(ALL).values == expected([0, 1])


def test_a_flood_of_foreign_frames_is_cut_off(peer, make, meter):
    """A peer that never stops talking costs one bounded question and a new connection."""
    peer.answer = lambda asked: [mbap(asked.tid ^ 1, pdu(asked)) * 100_000]
    device = meter(make(timeout_floor="2s", timeout_ceiling="2s"), [0])
    assert reason(lambda: device.read(ALL)) == "wrong-reply"
    peer.answer = right
    assert device.read(ALL).values == expected([0])
    assert peer.connections == 2


@given(
    junk=st.one_of(st.binary(max_size=80), st.binary(max_size=30).map(lambda data: b"\x00\x01\x00\x00\x00\x05" + data))
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_from_the_far_end_become_a_value(peer, make, meter, junk):
    """Whatever a broken peer sends, the reading is absent with a reason."""
    peer.answer = lambda _: [junk, HANG_UP]
    bus = make(timeout_floor="20ms", timeout_ceiling="20ms")
    with closing(bus):
        assert reason(lambda: meter(bus, [0, 1]).read(ALL)) in {"timeout", "wrong-reply", "bus-down"}


# --- silence


def test_a_dead_unit_costs_its_neighbours_nothing_but_one_wait(peer, make, meter):
    """Behind one connection unit 2 is silent; unit 1 goes on, over the same connection."""
    peer.answer = lambda asked: right(asked) if asked.unit == 1 else b""
    bus = make()
    alive, dead = meter(bus, [0], unit=1), meter(bus, [0], unit=2)
    for _ in range(4):
        assert reason(lambda: dead.read(ALL)) == "timeout"
        assert alive.read(ALL).values == expected([0])
    assert peer.connections == 1
    assert dead.stats["timeouts"] == 4


def test_after_the_first_silence_the_rest_of_a_unit_is_left_for_later(peer, make, meter):
    """What was read counts, the rest is absent, and the next cycle begins behind the request that failed."""
    device = meter(make(), [0, 100, 200, 300])
    peer.answer = lambda asked: b"" if asked.address == 100 else right(asked)
    sample = device.read(ALL)
    assert sample.values == expected([0])
    assert sample.absent == dict.fromkeys(["q100", "q200", "q300"], "timeout")
    sample = device.read(ALL)
    assert sample.values == expected([200, 300, 0])
    assert sample.absent == {"q100": "timeout"}
    peer.answer = right
    assert device.read(ALL).values == expected([0, 100, 200, 300])


@pytest.mark.parametrize("dead", [0, 100, 200])
def test_no_register_starves_behind_one_that_never_answers(peer, make, meter, dead):
    """Within two cycles every register that does answer has been read."""
    device = meter(make(), [0, 100, 200])
    peer.answer = lambda asked: b"" if asked.address == dead else right(asked)
    seen: Counter[str] = Counter()
    for _ in range(2):
        with suppress(DeviceError):  # when the dead one was asked first
            seen.update(device.read(ALL).values)
    assert set(seen) == {"q0", "q100", "q200"} - {f"q{dead}"}


def test_a_half_open_connection_is_replaced(peer, make, meter):
    """The first connection takes everything and says nothing; after three silences a second one is tried."""
    peer.answer = lambda asked: right(asked) if asked.connection == 2 else b""
    device = meter(make(), [0])
    for _ in range(3):
        assert reason(lambda: device.read(ALL)) == "timeout"
    assert device.read(ALL).values == expected([0])
    assert peer.connections == 2


def test_a_peer_that_closes_when_idle_costs_no_reading(peer, make, meter):
    """Each reply is followed by a hang-up; the next question reconnects by itself."""
    peer.answer = lambda asked: [right(asked), HANG_UP]
    device = meter(make(), [0])
    for _ in range(3):
        assert device.read(ALL).values == expected([0])
    assert peer.connections == 3


def test_a_peer_that_only_hangs_up_is_a_lost_wire(peer, make, meter):
    """No reply ever came over the connection: every device on it is affected, and the bus says why."""
    peer.answer = lambda _: HANG_UP
    bus = make()
    with pytest.raises(WireError, match="one or two masters"):
        meter(bus, [0]).read(ALL)
    bus.close()
    peer.answer = right
    bus.open()
    assert meter(bus, [0]).read(ALL).values == expected([0])


def test_nobody_listening_is_said_at_once(peer, make):
    """A closed port refuses, and the hint says what to look at."""
    peer.close()
    with pytest.raises(WireError, match="refuses the connection"):
        make()


def test_a_connection_that_is_never_answered_ends_in_time(buses):
    """SYNs vanish (the backlog is full): opening fails within its timeout."""
    with socket.socket() as full, socket.socket() as one, socket.socket() as two:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (one, two):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        section = {"kind": "modbus-tcp", "host": "127.0.0.1", "port": full.getsockname()[1], "connect_timeout": "150ms"}
        bus = ModbusTcp("wire", ModbusTcpSettings.model_validate(section), SystemClock())
        buses.append(bus)
        with pytest.raises(WireError, match=r"does not answer within 0\.15 s"):
            bus.open()


def test_a_closed_bus_asks_nothing(peer, make, meter):
    """Closing is final until it is opened again."""
    bus = make()
    device = meter(bus, [0])
    bus.close()
    assert reason(lambda: device.read(ALL)) == "bus-down"
    assert peer.asked == []


# --- refusals


def strict(*holes: int, code: int = 2) -> Answer:
    """A meter that refuses every request that touches one of these registers."""

    def answer(asked: Asked) -> bytes:
        touched = range(asked.address, asked.address + asked.count)
        return refusal(asked, code) if any(hole in touched for hole in holes) else right(asked)

    return answer


def test_a_refused_hole_is_avoided_from_then_on(peer, make, meter):
    """Exception 02 for a bridged block: the values come in smaller requests, in the same cycle and ever after."""
    peer.answer = strict(5)
    device = meter(make(), [0, 1, 8, 9])
    for _ in range(3):
        assert device.read(ALL) == (expected([0, 1, 8, 9]), {})
    asked = [(each.address, each.count) for each in peer.asked]
    assert asked == [(0, 10), *[(0, 2), (8, 2)] * 3]


@pytest.mark.parametrize("code", [1, 2, 3])
def test_a_refused_value_is_absent_and_the_others_come(peer, make, meter, code):
    """One register that the meter does not have: an exception for it alone, and it is not asked again."""
    addresses = list(range(12))
    peer.answer = strict(7, code=code)
    device = meter(make(), addresses)
    device.read(ALL)
    learnt = len(peer.asked)
    for _ in range(3):
        sample = device.read(ALL)
        assert sample.values == expected([at for at in addresses if at != 7])
        assert sample.absent == {"q7": f"exception-0{code}"}
    again = peer.asked[learnt:]
    assert not any(each.address <= 7 < each.address + each.count for each in again)
    assert len(again) <= 3 * 4


@given(refused=st.sets(st.integers(0, 60), min_size=1, max_size=20))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_strict_meter_is_learnt_within_a_few_cycles(peer, make, meter, refused):
    """Whichever registers it refuses, soon all others are read and only those are absent."""
    addresses = [*range(0, 20, 2), *range(30, 50)]
    peer.answer = strict(*refused)
    bus = make()
    with closing(bus):
        device = meter(bus, addresses)
        for _ in range(12):
            sample = device.read(ALL)
        there = [at for at in addresses if at not in refused]
        assert sample.values == expected(there)
        assert sample.absent == {f"q{at}": "exception-02" for at in addresses if at in refused}


def test_a_reopened_bus_forgets_what_was_refused(peer, make, meter):
    """Another meter may be there now."""
    bus = make()
    device = meter(bus, [0, 1])
    peer.answer = strict(1)
    assert device.read(ALL).absent == {"q1": "exception-02"}
    bus.close()
    bus.open()
    peer.answer = right
    assert device.read(ALL) == (expected([0, 1]), {})


def test_a_meter_that_refuses_everything_is_a_device_error(peer, make, meter):
    """The profile does not fit; nothing is disabled for ever."""
    device = meter(make(), [0, 1])
    peer.answer = strict(0, 1)
    with pytest.raises(DeviceError, match=r"does .* fit this meter") as caught:
        device.read(ALL)
    assert caught.value.reason == "exception-02"
    peer.answer = right
    assert device.read(ALL).values == expected([0, 1])


@pytest.mark.parametrize("code", [4, 5, 6])
def test_a_passing_refusal_is_absent_once(peer, make, meter, code):
    """Busy or failing now: absent now, asked again next time, the other requests go on."""
    device = meter(make(), [0, 100])
    peer.answer = lambda asked: refusal(asked, code) if asked.address == 0 else right(asked)
    assert device.read(ALL) == (expected([100]), {"q0": f"exception-0{code}"})
    peer.answer = right
    assert device.read(ALL) == (expected([0, 100]), {})


@pytest.mark.parametrize("code", [0x0A, 0x0B])
def test_a_gateway_that_reaches_nobody_counts_as_silence(peer, make, meter, code):
    """Exceptions 0A and 0B cost one request per cycle, not one per block."""
    device = meter(make(), [0, 100, 200])
    peer.answer = lambda asked: refusal(asked, code)
    assert reason(lambda: device.read(ALL)) == f"exception-{code:02X}"
    assert len(peer.asked) == 1
    assert reason(device.probe) == f"exception-{code:02X}"


def test_a_storm_of_refusals_ends_the_cycle(peer, make, meter):
    """All reads answer "busy": two questions, then no more in this cycle."""
    device = meter(make(), [0, 100, 200, 300, 400])
    peer.answer = lambda asked: refusal(asked, 6)
    assert reason(lambda: device.read(ALL)) == "exception-06"
    assert len(peer.asked) == 2


def test_a_probe_is_one_small_read(peer, make, meter):
    """The cheapest question; whoever refuses it is there."""
    device = meter(make(), [3, 4, 5, 6])
    device.probe()
    assert [(each.address, each.count) for each in peer.asked] == [(3, 1)]
    peer.answer = lambda asked: refusal(asked, 2)
    device.probe()
    peer.answer = lambda _: b""
    assert reason(device.probe) == "timeout"


# --- how long to wait


def test_the_first_answer_may_take_the_ceiling_and_later_ones_follow_the_latency():
    """Four times the filtered latency between floor and ceiling, doubled by each silence."""
    ms = 1_000_000
    unit = Unit(1, floor=100 * ms, ceiling=3000 * ms)
    assert unit.limit == 3000 * ms
    unit.answered(10 * ms)
    assert unit.limit == 100 * ms
    unit.silent()
    unit.silent()
    assert unit.limit == 400 * ms
    unit.answered(200 * ms)
    assert 800 * ms <= unit.limit < 820 * ms
    for _ in range(100):
        unit.answered(10 * ms)
    assert unit.limit == 100 * ms
    for _ in range(10):
        unit.silent()
    assert unit.limit == 3000 * ms
    assert unit.latency_ms() == (10, 10)


@given(st.lists(st.one_of(st.none(), st.integers(0, 10**10)), max_size=200))
def test_the_limit_stays_between_floor_and_ceiling(history):
    """Whatever the latencies and silences were."""
    unit = Unit(1, floor=10**8, ceiling=3 * 10**9)
    for took in history:
        unit.requests += 1
        if took is None:
            unit.silent()
        else:
            unit.answered(took)
        assert unit.floor <= unit.limit <= unit.ceiling


def test_a_dead_neighbour_waits_for_less_than_a_period(peer, make, meter):
    """Unless a ceiling is set, no unit may hold the wire for longer than 0.8 of its neighbours' shortest period."""
    bus = make(timeout_ceiling=None, timeout_floor="300ms")
    alone = meter(bus, [0], unit=1)
    assert alone.unit.limit == 4_000_000_000
    meter(bus, [0], unit=2, every="1s")
    assert alone.unit.limit == 800_000_000
    meter(bus, [0], unit=3, every="100ms")
    assert alone.unit.limit == 500_000_000


# --- a device's settings


def test_ratios_and_direction_apply_to_what_they_concern(tmp_path, peer, make):
    """CT × PT for power and energy, CT for current, PT for voltage; reversed transformers swap import and export."""
    rows = {"voltage_l1": "V", "current_l1": "A", "active_power": "W", "active_power_l1": "kW", "frequency": "Hz"}
    rows |= {"energy_import": "kWh", "energy_export": "kWh", "reactive_energy_import": "kvarh"}
    table = "\n".join(
        f"  {name}: {{at: {at}, fc: 3, type: u16, unit: {unit}}}" for at, (name, unit) in enumerate(rows.items())
    )
    path = tmp_path / "m.yaml"
    path.write_text(f"name: X\nvendor: Y\nsource: Z\nconfidence: C\nverified: simulator\nregisters:\n{table}\n")
    section = {"bus": "wire", "profile": str(path), "ct_ratio": 40, "pt_ratio": 2.5, "invert": True}
    chosen = ModbusTcpDeviceSettings.model_validate(section)
    bus = make()
    device = bus.device("meter", chosen, bus.profile(chosen, Path()))
    raw = [float(word(1, 3, at)) for at in range(8)]
    assert device.read(ALL).values == {
        "voltage_l1": raw[0] * 2.5,
        "current_l1": raw[1] * 40,
        "active_power": -raw[2] * 100,
        "active_power_l1": -raw[3] * 100_000,
        "frequency": raw[4],
        "energy_export": raw[5] * 100_000,
        "energy_import": raw[6] * 100_000,
        "reactive_energy_export": raw[7] * 100_000,
    }
    assert set(device.quantities) == set(device.read(ALL).values)


GROUPS = "groups: {slow: 10s}"


def test_groups_have_periods_of_their_own(peer, make, meter, tmp_path):
    """Only what is due is asked; a period in the device's settings wins, and none is shorter than `every`."""
    bus = make()
    profile = load_profile("eastron-sdm630", Path())
    energy = next(name for name in profile.groups if name == "energy")
    chosen = ModbusTcpDeviceSettings.model_validate({"bus": "wire", "profile": "eastron-sdm630", "unit": 1})
    assert bus.device("m", chosen, profile).groups[energy] == 10.0
    assert bus.device("m", chosen.model_copy(update={"every": 60.0}), profile).groups[energy] == 60.0
    quick = bus.device("m", chosen.model_copy(update={"groups": {energy: 2.0}}), profile)
    assert (quick.groups["default"], quick.groups[energy]) == (1.0, 2.0)
    sample = quick.read(frozenset({energy}))
    assert sample.values.keys() | sample.absent.keys() == {row.name for row in profile.registers if row.group == energy}


def test_a_device_may_read_only_what_it_wants(peer, make, meter):
    """`quantities` chooses; what is not chosen is neither asked nor promised."""
    device = meter(make(), [0, 1, 100], quantities=["q100"])
    assert list(device.quantities) == ["q100"]
    assert device.read(ALL).values == expected([100])
    assert len(peer.asked) == 1


def test_names_that_a_profile_does_not_have_are_refused_with_the_right_ones(make, meter):
    """Misspelt groups and quantities are found before anything runs."""
    bus = make()
    with pytest.raises(ProfileError, match="did you mean 'q100'"):
        meter(bus, [0, 100], quantities=["q10"])
    with pytest.raises(ProfileError, match="no group 'energy'"):
        meter(bus, [0], groups={"energy": "5s"})


def test_function_codes_do_not_share_requests(peer, make, meter):
    """Input and holding registers of equal address are different registers."""
    device = meter(make(), [(0, 4), (1, 3)])
    assert device.read(ALL).values == expected([0], fc=4) | expected([1], fc=3)


def test_a_register_can_be_read_by_hand(peer, make):
    """What commissioning uses: the raw bytes of any registers of any unit."""
    bus = make()
    assert bus.request(9, 4, 0x5B00, 2) == struct.pack(">2H", word(9, 4, 0x5B00), word(9, 4, 0x5B01))
    peer.answer = lambda _: b""
    assert reason(lambda: bus.request(9, 4, 0, 1, timeout_s=0.03)) == "timeout"


def test_holes_are_bridged_as_far_as_profile_and_settings_say(peer, make, meter):
    """`bridge` on the bus wins; `holes: false` in the profile forbids any."""
    meter(make(bridge=0), [0, 2]).read(ALL)
    meter(make(), [0, 2], head="holes: false").read(ALL)
    meter(make(), [0, 60], head="bridge: 100").read(ALL)
    assert [(each.address, each.count) for each in peer.asked] == [(0, 1), (2, 1), (0, 1), (2, 1), (0, 61)]


# --- SunSpec


def chain(*models: tuple[int, int], start: int = 40000) -> dict[int, int]:
    memory = {start: 0x5375, start + 1: 0x6E53}
    at = start + 2
    for model, length in models:
        memory |= {at: model, at + 1: length}
        memory |= {at + 2 + i: model * 100 + 2 + i & 0xFFFF for i in range(min(length, 200))}
        at += 2 + length
    return memory


def memory_of(registers: dict[int, int]) -> Callable[[int, int], bytes]:
    def read(address: int, count: int) -> bytes:
        try:
            return struct.pack(f">{count}H", *[registers[address + i] for i in range(count)])
        except KeyError:
            raise DeviceError("exception-02") from None

    return read


@pytest.mark.parametrize("start", [0, 40000, 50000])
def test_a_sunspec_model_is_found_wherever_the_map_begins(start):
    """The marker may stand at three places; the models are walked by their lengths."""
    registers = chain((1, 66), (203, 105), (0xFFFF, 0), start=start)
    assert find_model(memory_of(registers), {203, 213}) == start + 2 + 68


@pytest.mark.parametrize(
    "registers",
    [
        {},
        {40000: 1, 40001: 2},
        chain((1, 66), (0xFFFF, 0)),
        chain((1, 0), (2, 0), (3, 0)),
        chain((1, 65000)),
        chain(*[(7, 0)] * 100),
    ],
    ids=["no map", "no marker", "no model", "no end", "beyond the end", "endless"],
)
def test_a_sunspec_map_without_the_model_is_an_error(registers):
    """Refused, empty, endless and broken chains all end, and with a reason."""
    with pytest.raises(DeviceError):
        find_model(memory_of(registers), {203})


def test_sunspec_addresses_are_relative_to_the_model_and_found_once(peer, make, meter):
    """The walk is done once per opened bus; then one request per poll."""
    registers = chain((1, 66), (203, 105), (0xFFFF, 0))

    def answer(asked: Asked) -> bytes:
        words = [registers.get(asked.address + i) for i in range(asked.count)]
        if None in words:
            return refusal(asked, 2)
        return mbap(asked.tid, struct.pack(f">BBB{asked.count}H", asked.unit, 3, 2 * asked.count, *words))

    peer.answer = answer
    bus = make()
    device = meter(bus, [2, 20], head="discover: sunspec\nmodel: 203")
    assert device.read(ALL).values == {"q2": 20302.0, "q20": 20320.0}
    walked = len(peer.asked)
    device.read(ALL)
    assert len(peer.asked) == walked + 1
    bus.close()
    bus.open()
    device.read(ALL)
    assert len(peer.asked) == 2 * walked + 1


def test_gap_and_warm_up_are_waited_for_on_the_clock(peer, buses, meter):
    """A slow gateway gets its pause after opening and after every answer."""
    clock = ManualClock()
    section = {"kind": "modbus-tcp", "host": "127.0.0.1", "port": peer.port, "gap": "200ms", "warm_up": "3s"}
    bus = ModbusTcp("wire", ModbusTcpSettings.model_validate(section), clock)
    buses.append(bus)
    began_ns = clock.mono_ns()
    bus.open()
    assert clock.mono_ns() - began_ns == 3_000_000_000
    for _ in range(3):
        bus.request(1, 3, 0, 1)
    assert clock.mono_ns() - began_ns == 3_400_000_000
