"""Who is on a Modbus wire: units that answer, told by what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.modbus_probe import identify, scan
from drivers.modbus_unit import RefusedError
from drivers.ports import cameras, serial_ports
from drivers.registers import profile_names
from drivers.simulated.modbus import SimulatedModbusTcp
from edge_agent.clock import SystemClock
from edge_agent.errors import DeviceError, WireError
from edge_agent.vocabulary import CRC, TIMEOUT, WIRE

# No voltage and no identity register: nothing that could tell it.
UNTOLD = {"eastron-sdm72"}


@pytest.fixture
def wire():
    """Builds a bus with one twin of each profile named, units from 1."""
    made = []

    def build(*profiles):
        bus = SimulatedModbusTcp("wire", SimulatedModbusTcp.Settings(kind="simulated-modbus-tcp"), SystemClock())
        for unit, profile in enumerate(profiles, 1):
            settings = SimulatedModbusTcp.DeviceSettings(bus="wire", profile=profile, unit=unit)
            bus.device(profile, settings, bus.profile(settings, Path()))
        bus.open()
        made.append(bus)
        return bus

    yield build
    for bus in made:
        bus.close()


@pytest.mark.parametrize("profile", sorted(set(profile_names()) - UNTOLD))
def test_every_meter_is_told_by_what_it_says(wire, profile):
    """The right profile is the first or among those that cannot be told apart."""
    found = identify(wire(profile), 1, 1.0)
    assert profile in (found.profile, *found.others), found
    assert len(found.others) <= 4


def test_a_meter_that_says_nothing_telling_is_left_open(wire):
    """It answers, and that is all that is said."""
    found = identify(wire(*UNTOLD), 1, 1.0)
    assert found.profile is None
    assert "answers" in found.evidence


def test_only_units_that_answer_are_found(wire):
    """Nobody is invented between them; progress names every unit asked."""
    asked = []
    found = list(scan(wire("eastron-sdm630", "abb-b23"), range(1, 5), 0.1, asked.append))
    assert [(each.unit, each.profile) for each in found] == [(1, "eastron-sdm630"), (2, "abb-b23")]
    assert asked == [1, 2, 3, 4]


class Scripted:
    """A wire whose every request fails in one way."""

    def __init__(self, error):
        self.error = error

    def request(self, unit, fc, address, count, timeout_s=None):
        raise self.error


@pytest.mark.parametrize(
    ("error", "units", "clear"),
    [
        (DeviceError(TIMEOUT), 0, None),
        (RefusedError(1, 0x0B), 0, None),
        (RefusedError(1, 0x01), 1, True),
        (DeviceError(CRC), 1, False),
    ],
)
def test_how_it_fails_tells_who_is_there(error, units, clear):
    """Silence and a gateway's silence: nobody. A refusal: somebody. Damage: somebody, under other settings."""
    found = list(scan(Scripted(error), [1], 0.1, lambda _: None))
    assert len(found) == units
    assert all(each.is_clear is clear and each.profile is None for each in found)


def test_a_wire_that_is_gone_ends_the_scan():
    """It is no finding about a unit."""
    with pytest.raises(WireError):
        list(scan(Scripted(WireError(WIRE)), [1], 0.1, lambda _: None))


def test_ports_are_named_so_that_they_survive_replugging(tmp_path):
    """The name by id where there is one, the plain one where not; a camera once, though it has two nodes."""
    for name in ("ttyUSB0", "ttyAMA0", "video0", "video1", "tty1"):
        (tmp_path / name).touch()
    for folder in ("serial/by-id", "v4l/by-id"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "serial/by-id/usb-FTDI").symlink_to("../../ttyUSB0")
    (tmp_path / "v4l/by-id/usb-cam-index0").symlink_to("../../video0")
    (tmp_path / "v4l/by-id/usb-cam-index1").symlink_to("../../video1")
    ports = [(Path(place.name).name, Path(place.device).name) for place in serial_ports(tmp_path)]
    assert ports == [("ttyAMA0", "ttyAMA0"), ("usb-FTDI", "ttyUSB0")]
    assert [Path(place.name).name for place in cameras(tmp_path)] == ["usb-cam-index0"]
