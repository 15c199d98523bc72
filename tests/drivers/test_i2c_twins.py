"""One suite over every sensor of the catalogue and every fault: the driver as it is, a twin below it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from drivers.simulated.bme280_chip import Bme280
from drivers.simulated.i2c import CHIPS, FAULTS, SimulatedI2c
from edge_agent.catalogue import BUSES, SENSORS, load
from edge_agent.clock import ManualClock
from edge_agent.errors import DeviceError, ProfileError, WireError

EVERY = frozenset({""})
# What the coarsest part of each quantity resolves, and half a step of rounding in the twin.
RESOLUTION = {"temperature": 0.06, "relative_humidity": 0.06, "pressure": 5.0}

# The reason that each kind of part gives. A row for all, then what is special.
REASONS = {
    "nack": dict.fromkeys(SENSORS, "not-found"),
    "stuck": dict.fromkeys(SENSORS, "bus-down"),
    "crc": dict.fromkeys(SENSORS, "crc"),
    "all-ff": dict.fromkeys(SENSORS, "crc"),
    "all-00": dict.fromkeys(SENSORS, "crc"),
    "wrong-chip": dict.fromkeys(SENSORS, "crc"),
}
for name in ("htu21d", "si7021", "si7020", "sht20", "sht21", "sht25"):
    REASONS["all-00"][name] = REASONS["wrong-chip"][name] = "out-of-range"  # 00 00 00 passes their checksum
for name in ("aht10", "aht20", "aht21", "aht25"):
    REASONS["all-ff"][name] = "timeout"  # the busy bit never clears
    REASONS["all-00"][name] = REASONS["wrong-chip"][name] = "wrong-reply"  # it never calibrates
for name in ("bme280", "hdc1080", "hdc1008", "hdc1010"):
    for fault in ("all-ff", "all-00", "wrong-chip"):
        REASONS[fault][name] = "wrong-reply"  # the chip ID


@pytest.fixture
def clock():
    return ManualClock()


class Line:
    """One simulated sensor on one simulated bus, opened."""

    def __init__(self, clock, profile, **settings):
        self.clock = clock
        self.bus = SimulatedI2c("i2c-1", SimulatedI2c.Settings(kind="simulated-i2c"), clock)
        self.settings = SimulatedI2c.DeviceSettings(**{"bus": "i2c-1", "profile": profile, **settings})
        self.profile = self.bus.profile(self.settings, Path())
        self.device = self.bus.device("cabinet", self.settings, self.profile)
        self.bus.open()
        self.started_ns = clock.mono_ns()

    def read(self):
        """The next reading, ten seconds after the one before."""
        self.clock.advance(10)
        return self.device.read(EVERY)

    def air(self):
        """The air as the twin has it now, or one period ago for a part that answers with the past."""
        elapsed_s = (self.clock.mono_ns() - self.started_ns) / 1e9
        return self.settings.twin.at(elapsed_s - (10 if self.profile.part.previous_within_s else 0))

    def assert_good(self, sample):
        assert sample.absent == {}
        assert sample.values.keys() == self.device.quantities.keys()
        air = self.air()._asdict()
        for name in self.profile.part.ranges:
            assert sample.values[name] == pytest.approx(air[name], abs=RESOLUTION[name]), name


def test_a_simulated_line_costs_no_hardware_library():
    """A twin needs neither smbus2 nor the sensors that nobody named."""
    script = (
        "import sys; from drivers.simulated.i2c import SimulatedI2c as S;"
        "S.profile(S.DeviceSettings(bus='b', profile='sht31'), None);"
        "assert 'drivers.sensors.sht3x' in sys.modules;"
        "assert not {'smbus2', 'drivers.sensors.bme280', 'numpy'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2], timeout=60)


def test_every_sensor_has_a_twin():
    """A new row in the catalogue needs a chip to be tried on."""
    assert CHIPS.keys() == SENSORS.keys()
    assert load(BUSES, "simulated-i2c") is SimulatedI2c


@pytest.mark.parametrize("profile", sorted(SENSORS))
@pytest.mark.parametrize(
    "air",
    [
        {"temperature": 24.0, "relative_humidity": 45.0},
        {"temperature": -31.0, "relative_humidity": 90.0, "pressure": 88_000.0},
        {"temperature": 71.5, "relative_humidity": 8.0, "pressure": 108_000.0},
    ],
)
def test_a_healthy_sensor_gives_the_air_around_it(clock, profile, air):
    """Temperature, humidity and pressure follow the twin's air within the part's resolution."""
    line = Line(clock, profile, twin=air)
    line.device.read(EVERY)  # an AM2320 has nothing to say the first time

    for _ in range(20):
        line.assert_good(line.read())


@pytest.mark.parametrize("profile", sorted(SENSORS))
def test_saturated_air_is_a_value(clock, profile):
    """Condensing air reads 100 %; only the AHT10 cannot tell it from a dead line."""
    line = Line(clock, profile, dew_point=True, twin={"relative_humidity": 100.0, "swing": 0.0})
    line.device.probe()
    line.device.read(EVERY)
    sample = line.read()

    if profile == "aht10":
        assert sample.absent["relative_humidity"] == "out-of-range"
    else:
        assert sample.values["relative_humidity"] == pytest.approx(100, abs=0.06)


@pytest.mark.parametrize("profile", sorted(SENSORS))
@pytest.mark.parametrize("fault", sorted(REASONS))
def test_a_fault_gives_no_value_but_its_reason_and_ends(clock, profile, fault):
    """While it lasts there is no value at all; before and after there are good ones."""
    if fault == "crc" and not CHIPS[profile].has_checksum:
        with pytest.raises(ProfileError, match="has no checksum"):
            Line(clock, profile, twin={"faults": [{"kind": fault}]})
        return
    line = Line(clock, profile, dew_point=True, twin={"faults": [{"kind": fault, "at": "35s", "for": "50s"}]})
    line.device.read(EVERY)
    line.assert_good(line.read())
    line.assert_good(line.read())
    line.read()

    for _ in range(4):
        with pytest.raises(DeviceError) as caught:
            line.read()
        assert caught.value.reason == REASONS[fault][profile]
        assert isinstance(caught.value, WireError) == (fault == "stuck")

    clock.advance(20)
    sample = line.read()  # an AM2320 says once more what was before the fault, and that is stale
    line.assert_good(line.read() if set(sample.absent.values()) == {"stale"} else sample)


@pytest.mark.parametrize("profile", sorted(SENSORS))
def test_values_that_do_not_move_at_all_become_stale(clock, profile):
    """A sensor that repeats itself for longer than allowed is stale in every quantity, and recovers."""
    faults = [{"kind": "frozen", "at": "30s", "for": "15min"}]
    line = Line(clock, profile, frozen_after="10min", dew_point=True, twin={"faults": faults})
    samples = [line.device.read(EVERY), *(line.read() for _ in range(100))]
    stale = [index for index, sample in enumerate(samples) if sample.absent]

    assert set(range(64, 90)) <= set(stale) <= {0, *range(62, 94)}
    assert (0 in stale) == (profile == "am2320")
    for index in stale:
        assert samples[index].values == {}
        assert set(samples[index].absent.values()) == {"stale"}


def test_equal_values_at_long_intervals_are_not_frozen(clock):
    """Two equal readings seven hours apart prove nothing."""
    line = Line(clock, "sht31", every="7h", twin={"swing": 0.0})

    assert all(line.read().values for _ in range(3) if clock.advance(7 * 3600) is None)


def test_what_an_am2320_measured_long_ago_is_stale(clock):
    """Its first answer, and the first after a pause, belong to the past."""
    line = Line(clock, "am2320")

    assert set(line.device.read(EVERY).absent.values()) == {"stale"}
    line.assert_good(line.read())
    clock.advance(61)
    assert set(line.read().absent.values()) == {"stale"}
    line.assert_good(line.read())


def test_a_stuck_bus_takes_every_sensor_with_it(clock):
    """One script line stops the whole wire; the neighbour says bus-down too."""
    line = Line(clock, "sht31", twin={"faults": [{"kind": "stuck", "at": "15s"}]})
    settings = SimulatedI2c.DeviceSettings(bus="i2c-1", profile="bme280")
    neighbour = line.bus.device("door", settings, line.bus.profile(settings, Path()))
    assert line.read().values
    assert neighbour.read(EVERY).values
    clock.advance(10)

    for device in (line.device, neighbour):
        with pytest.raises(DeviceError) as caught:
            device.read(EVERY)
        assert caught.value.reason == "bus-down"
    assert isinstance(caught.value, WireError)


def test_two_faulty_neighbours_do_not_disturb_a_third(clock):
    """What is wrong with one sensor stays with it."""
    line = Line(clock, "sht31")
    for name, profile, fault in (("door", "sht4x", "crc"), ("roof", "bme280", "wrong-chip")):
        settings = SimulatedI2c.DeviceSettings(
            bus="i2c-1",
            profile=profile,
            twin={"faults": [{"kind": fault}]},
            address=0x46 if profile == "sht4x" else None,
        )
        device = line.bus.device(name, settings, line.bus.profile(settings, Path()))
        with pytest.raises(DeviceError):
            device.read(EVERY)

    line.assert_good(line.read())


def test_a_misspelt_fault_names_the_nearest(clock):
    """The script of a twin is checked like any other setting."""
    with pytest.raises(ValueError, match="did you mean 'nack'"):
        Line(clock, "sht31", twin={"faults": [{"kind": "nak"}]})
    assert "frozen" in FAULTS


def test_the_twin_is_as_deaf_as_the_chip(clock):
    """It acknowledges no unknown command, and no read while it measures: a driver that is too fast fails here."""
    line = Line(clock, "sht31")

    with pytest.raises(DeviceError):
        line.bus.write(0x44, b"\xfd")
    line.bus.write(0x44, b"\x24\x00")
    line.bus.wait_ms(15)
    with pytest.raises(DeviceError):
        line.bus.read(0x44, 6)
    line.bus.wait_ms(1)
    assert len(line.bus.read(0x44, 6)) == 6


def test_a_slow_bme280_is_waited_for(clock, monkeypatch):
    """Its busy bit counts, not the time of the datasheet; what never ends is a timeout."""
    line = Line(clock, "bme280")
    work = Bme280.work
    monkeypatch.setattr(Bme280, "work", lambda chip, milliseconds: work(chip, 2 * milliseconds))
    before_ns = clock.mono_ns()
    line.assert_good(line.device.read(EVERY))
    assert clock.mono_ns() - before_ns >= 18_600_000

    monkeypatch.setattr(Bme280, "work", lambda chip, milliseconds: work(chip, 1000 * milliseconds))
    with pytest.raises(DeviceError) as caught:
        line.read()
    assert caught.value.reason == "timeout"


def test_the_script_begins_when_the_bus_is_opened_first(clock):
    """Opening anew after a fault does not begin the script anew."""
    line = Line(clock, "sht31", twin={"faults": [{"kind": "nack", "for": "30s"}]})
    with pytest.raises(DeviceError):
        line.read()
    line.bus.close()
    clock.advance(30)
    line.bus.open()

    line.assert_good(line.read())
