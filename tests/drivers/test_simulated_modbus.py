"""Twins of meters: what they measure obeys physics, and the real client reads it over a real wire, faults included."""

from __future__ import annotations

import math
import socket
import struct
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from drivers.registers import load_profile, profile_names
from drivers.simulated.faults import Fault, active
from drivers.simulated.load import OVERLOAD, Load, LoadSection
from drivers.simulated.meter import MeterTwin, TwinSection
from drivers.simulated.modbus import SimulatedModbusRtu, SimulatedModbusTcp
from drivers.simulated.server import ModbusTwinServer, crc16, frame_rtu, take_rtu
from edge_agent.clock import ManualClock, SystemClock
from edge_agent.errors import DeviceError, WireError
from edge_agent.vocabulary import CRC, NOT_A_NUMBER, SENTINEL, TIMEOUT, WRONG_REPLY

QUICK = {"timeout_floor": "200ms", "timeout_ceiling": "250ms"}
LINE = {**QUICK, "baudrate": 115_200}


def _bus(kind, clock, *, devices, **settings):
    """A simulated bus and its devices by name; ``devices``: name → settings beyond the bus."""
    name = "simulated-modbus-tcp" if kind is SimulatedModbusTcp else "simulated-modbus-rtu"
    bus = kind("wire", kind.Settings.model_validate({"kind": name, **settings}), clock)
    made = {}
    for device, own in devices.items():
        section = kind.DeviceSettings.model_validate({"bus": "wire", **own})
        made[device] = bus.device(device, section, kind.profile(section, Path()))
    return bus, made


@pytest.fixture
def wire():
    """Builds simulated buses that are closed at the end."""
    opened = []

    def build(kind, clock, **settings):
        bus, devices = _bus(kind, clock, **settings)
        opened.append(bus)
        bus.open()
        return bus, devices

    yield build
    for bus in opened:
        bus.close()


def _all(device):
    return frozenset(device.groups)


def _read_often(device):
    """Until the fault has reached the wire."""
    for _ in range(50):
        device.read(_all(device))


def _open_and_read(bus, device):
    bus.open()
    return device.read(_all(device))


def _resolution(profile, name, value):
    """What rounding in the meter may cost."""
    row = next(row for row in profile.registers if row.name == name)
    step = 0.0 if row.is_float else abs(float(row.gain)) * (1 if row.scale_from is None else abs(value) / 3000 + 1)
    return 0.51 * step + abs(value) * 1e-6


# --- the wire, for every table


@pytest.mark.parametrize("name", profile_names())
def test_every_meter_is_read_back_as_the_load_is(wire, name):
    """Every table: twin, socket and client agree on every quantity within the meter's own rounding."""
    clock = ManualClock()
    twin = {"load": "constant", "power": "17.3 kW", "power_factor": 0.91, "balance": [1.0, 0.8, 1.1]}
    bus, devices = wire(SimulatedModbusTcp, clock, devices={"m": {"unit": 1, "profile": name, "twin": twin}})
    profile = load_profile(name, Path())
    sample = devices["m"].read(_all(devices["m"]))
    measures = bus.twins[1].measures()
    assert not sample.absent
    assert set(sample.values) == set(profile.quantities)
    for quantity in set(sample.values) & set(measures):
        expected = measures[quantity]
        assert sample.values[quantity] == pytest.approx(expected, abs=_resolution(profile, quantity, expected))


@pytest.mark.parametrize("name", ["eastron-sdm630", "carlo-gavazzi-em24", "sunspec-203", "siemens-pac3200"])
def test_a_serial_line_says_the_same(wire, name):
    """Over a pseudo-terminal, with checksums and silences, the values are those of the load as well."""
    bus, devices = wire(SimulatedModbusRtu, ManualClock(), devices={"m": {"unit": 9, "profile": name}}, baudrate=115200)
    sample = devices["m"].read(_all(devices["m"]))
    measures = bus.twins[9].measures()
    assert not sample.absent
    for quantity, value in sample.values.items():
        assert value == pytest.approx(measures[quantity], rel=0.02, abs=1.0)


def test_transformers_and_direction_are_seen_through(wire):
    """With ratios and a reversed transformer configured, the reading is the load itself, not what the meter sees."""
    twin = {"load": "constant", "power": "400 kW", "voltage": "3300 V"}
    own = {"unit": 1, "profile": "abb-b24", "ct_ratio": 40, "pt_ratio": 30, "invert": True, "twin": twin}
    bus, devices = wire(SimulatedModbusTcp, ManualClock(), devices={"m": own})
    sample = devices["m"].read(_all(devices["m"]))
    measures = bus.twins[1].measures()
    for quantity in ("active_power", "active_power_l2", "voltage_l1", "current_l3", "energy_import", "energy_export"):
        assert sample.values[quantity] == pytest.approx(measures[quantity], rel=1e-3, abs=0.1), quantity


def test_a_reversed_meter_with_two_powers_changes_them_round(wire):
    """Where import and export are registers of their own, a reversed transformer exchanges them and negates none."""
    own = {"unit": 1, "profile": "dzg-dvh4013", "invert": True, "twin": {"load": "constant"}}
    bus, devices = wire(SimulatedModbusTcp, ManualClock(), devices={"m": own})
    sample, measures = devices["m"].read(_all(devices["m"])), bus.twins[1].measures()
    for quantity in ("active_power_import", "active_power_export", "energy_import_l1", "energy_export"):
        assert sample.values[quantity] == pytest.approx(measures[quantity], rel=1e-4, abs=0.1), quantity
    assert measures["active_power_import"] > 0


def test_sunspec_scale_factors_move_with_the_load(wire):
    """From a kilowatt to five megawatts the scale factor changes and every value stays right."""
    for power in ("1 kW", "5 MW"):
        own = {"unit": 1, "profile": "sunspec-203", "twin": {"load": "constant", "power": power}}
        bus, devices = wire(SimulatedModbusTcp, ManualClock(), devices={"m": own})
        sample = devices["m"].read(_all(devices["m"]))
        assert sample.values["active_power"] == pytest.approx(bus.twins[1].measures()["active_power"], rel=1e-3)


# --- what goes wrong

GIVES_NOTHING = [
    *[(SimulatedModbusTcp, kind, TIMEOUT) for kind in ("silent", "late", "cut")],
    *[(SimulatedModbusTcp, kind, WRONG_REPLY) for kind in ("garbage-before", "wrong-unit", "wrong-function")],
    (SimulatedModbusTcp, "exception-04", "exception-04"),
    *[(SimulatedModbusRtu, kind, TIMEOUT) for kind in ("silent", "late")],
    *[(SimulatedModbusRtu, kind, CRC) for kind in ("crc", "cut")],
    *[(SimulatedModbusRtu, kind, WRONG_REPLY) for kind in ("wrong-unit", "wrong-function")],
    (SimulatedModbusRtu, "exception-06", "exception-06"),
]


@pytest.mark.parametrize(
    ("kind", "fault", "reason"), GIVES_NOTHING, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_faulty_meter_gives_nothing_and_its_neighbour_everything(wire, kind, fault, reason):
    """One unit at fault: nothing of it is believed, the reason is told; its neighbour and its own return are right."""
    twin = {"load": "constant", "late_by": "3s"}
    own = {"profile": "eastron-sdm630", "twin": twin}
    limits = QUICK if kind is SimulatedModbusTcp else LINE
    bus, devices = wire(kind, SystemClock(), devices={"bad": {"unit": 1, **own}, "good": {"unit": 2, **own}}, **limits)
    for device in devices.values():
        device.read(_all(device))
    bus.server.set_fault(1, fault)
    with pytest.raises(DeviceError) as caught:
        devices["bad"].read(_all(devices["bad"]))
    assert caught.value.reason == reason
    assert not isinstance(caught.value, WireError)
    good = devices["good"].read(_all(devices["good"]))
    assert not good.absent
    assert good.values["active_power"] == pytest.approx(20e3, rel=0.05)
    bus.server.set_fault(1, None)
    for _ in range(3):  # a late answer may cost the first of them
        try:
            back = devices["bad"].read(_all(devices["bad"]))
            break
        except DeviceError:
            continue
    assert not back.absent
    assert back.values["voltage_l1"] == pytest.approx(220, rel=0.05)
    assert back.values["active_power"] == pytest.approx(20e3, rel=0.05)


def test_a_meter_that_refuses_everything_says_so(wire):
    """Illegal addresses everywhere: every quantity is absent for that reason, and the neighbour is read."""
    own = {"profile": "eastron-sdm120"}
    bus, devices = wire(
        SimulatedModbusTcp, SystemClock(), devices={"bad": {"unit": 1, **own}, "good": {"unit": 2, **own}}
    )
    bus.server.set_fault(1, "exception-02")
    sample = devices["bad"].read(_all(devices["bad"]))
    assert not sample.values
    assert set(sample.absent.values()) == {"exception-02"}
    assert not devices["good"].read(_all(devices["good"])).absent


def test_noise_before_an_answer_is_skipped_on_a_serial_line(wire):
    """Garbage on the line costs nothing when a whole, true answer follows it; nothing is decoded shifted."""
    bus, devices = wire(
        SimulatedModbusRtu, SystemClock(), devices={"m": {"unit": 1, "profile": "eastron-sdm630"}}, **LINE
    )
    bus.server.set_fault(1, "garbage-before")
    for _ in range(5):
        sample = devices["m"].read(_all(devices["m"]))
        assert sample.values["voltage_l1"] == pytest.approx(220, rel=0.05)


@pytest.mark.parametrize("late_by", [80, 95, 130, 180])
def test_late_answers_are_never_taken_for_other_registers(wire, late_by):
    """A meter that always answers too late, in replies of equal length, never puts a value in a wrong place."""
    own = {"profile": "eastron-sdm120", "quantities": ["voltage", "current"]}
    slow = {"load": "constant", "late_by": f"{late_by}ms", "faults": [{"kind": "late", "at": "0s"}]}
    bus, devices = wire(
        SimulatedModbusRtu,
        SystemClock(),
        devices={
            "slow": {"unit": 1, **own, "twin": {**slow, "power": "9 kW", "voltage": "230 V"}},
            "fast": {"unit": 1 + 1, **own, "twin": {"load": "constant", "power": "1 kW", "voltage": "110 V"}},
        },
        timeout_floor="30ms",
        timeout_ceiling="60ms",
        baudrate=115_200,
        bridge=0,
    )
    assert bus.twins[1].faults() == {"late"}
    for _ in range(3):
        for device, volts in (("slow", 230), ("fast", 110)):
            try:
                values = devices[device].read(_all(devices[device])).values
            except DeviceError:
                continue
            assert values.get("voltage", volts) == pytest.approx(volts, rel=0.05)
            assert values.get("current", 10) < 60
    assert bus.unit(1).stats["timeouts"] > 0


def test_not_available_is_absent_and_the_rest_stays(wire):
    """A meter that marks its values as not available gives reasons, no numbers; what cannot be marked is read on."""
    devices = {
        "floats": {"unit": 1, "profile": "eastron-sdm630"},
        "marks": {"unit": 2, "profile": "abb-b23"},
        "sunspec": {"unit": 3, "profile": "sunspec-203"},
        "without": {"unit": 4, "profile": "dzg-dvh4013"},
    }
    bus, made = wire(SimulatedModbusTcp, ManualClock(), devices=devices)
    for unit in bus.twins:
        bus.server.set_fault(unit, "nan")
    samples = {name: device.read(_all(device)) for name, device in made.items()}
    assert set(samples["floats"].absent.values()) == {NOT_A_NUMBER}
    assert set(samples["marks"].absent.values()) == set(samples["sunspec"].absent.values()) == {SENTINEL}
    assert not any(samples[name].values for name in ("floats", "marks", "sunspec"))
    assert not samples["without"].absent


def test_a_reset_counter_and_an_overload_are_real_readings(wire):
    """Counters begin at nothing once; the overload exceeds the nominal power; both are true values."""
    bus, devices = wire(
        SimulatedModbusTcp,
        clock := ManualClock(),
        devices={"m": {"unit": 1, "profile": "abb-b23", "twin": {"load": "constant"}}},
    )
    device = devices["m"]
    before = device.read(_all(device)).values
    bus.server.set_fault(1, "counter-reset")
    clock.advance(60)
    device.read(_all(device))
    clock.advance(60)
    after = device.read(_all(device)).values
    assert 0 < after["energy_import"] < 1_000 < before["energy_import"]
    bus.server.set_fault(1, "overload")
    assert device.read(_all(device)).values["active_power"] == pytest.approx(OVERLOAD * 20e3, rel=0.05)


@pytest.mark.parametrize("kind", [SimulatedModbusTcp, SimulatedModbusRtu])
def test_the_wire_goes_and_comes_back(wire, kind):
    """Unplugged, every read says that the bus is gone; plugged in again, the same bus reads on by itself."""
    bus, devices = wire(kind, SystemClock(), devices={"m": {"unit": 1, "profile": "eastron-sdm630"}}, **QUICK)
    device = devices["m"]
    device.read(_all(device))
    bus.server.set_fault(1, "disconnect")
    with pytest.raises(WireError):
        _read_often(device)
    for _ in range(2):  # whoever polls closes the bus and opens it again
        with pytest.raises(WireError):
            _open_and_read(bus, device)
        bus.close()
    bus.server.set_fault(1, None)
    for _ in range(200):
        try:
            sample = _open_and_read(bus, device)
            break
        except DeviceError:
            threading.Event().wait(0.01)
    assert sample.values["voltage_l1"] == pytest.approx(220, rel=0.05)


def test_faults_follow_their_script(wire):
    """A scripted fault comes at its time, lasts as long as it says and returns; the other unit has its own script."""
    script = [{"kind": "silent", "at": "10s", "for": "5s", "every": "60s"}]
    clock = ManualClock()
    bus, devices = wire(
        SimulatedModbusTcp,
        clock,
        devices={
            "m": {"unit": 1, "profile": "eastron-sdm72", "twin": {"faults": script}},
            "n": {"unit": 2, "profile": "eastron-sdm72"},
        },
        **QUICK,
    )
    for seconds, silent in ((0, False), (11, True), (3, True), (2, False), (55, True), (10, False)):
        clock.advance(seconds)
        assert bus.twins[1].faults() == ({"silent"} if silent else set())
        devices["n"].read(_all(devices["n"]))
        if silent:
            with pytest.raises(DeviceError):
                devices["m"].read(_all(devices["m"]))
        else:
            devices["m"].read(_all(devices["m"]))


def test_nobody_at_an_address(wire):
    """A gateway refuses for a unit that it does not have; on a serial line there is only silence."""
    for kind, reason in ((SimulatedModbusTcp, "exception-0B"), (SimulatedModbusRtu, TIMEOUT)):
        bus, _ = wire(kind, SystemClock(), devices={"m": {"unit": 1, "profile": "abb-b23"}}, **QUICK)
        with pytest.raises(DeviceError) as caught:
            bus.request(77, 3, 0x5B00, 2)
        assert caught.value.reason == reason


# --- the twin by itself


def _ask(twin, pdu):
    return twin.reply(bytes.fromhex(pdu))


def test_a_twin_refuses_what_its_meter_would():
    """Writing is an illegal function; unknown, too many or cut registers are refused with their codes."""
    twin = MeterTwin(load_profile("siemens-pac3200", Path()), TwinSection(), ManualClock())
    assert _ask(twin, "06 0001 0000") == bytes((0x86, 1))
    assert _ask(twin, "10 0001 0001 02 0000") == bytes((0x90, 1))
    assert _ask(twin, "03 0001 007E") == bytes((0x83, 3))
    assert _ask(twin, "03 7000 0002") == bytes((0x83, 2))
    assert _ask(twin, "04 0001 0002") == bytes((0x84, 2))  # the table is of function 3
    assert _ask(twin, "03 0002 0002") == bytes((0x83, 2))  # begins inside a value
    assert _ask(twin, "03 0001 0003") == bytes((0x83, 2))  # ends inside one
    assert _ask(twin, "03 0001 0002")[:2] == bytes((3, 4))


def test_a_twin_has_the_identity_of_its_meter():
    """What probing asks for is there: a text at ABB, a number at Carlo Gavazzi, the model chain of SunSpec."""
    clock = ManualClock()
    abb = MeterTwin(load_profile("abb-b23", Path()), TwinSection(), clock)
    assert _ask(abb, "03 8960 0002")[2:].startswith(b"B23")
    gavazzi = MeterTwin(load_profile("carlo-gavazzi-em24-e1", Path()), TwinSection(), clock)
    assert _ask(gavazzi, "04 000B 0001")[2:] == struct.pack(">H", 1648)
    sunspec = MeterTwin(load_profile("sunspec-213", Path()), TwinSection(), clock)
    assert _ask(sunspec, "03 9C40 0003")[2:] == b"SunS\0\x01"
    assert _ask(sunspec, "03 9C86 0002")[2:] == struct.pack(">HH", 213, 124)


def test_every_identity_matches_its_own_twin():
    """A profile's identity rows recognise the twin of that profile, and of no other profile of the family."""
    abb = {name: load_profile(name, Path()) for name in ("abb-b23", "abb-b24", "abb-a43", "abb-a44")}
    twins = {name: MeterTwin(profile, TwinSection(), ManualClock()) for name, profile in abb.items()}
    for name, profile in abb.items():
        (row,) = profile.identity
        request = struct.pack(">BHH", row.fc, row.at, row.size)
        assert [other for other, twin in twins.items() if row.matches(twin.reply(request)[2:])] == [name]


# --- the load

LOADS = st.builds(
    LoadSection.model_validate,
    st.fixed_dictionaries(
        {
            "load": st.sampled_from(["idle", "constant", "press-cycle"]),
            "power": st.integers(1, 900).map("{} kW".format),
            "power_factor": st.floats(0.3, 1.0),
            "balance": st.lists(st.floats(0.1, 10), min_size=3, max_size=3),
            "seed": st.integers(0, 999),
        }
    ),
)


@given(LOADS, st.sampled_from([1, 2, 3]), st.lists(st.floats(0.05, 90), min_size=1, max_size=6), st.booleans())
def test_the_load_obeys_physics(settings, phases, gaps, overload):
    """P = ΣPᵢ, S² = P² + Q², S = ΣVᵢ·Iᵢ, the power factor is P/S, and counters never fall."""
    load, elapsed, before = Load(settings, phases=phases), 0.0, {}
    names = [f"_l{index}" for index in range(1, phases + 1)]
    for gap in gaps:
        elapsed += gap
        now = load.at(elapsed, overload=overload)
        p, q, s = now["active_power"], now["reactive_power"], now["apparent_power"]
        assert p == pytest.approx(sum(now[f"active_power{name}"] for name in names))
        assert s**2 == pytest.approx(p**2 + q**2)
        assert s == pytest.approx(sum(now[f"voltage{name}"] * now[f"current{name}"] for name in names))
        assert now["power_factor"] == pytest.approx(p / s)
        for name in ("energy_import", "energy_export", "reactive_energy_import", "apparent_energy"):
            assert now[name] == pytest.approx(sum(now[f"{name}{phase}"] for phase in names))
            assert now[name] >= before.get(name, 0.0)
        before = now


def test_energy_is_the_integral_of_power():
    """A constant load for an hour adds its power in watt-hours; a press feeds some back while it brakes."""
    for load, sold in (("constant", False), ("press-cycle", True)):
        machine = Load(LoadSection(load=load))
        first, power, last = machine.at(0), 0.0, {}
        for second in range(1, 3601):
            last = machine.at(second)
            power += last["active_power"] / 3600
        net = (last["energy_import"] - first["energy_import"]) - (last["energy_export"] - first["energy_export"])
        assert net == pytest.approx(power, rel=0.02)
        assert (last["energy_export"] > first["energy_export"]) is sold


def test_equal_seeds_give_equal_loads():
    """A run can be repeated exactly; another seed is another run."""
    runs = [Load(LoadSection(seed=seed)).at(30.0) for seed in (4, 4, 5)]
    assert runs[0] == runs[1] != runs[2]


def test_a_long_silence_does_not_cost_long():
    """A week without a reading is integrated in bounded steps, and no energy is lost."""
    machine = Load(LoadSection(load="constant"))
    before = machine.at(0)["energy_import"]
    assert machine.at(7 * 86400)["energy_import"] - before == pytest.approx(20e3 * 168, rel=0.02)


def test_three_phases_stand_120_degrees_apart():
    """Line to line is √3 times line to neutral; an even load leaves no current in the neutral, an uneven one does."""
    even = Load(LoadSection(load="constant")).at(1)
    assert even["voltage_l1_l2"] == pytest.approx(math.sqrt(3) * even["voltage_l1"], rel=0.01)
    assert even["current_n"] < 0.02 * even["current_l1"]
    uneven = Load(LoadSection(load="constant", balance=[2, 1, 1])).at(1)
    assert uneven["current_n"] == pytest.approx(uneven["current_l1"] / 2, rel=0.05)
    split = Load(LoadSection(load="constant"), phases=2).at(1)
    assert split["voltage_l1_l2"] == pytest.approx(2 * split["voltage_l1"], rel=0.01)


# --- frames and settings


def test_the_checksum_is_that_of_the_standard():
    """Reading ten input registers of unit 1 ends in 70 0D, as printed in manuals."""
    assert crc16(bytes.fromhex("01 04 0000 000A")) == bytes.fromhex("70 0D")


@given(st.lists(st.tuples(st.integers(1, 247), st.integers(0, 0xFFFF), st.integers(1, 125)), max_size=4), st.data())
def test_requests_are_found_however_they_arrive(questions, data):
    """Requests cut into any pieces come out whole and in order, with nothing left over."""
    frames = [struct.pack(">BBHH", unit, 3, at, count) for unit, at, count in questions]
    stream = b"".join(frame + crc16(frame) for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    buffer, found = bytearray(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        buffer += stream[start:end]
        found += [(each.unit, *struct.unpack(">HH", each.pdu[1:])) for each in take_rtu(buffer)]
    assert found == questions
    assert not buffer


@given(st.binary(max_size=60))
def test_noise_is_no_request(noise):
    """Whatever arrives, the reader ends with less than one frame in hand, and a good request behind it is found."""
    buffer = bytearray(noise + frame_rtu(0, 5, bytes.fromhex("03 0000 0002")))
    found = list(take_rtu(buffer))
    assert len(buffer) < 8
    assert found


@given(st.floats(0, 200), st.floats(0.01, 50), st.floats(0.01, 50), st.floats(0.01, 50))
def test_a_fault_is_active_only_in_its_time(elapsed, at, lasts, every):
    """Before its time never; without an end for ever; with a period exactly as often as it says."""
    once = Fault(kind="silent", at=f"{at}s", lasts=f"{lasts}s")
    endless = Fault(kind="silent", at=f"{at}s")
    again = Fault(kind="silent", at=f"{at}s", lasts=f"{lasts}s", every=f"{every}s")
    assert bool(active([once], elapsed)) == (0 <= elapsed - once.at < once.lasts)
    assert bool(active([endless], elapsed)) == (elapsed >= endless.at)
    assert bool(active([again], elapsed)) == (elapsed >= again.at and (elapsed - again.at) % again.every < again.lasts)


def test_settings_are_checked_with_the_nearest_word():
    """An unknown fault names the right one, a checksum fault over TCP is refused, twins listen on this machine only."""
    base = {"bus": "wire", "profile": "abb-b23", "unit": 1}
    with pytest.raises(ValidationError, match="did you mean 'silent'"):
        SimulatedModbusTcp.DeviceSettings.model_validate({**base, "twin": {"faults": [{"kind": "silnet"}]}})
    with pytest.raises(ValidationError, match="no checksum"):
        SimulatedModbusTcp.DeviceSettings.model_validate({**base, "twin": {"faults": [{"kind": "crc"}]}})
    SimulatedModbusRtu.DeviceSettings.model_validate({**base, "twin": {"faults": [{"kind": "crc"}]}})
    with pytest.raises(ValidationError, match="host"):
        SimulatedModbusTcp.Settings.model_validate({"kind": "simulated-modbus-tcp", "host": "0.0.0.0"})


def test_closing_leaves_nothing_behind(tmp_path):
    """After close no thread, no port and no link is left; closing and opening twice does no harm."""
    before = threading.active_count()
    twin = MeterTwin(load_profile("abb-b23", Path()), TwinSection(), SystemClock())
    server, link = ModbusTwinServer({1: twin}, SystemClock()), tmp_path / "tty"
    port = server.listen()
    server.close()
    server.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)
    server.open_pty(link)
    assert link.readlink().is_char_device()
    server.close()
    assert not link.is_symlink()
    assert threading.active_count() == before
