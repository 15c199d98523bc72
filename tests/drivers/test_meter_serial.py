"""Which meter it is: asked over the real wire once after every silence, and never at the expense of its values."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.profile_file import SerialRow
from drivers.registers import load_profile, profile_names
from drivers.simulated.meter import MeterTwin, TwinSection
from drivers.simulated.modbus import SimulatedModbusTcp
from edge_agent.clock import SystemClock
from edge_agent.errors import DeviceError
from edge_agent.vocabulary import COUNTER

QUICK = {"kind": "simulated-modbus-tcp", "timeout_floor": "100ms", "timeout_ceiling": "150ms"}


def _meter(profile: str, **settings):
    bus = SimulatedModbusTcp("wire", SimulatedModbusTcp.Settings.model_validate(QUICK), SystemClock())
    section = SimulatedModbusTcp.DeviceSettings.model_validate({"bus": "wire", "profile": profile, **settings})
    device = bus.device("main", section, bus.profile(section, Path()))
    bus.open()
    return bus, device


@pytest.mark.parametrize(
    "profile", [name for name in profile_names() if load_profile(name, Path()).serial is not None] + ["eastron-sdm630"]
)
def test_a_meter_says_who_it_is_where_its_profile_knows_how(profile):
    """With the first values comes the serial number, for profiles that have one; asked once, not with every cycle."""
    bus, device = _meter(profile)
    try:
        everything = frozenset(device.groups)
        assert device.read(everything).values
        has_one = load_profile(profile, Path()).serial is not None
        assert device.origin.serial == ("20261120" if has_one else None)
        asked, who = device.stats["requests"], device.origin
        device.read(everything)
        device.read(everything)
        each = (device.stats["requests"] - asked) // 2
        assert asked == each + has_one
        assert device.origin is who, "the same object: the gate looks closely only when it changed"
    finally:
        bus.close()


def test_a_meter_that_was_exchanged_is_another():
    """The wire stayed open, the meter fell silent, and what answers then is asked for its number again."""
    bus, device = _meter("abb-b23")
    try:
        everything = frozenset(device.groups)
        device.read(everything)
        bus.twins[1].impose("silent")
        with pytest.raises(DeviceError):
            device.read(everything)
        bus.twins[1] = MeterTwin(load_profile("abb-b23", Path()), TwinSection(serial="777"), bus.clock)
        device.probe()
        device.read(everything)
        assert device.origin.serial == "777"
    finally:
        bus.close()


def test_counts_are_of_these_ratios():
    """What a count is based on names the profile and the ratios: with others, counts do not go on."""
    bus, device = _meter("eastron-sdm630", ct_ratio=40)
    assert device.origin.basis == "eastron-sdm630, ct 40, pt 1"
    bus.close()


def test_counters_know_what_their_register_holds():
    """Integer counters wrap at the width of their register and move by its unit; floats and gauges do not wrap."""
    bus, device = _meter("carlo-gavazzi-em24-e1", ct_ratio=2)
    energy = device.quantities["energy_import"]
    assert (energy.wraps, energy.step) == (2.0**31 * 200, 200.0), "s32 in 0.1 kWh, twice that by the transformers"
    assert all(q.wraps is None for q in device.quantities.values() if q.kind != COUNTER)
    bus.close()
    bus, device = _meter("eastron-sdm630")
    assert device.quantities["energy_import"].wraps is None
    bus.close()


def test_an_empty_number_is_none():
    """Registers that were never written, or hold what cannot be read, name nobody."""
    text = SerialRow(at=0, count=2)
    assert [text.text(data) for data in (bytes(4), b"\xff" * 4, b"AB1\0", b"\x01\x02\x03\x04")] == [
        None,
        None,
        "AB1",
        None,
    ]
    assert SerialRow(at=0, type="u32").text(bytes((0, 1, 0, 2))) == "65538"
