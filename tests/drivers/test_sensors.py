"""Every sensor against vectors from its datasheet, and against damaged and random answers."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from drivers.sensors import am2320, bme280, hdc1080
from drivers.sensors.bus import SensorBus
from drivers.sensors.crc import crc8, crc16_modbus, words
from drivers.sensors.device import I2cDevice, I2cSensor, sensor_profile
from drivers.sensors.part import clipped
from drivers.simulated import bme280_chip
from drivers.simulated.chips import Am2320, remainder, word
from edge_agent.catalogue import SENSORS, load
from edge_agent.clock import ManualClock
from edge_agent.errors import DeviceError, ProfileError
from edge_agent.psychrometrics import absolute_humidity, derive, dew_point


class Scripted(SensorBus):
    """A bus whose chip gives the same reply to everything that is read after a command."""

    def __init__(self, replies):
        super().__init__("scripted", None, ManualClock())
        self.replies = {bytes.fromhex(command): bytes.fromhex(reply) for command, reply in replies.items()}
        self.command = b""

    def _exchange(self, address, data, n):
        self.command = data or self.command
        return self.replies.get(self.command, b"\x00" * n)[:n]


def settings(profile, **more):
    return I2cDevice(**{"bus": "b", "profile": profile, **more})


def read(profile, replies):
    """One measurement of a part by its driver; no ranges, no rounding."""
    part = load(SENSORS, profile)
    return part.measure(Scripted(replies), part.addresses[0])


# --- checksums


@pytest.mark.parametrize(
    ("data", "init", "crc"),
    [
        ("beef", 0xFF, 0x92),  # SHT3x, SHT4x and SHTC3 datasheets
        ("abcd", 0xFF, 0x6F),  # HDC302x datasheet
        ("dc", 0x00, 0x79),  # HTU21D datasheet
        ("683a", 0x00, 0x7C),  # HTU21D datasheet
        ("4e85", 0x00, 0x6B),  # HTU21D datasheet
        ("ffff", 0xFF, 0xAC),  # a line that nobody drives fails
        ("0000", 0xFF, 0x81),  # a dead bus fails
        ("0000", 0x00, 0x00),  # a dead bus passes: HTU21D must not believe it
    ],
)
def test_crc8_of_the_datasheets(data, init, crc):
    """CRC-8 gives the datasheets' check values."""
    assert crc8(bytes.fromhex(data), init) == crc


@pytest.mark.parametrize(("data", "crc"), [("030004", 0x0380), ("030401f400fa", 0xA531), ("030403390115", 0xFEE1)])
def test_crc16_of_the_am2320(data, crc):
    """CRC-16 gives the check values of the AM2320 datasheet and of Modbus."""
    assert crc16_modbus(bytes.fromhex(data)) == crc


@given(st.binary(min_size=2, max_size=12), st.sampled_from([0x00, 0xFF]))
def test_both_ways_to_compute_a_checksum_agree(data, init):
    """The driver's shift register and the twin's long division are the same function."""
    assert crc8(data, init) == remainder(data, init)
    assert crc16_modbus(data).to_bytes(2, "little") == Am2320._checksum(data)


@given(st.binary(min_size=4, max_size=4), st.integers(0, 47), st.integers(1, 0xFF).map(lambda burst: burst | 1))
def test_every_burst_of_up_to_eight_bits_is_noticed(data, start, burst):
    """Damage within eight neighbouring bits of a word never passes the checksum."""
    reply = word(int.from_bytes(data[:2], "big")) + word(int.from_bytes(data[2:], "big"))
    damage = burst << start & (1 << 24 * (1 + start // 24)) - 1  # within the word where it begins
    damaged = (int.from_bytes(reply, "big") ^ damage).to_bytes(6, "big")

    with pytest.raises(DeviceError, match="checksum"):
        words(damaged)


# --- datasheet vectors


@pytest.mark.parametrize(
    ("profile", "replies", "temperature", "humidity"),
    [
        ("sht31", {"2400": "666693 666693"}, 25.0, 40.0),
        ("sht31", {"2400": "beef92 800 0a2"}, 85.523, 50.001),
        ("sht4x", {"fd": "666693 666693"}, 25.0, 44.0),
        ("shtc3", {"7866": "666693 666693"}, 25.0, 40.0),
        ("hdc3020", {"2400": "666693 666693"}, 25.0, 40.0),
        ("htu21d", {"f3": "683a7c", "f5": "4e856b"}, 24.686, 32.338),
        ("si7021", {"f3": "683a7c", "f5": "4e856b"}, 24.686, 32.338),
        # A reply of a real AHT20, with its checksum.
        ("aht20", {"": "18", "ac3300": "1c3b5e8688b2d2"}, 31.675, 23.191),
        ("aht10", {"": "18", "ac3300": "1c3b5e8688b2"}, 31.675, 23.191),
        ("hdc1080", {"fe": "5449", "ff": "1050", "00": "6664 8000"}, 25.994, 50.0),
        ("hdc1008", {"fe": "5449", "ff": "1000", "00": "6664 8000"}, 25.994, 50.0),
        ("am2320", {"030004": "0304 0339 0115 e1fe"}, 27.7, 82.5),
    ],
)
def test_a_datasheet_reply_becomes_its_value(profile, replies, temperature, humidity):
    """Raw bytes become the value that the datasheet's formula gives."""
    values = read(profile, {command: reply.replace(" ", "") for command, reply in replies.items()}).values

    assert values["temperature"] == pytest.approx(temperature, abs=0.0006)
    assert values["relative_humidity"] == pytest.approx(humidity, abs=0.0006)


@pytest.mark.parametrize(("tenths", "celsius"), [(0x0000, 0.0), (0x8065, -10.1), (0x0065, 10.1), (0x8190, -40.0)])
def test_the_am2320_writes_frost_as_sign_and_magnitude(tenths, celsius):
    """Bit 15 is a sign: 0x8065 is -10.1 °C, as the datasheet says, and not -3266.7."""
    reply = b"\x03\x04\x01\xf4" + tenths.to_bytes(2, "big")

    assert am2320.decode(reply + crc16_modbus(reply).to_bytes(2, "little")).values["temperature"] == celsius


def test_an_am2320_that_answers_something_else_is_not_believed():
    """A good checksum over an exception is no measurement."""
    reply = b"\x83\x80\x01\xf4\x00\xfa"

    with pytest.raises(DeviceError) as caught:
        am2320.decode(reply + crc16_modbus(reply).to_bytes(2, "little"))
    assert caught.value.reason == "wrong-reply"


@pytest.mark.parametrize(
    ("percent", "wanted"),
    [(-6.0, 0.0), (-0.1, 0.0), (0.0, 0.0), (55.5, 55.5), (100.0, 100.0), (118.9, 100.0), (-6.1, -6.1), (125.0, 125.0)],
)
def test_humidity_a_little_beyond_the_ends_is_the_end(percent, wanted):
    """SHT4x and HTU21D may say -6..119 %; further away is left for the range check to drop."""
    assert clipped(percent) == wanted


# --- BME280

PUBLISHED = bme280.Calibration(
    (27504, 26435, -1000), (36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000), (75, 362, 0, 321, 50, 30)
)


def test_the_bme280_gives_the_published_example():
    """The worked example of the datasheet: 25.08 °C and 100653.27 Pa."""
    t_fine = bme280.fine_temperature(PUBLISHED, 519888)

    assert t_fine / 5120 == pytest.approx(25.08, abs=0.005)
    assert bme280.pressure(PUBLISHED, t_fine, 415148) == pytest.approx(100653.27, abs=0.05)


@given(st.integers(-2048, 2047), st.integers(-2048, 2047), st.integers(-128, 127), st.integers(-32768, 32767))
def test_the_bme280_calibration_keeps_its_signs(h4, h5, h6, h2):
    """H4 and H5 are twelve bits each, signed, and share the byte 0xE5."""
    e4, e5, e6 = h4 >> 4 & 0xFF, h4 & 0x0F | (h5 & 0x0F) << 4, h5 >> 4 & 0xFF
    high = h2.to_bytes(2, "little", signed=True) + bytes([7, e4, e5, e6, h6 & 0xFF])
    low = bytes(25) + b"\x4b"

    assert bme280.unpack(low, high).h == (75, h2, 7, h4, h5, h6)


@given(st.floats(-39, 84), st.floats(35_000, 109_000), st.floats(3, 97))
def test_the_bme280_formulas_agree_with_the_integer_ones(celsius, pascal, percent):
    """The driver's floating-point reference and Bosch's integer formulas differ by rounding only."""
    calibration = bme280.Calibration(bme280_chip.T, bme280_chip.P, bme280_chip.H)
    adc_t = bme280_chip._search(bme280_chip.fine, celsius * 5120, 20)
    t_fine = bme280_chip.fine(adc_t)
    adc_p = bme280_chip._search(lambda adc: -bme280_chip.pressure(t_fine, adc), -pascal, 20)
    adc_h = bme280_chip._search(lambda adc: bme280_chip.humidity(t_fine, adc), percent, 16)
    # These contents mean "skipped", whatever the formulas would make of them.
    assume(0x80000 not in (adc_t, adc_p) and adc_h != 0x8000)

    values = bme280.decode(calibration, (adc_p << 44 | adc_t << 20 | adc_h).to_bytes(8, "big")).values

    assert values["temperature"] == pytest.approx(t_fine / 5120, abs=0.01)
    assert values["pressure"] == pytest.approx(bme280_chip.pressure(t_fine, adc_p), abs=5)
    assert values["relative_humidity"] == pytest.approx(bme280_chip.humidity(t_fine, adc_h), abs=0.05)


@pytest.mark.parametrize(
    ("reply", "absent"),
    [
        ("800000 7eed00 7000", {"pressure": "not-available"}),
        ("655ac0 7eed00 8000", {"relative_humidity": "not-available"}),
        ("fffff0 7eed00 ffff", {"pressure": "out-of-range", "relative_humidity": "out-of-range"}),
    ],
)
def test_what_the_bme280_skipped_is_absent(reply, absent):
    """Skipped and end-of-scale channels say why; the others keep their values."""
    sample = bme280.decode(PUBLISHED, bytes.fromhex(reply))

    assert sample.absent == absent
    assert sample.values["temperature"] == pytest.approx(25.08, abs=0.005)
    assert not sample.values.keys() & absent.keys()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [("655ac0 800000 7000", "not-available"), ("ffffff ffffff ffff", "out-of-range"), ("00" * 8, "out-of-range")],
)
def test_without_a_temperature_the_bme280_says_nothing(reply, reason):
    """Humidity and pressure need the temperature to be compensated."""
    with pytest.raises(DeviceError) as caught:
        bme280.decode(PUBLISHED, bytes.fromhex(reply))
    assert caught.value.reason == reason


@pytest.mark.parametrize(("chip", "message"), [("58", "BMP280"), ("61", "BME680"), ("ff", "connected"), ("00", "0x00")])
def test_another_chip_is_named_instead_of_read(chip, message):
    """A BMP280 sold as BME280 is a clear error, not a wrong humidity."""
    with pytest.raises(DeviceError, match=message) as caught:
        read("bme280", {"d0": chip})
    assert caught.value.reason == "wrong-reply"


def test_a_bme280_without_calibration_is_not_divided_by():
    """All-zero calibration (a chip still starting) is an error with a reason."""
    nothing = bme280.Calibration((0,) * 3, (0,) * 9, (0,) * 6)

    with pytest.raises(DeviceError, match="no calibration"):
        bme280.decode(nothing, bytes.fromhex("655ac07eed007000"))


# --- the ends of the scale


@pytest.mark.parametrize(
    ("reply", "kept"),
    [("66640000", {"temperature"}), ("6664fffc", {"temperature", "relative_humidity"})],
)
def test_no_humidity_at_all_is_no_humidity(reply, kept):
    """The HDC1080 has no checksum: exactly 0 % is a dead line; saturated is a value."""
    sample = hdc1080.decode(bytes.fromhex(reply))

    assert sample.values.keys() == kept
    assert sample.values.keys() | sample.absent.keys() == {"temperature", "relative_humidity"}


@pytest.mark.parametrize("reply", ["00000000", "ffffffff", "6664ffff", "00008000"])
def test_a_dead_line_is_no_hdc1080(reply):
    """Zeros and ones are refused: its two lowest bits are always 0."""
    with pytest.raises(DeviceError) as caught:
        hdc1080.decode(bytes.fromhex(reply))
    assert caught.value.reason == "out-of-range"


@pytest.mark.parametrize("reply", ["180000000000", "18ffffffffff"])
def test_a_dead_line_is_no_aht10(reply):
    """The AHT10 has no checksum: the ends of its scale are no values."""
    with pytest.raises(DeviceError) as caught:
        read("aht10", {"": "18", "ac3300": reply})
    assert caught.value.reason == "out-of-range"


def test_an_aht10_keeps_its_temperature_when_the_humidity_is_at_an_end():
    """Exactly 0 % is absent; the temperature beside it is a value."""
    sample = read("aht10", {"": "18", "ac3300": "180000058888"})

    assert sample.absent == {"relative_humidity": "out-of-range"}
    assert sample.values == {"temperature": pytest.approx(19.167, abs=0.001)}


def test_zeros_pass_the_checksum_of_an_htu21d_and_are_refused():
    """Its checksum of 00 00 is 00: the reading is refused as the end of the scale."""
    with pytest.raises(DeviceError) as caught:
        read("htu21d", {"f3": "000000", "f5": "000000"})
    assert caught.value.reason == "out-of-range"


@given(st.sampled_from(sorted(SENSORS)), st.randoms(use_true_random=False))
def test_random_bytes_never_become_an_impossible_value(profile, chance: random.Random):
    """Whatever is on the line: a DeviceError, or values inside the part's own ranges."""

    class Noise(Scripted):
        def _exchange(self, address, data, n):
            return chance.randbytes(n)

    chosen = settings(profile)
    bound = sensor_profile(chosen)
    device = I2cSensor("x", Noise({}), ManualClock(), chosen, bound)
    for _ in range(20):
        try:
            sample = device.read(frozenset({""}))
        except DeviceError:
            continue
        assert sample.values.keys() | sample.absent.keys() == bound.quantities.keys()
        assert not sample.values.keys() & sample.absent.keys()
        for name, value in sample.values.items():
            low, high = bound.part.ranges[name]
            assert low <= value <= high


# --- what follows from both


@pytest.mark.parametrize(
    ("celsius", "percent", "dew", "grams"),
    [(20.0, 100.0, 20.0, 17.3), (25.0, 50.0, 13.9, 11.5), (0.0, 100.0, 0.0, 4.85), (-20.0, 60.0, -25.8, 0.646)],
)
def test_dew_point_and_absolute_humidity(celsius, percent, dew, grams):
    """Known points of moist air, within the formula's own error."""
    assert dew_point(celsius, percent) == pytest.approx(dew, abs=0.06)
    assert absolute_humidity(celsius, percent) == pytest.approx(grams, rel=0.005)


@given(st.floats(-45, 60), st.floats(0.1, 100))
def test_the_dew_point_is_never_above_the_temperature(celsius, percent):
    """Saturated air is at its dew point, drier air above it."""
    assert dew_point(celsius, percent) <= celsius + 1e-9
    assert math.isfinite(absolute_humidity(celsius, percent))


@pytest.mark.parametrize(
    ("values", "absent", "reason"),
    [
        ({"temperature": 20.0, "relative_humidity": 0.0}, {}, "out-of-range"),
        ({"temperature": 90.0, "relative_humidity": 20.0}, {}, "out-of-range"),
        ({"temperature": 20.0}, {"relative_humidity": "not-available"}, "not-available"),
        ({"relative_humidity": 20.0}, {"temperature": "crc"}, "crc"),
    ],
)
def test_what_cannot_be_derived_is_absent_for_its_cause(values, absent, reason):
    """A derived quantity never invents what it is made of."""
    absent = dict(absent)
    derive(values, absent)

    assert absent["dew_point"] == absent["absolute_humidity"] == reason
    assert not values.keys() & {"dew_point", "absolute_humidity"}


# --- settings


def test_an_unknown_profile_names_the_nearest():
    """A misspelt sensor is an error that names the right word and all known ones."""
    with pytest.raises(ProfileError, match=r"'sth31'.*did you mean .*'sht31'"):
        sensor_profile(settings("sth31"))


@pytest.mark.parametrize("address", [0x44, "0x44", "68"])
def test_an_address_may_be_written_as_in_the_datasheet(address):
    """A number or a text in hexadecimal is the same address."""
    assert sensor_profile(settings("sht31", address=address)).address == 0x44


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("0x4z", "like 0x44"),
        (0x88, "7-bit address is 0x44"),
        (0x03, "0x08 to 0x77"),
        (True, "like 0x44"),
        (1.5, "like"),
    ],
)
def test_what_is_no_address_says_what_is(address, message):
    """A wrong address is refused with the form that is right."""
    with pytest.raises(ValueError, match=message):
        settings("sht31", address=address)


def test_all_that_does_not_fit_a_part_is_said_at_once():
    """A wrong address and too short a period are two problems of one message."""
    with pytest.raises(ProfileError, match=r"0x44 or 0x45 or 0x46, never 0x70; every: a sht4x .* every 2s"):
        sensor_profile(settings("sht4x", address=0x70, every="1s"))


def test_a_sensor_that_answers_with_the_past_is_asked_often_enough():
    """An AM2320 read every ten minutes would say what was ten minutes ago."""
    with pytest.raises(ProfileError, match="previous measurement"):
        sensor_profile(settings("am2320", every="10min"))


@pytest.mark.parametrize("profile", sorted(SENSORS))
def test_every_row_of_the_catalogue_is_usable_as_it_stands(profile):
    """Default settings fit every part, and its quantities carry the part's ranges."""
    bound = sensor_profile(settings(profile, dew_point=True))

    assert bound.address == bound.part.addresses[0]
    assert {"temperature", "relative_humidity", "dew_point", "absolute_humidity"} <= bound.quantities.keys()
    assert (bound.quantities["temperature"].low, bound.quantities["temperature"].high) == bound.part.ranges[
        "temperature"
    ]
    assert bound.quantities["temperature"].unit == "°C"
