"""Finding out what is on a bus."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from drivers.sensors.scan import Found, scan
from drivers.simulated.chips import Aht10, Aht20, Chip, Hdc1008, word
from drivers.simulated.i2c import CHIPS, SimulatedI2c
from edge_agent.catalogue import SENSORS, load
from edge_agent.clock import ManualClock
from edge_agent.errors import WireError


class Recorded(SimulatedI2c):
    """A simulated bus that remembers what went over it, with room for chips that nobody configured."""

    def __init__(self):
        super().__init__("i2c-1", self.Settings(kind="simulated-i2c"), ManualClock())
        self.exchanges = []
        self.strangers = {}
        self.owned = set()
        self.open()

    def place(self, profile, **settings):
        settings = self.DeviceSettings(bus="i2c-1", profile=profile, **settings)
        device = self.device(f"{profile}-{settings.address}", settings, self.profile(settings, Path()))
        for _ in range(2):  # a chip that has never measured has nothing to recognise it by
            device.read(frozenset({""}))
        self.exchanges.clear()

    def _exchange(self, address, data, n):
        self.exchanges.append((address, data, n))
        if address in self.owned:
            raise OSError(errno.EBUSY, "Device or resource busy")
        if address in self.strangers:
            if data:
                self.strangers[address].write(data)
            return self.strangers[address].read(n) if n else b""
        return super()._exchange(address, data, n)


class Multiplexer(Chip):
    """A TCA9548A: one register, the channels; it acknowledges any read."""

    channels = 0

    def __init__(self):
        super().__init__(None, ManualClock())

    def write(self, data):
        self.channels = data[-1]

    def read(self, n):
        return bytes([self.channels]) * n


@pytest.fixture
def bus():
    return Recorded()


@pytest.mark.parametrize("profile", sorted(SENSORS))
def test_every_sensor_is_recognised_by_what_it_says(bus, profile):
    """A scan finds each part and gives a profile that its driver serves, with the evidence."""
    bus.place(profile)

    (found,) = scan(bus)

    assert SENSORS[found.profile] == SENSORS[profile] or CHIPS[profile] is Hdc1008
    assert found.evidence


def test_parts_that_share_addresses_are_told_apart(bus):
    """An HDC302x, an SHT3x and an SHT4x beside each other, and a part that nobody knows."""
    bus.place("sht4x", address=0x46)
    bus.place("sht31", address=0x45)
    bus.place("hdc3020", address=0x44)
    bus.place("htu21d")
    bus.place("hdc1008", address=0x41)
    bus.strangers[0x50] = Multiplexer()

    assert {found.address: found.profile for found in scan(bus)} == {
        0x40: "htu21d",
        0x41: "hdc1008",
        0x44: "hdc3020",
        0x45: "sht31",
        0x46: "sht4x",
        0x50: None,
    }


def test_all_sht3x_are_asked_before_any_sht4x(bus):
    """An SHT4x that is asked in turns stops answering, so the questions are never mixed."""
    scan(bus)
    commands = [data for _, data, _ in bus.exchanges]
    last_status = max(index for index, data in enumerate(commands) if data == b"\xf3\x2d")
    first_serial = min(index for index, data in enumerate(commands) if data == b"\x89")

    assert last_status < first_serial


def test_a_multiplexer_keeps_its_channels(bus):
    """At 0x70 nothing is written to what acknowledges a read: it is no sleeping SHTC3."""
    bus.strangers[0x70] = Multiplexer()

    assert scan(bus) == [Found(0x70, None, "answers, but is no sensor that we know")]
    assert bus.strangers[0x70].channels == 0


def test_an_io_expander_keeps_its_outputs(bus):
    """At 0x38 nothing is written at all: a PCF8574A would switch its outputs."""
    bus.strangers[0x38] = Multiplexer()
    scan(bus)

    assert not [data for address, data, _ in bus.exchanges if address == 0x38 and data]


def test_an_io_expander_that_looks_ready_is_no_aht10(bus):
    """A byte like the status of an AHT10 is not enough: an expander repeats it."""
    bus.strangers[0x38] = Multiplexer()
    bus.strangers[0x38].channels = 0x18

    assert [found.profile for found in scan(bus)] == [None]


def test_a_chip_of_another_maker_is_no_hdc302x(bus):
    """The manufacturer's ID counts, not only that there is one."""
    bus.place("hdc3020")
    bus._placed[0x44].chip.answer = lambda command: (0, word(0x3001)) if command == b"\x37\x81" else None

    assert scan(bus) == []


def test_a_pwm_controller_gets_a_pointer_and_no_value(bus):
    """At 0x40 more than one byte is written only to what has proved to be an HTU21D."""
    bus.strangers[0x40] = Multiplexer()
    scan(bus)

    assert max(len(data) for address, data, _ in bus.exchanges if address == 0x40) == 1


def test_an_address_of_the_kernel_is_reported_once(bus):
    """What a kernel driver owns is named with the way to read it."""
    bus.owned.add(0x44)

    (found,) = scan(bus)

    assert (found.address, found.profile) == (0x44, None)
    assert "kernel-sensor" in found.evidence


def test_aht10_and_aht20_differ_by_the_checksum(bus):
    """Only the AHT20 keeps a checksum behind its last measurement."""
    for profile, chip in (("aht20", Aht20), ("aht10", Aht10)):
        bus = Recorded()
        bus.place(profile)

        assert chip is CHIPS[profile]
        assert [found.profile for found in scan(bus)] == [profile]


def test_progress_is_told_and_a_stuck_bus_ends_it(bus):
    """The questions are counted; on a stuck bus the scan raises instead of waiting for every address."""
    steps = []
    scan(bus, lambda done, total: steps.append((done, total)))
    parts = {where: load(SENSORS, profile) for profile, where in SENSORS.items()}
    total = sum(len(part.addresses) for part in parts.values())
    assert steps == [(done, total) for done in range(total)]

    bus.place("sht31", twin={"faults": [{"kind": "stuck", "at": "1h"}]})
    bus._clock.advance(3600)
    with pytest.raises(WireError):
        scan(bus)
    assert len(bus.exchanges) == 1
