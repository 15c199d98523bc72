"""Sensors that the kernel reads, on a real folder tree like the one under /sys."""

from __future__ import annotations

from pathlib import Path

import pytest

import drivers.kernel_sensor
from drivers.kernel_sensor import KernelSensors
from edge_agent.catalogue import BUSES, load
from edge_agent.clock import ManualClock
from edge_agent.errors import DeviceError, ProfileError

EVERY = frozenset({""})


@pytest.fixture
def sys(monkeypatch, tmp_path):
    """A computer with an SHT4x (hwmon) and a BME280 (IIO), as Linux shows them."""
    put(tmp_path / "class/hwmon/hwmon0", name="cpu_thermal", temp1_input="48312")
    put(tmp_path / "class/hwmon/hwmon2", name="sht4x", temp1_input="24531", humidity1_input="45120")
    put(
        tmp_path / "bus/iio/devices/iio:device0",
        name="bme280",
        in_temp_input="24530",
        in_humidityrelative_input="45119",
        in_pressure_input="101.325",
    )
    monkeypatch.setattr(drivers.kernel_sensor, "SYS", tmp_path)
    return tmp_path


def put(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n")


def sensor(**settings):
    bus = KernelSensors("kernel", KernelSensors.Settings(kind="kernel-sensor"), ManualClock())
    settings = KernelSensors.DeviceSettings(**{"bus": "kernel", "profile": "hwmon", "chip": "sht4x", **settings})
    bus.open()
    device = bus.device("cabinet", settings, bus.profile(settings, Path()))
    bus.close()
    return device


def test_a_hwmon_chip_is_read_by_its_name(sys):
    """Thousandths become °C and %, of the chip that was named and no other."""
    device = sensor()
    device.probe()

    assert device.read(EVERY) == ({"temperature": 24.531, "relative_humidity": 45.12}, {})
    assert load(BUSES, "kernel-sensor") is KernelSensors


def test_an_iio_chip_has_pressure_too(sys):
    """Kilopascals become pascals; derived quantities come along."""
    quantities = ["temperature", "relative_humidity", "pressure"]
    device = sensor(profile="iio", chip="bme280", quantities=quantities, dew_point=True)

    sample = device.read(EVERY)

    assert sample.values["pressure"] == 101325.0
    assert sample.values["dew_point"] == pytest.approx(11.8, abs=0.1)
    assert sample.values.keys() == device.quantities.keys()


def test_raw_offset_and_scale_make_a_value(sys):
    """A chip without processed files: (raw + offset) × scale, in thousandths. Here an HDC302x at 25 °C and 40 %."""
    put(
        sys / "bus/iio/devices/iio:device1",
        name="hdc3020",
        in_temp_raw="26214",
        in_temp_offset="-16852",
        in_temp_scale="2.670288085",
        in_humidityrelative_raw="26214",
        in_humidityrelative_scale="1.525878906",
    )

    values = sensor(profile="iio", chip="hdc3020").read(EVERY).values

    assert values["temperature"] == pytest.approx(25.0, abs=0.01)
    assert values["relative_humidity"] == pytest.approx(40.0, abs=0.01)


def test_two_of_a_name_need_a_folder(sys):
    """Two chips of one name are an error that names both; the folder of the device settles it, numbered anew or not."""
    device = sys / "bus/i2c/devices/1-0045"
    put(device / "hwmon/hwmon3", name="sht4x", temp1_input="19000", humidity1_input="60000")
    (sys / "class/hwmon/hwmon3").symlink_to(device / "hwmon/hwmon3")

    with pytest.raises(DeviceError, match=r"2 'sht4x'.*hwmon2.*1-0045/hwmon/hwmon3"):
        sensor().read(EVERY)
    for chip in (device, device / "hwmon/hwmon3"):
        assert sensor(chip=str(chip)).read(EVERY).values["temperature"] == 19.0
    (device / "hwmon/hwmon3").rename(device / "hwmon/hwmon7")
    assert sensor(chip=str(device)).read(EVERY).values["temperature"] == 19.0


def test_a_chip_that_went_away_is_not_found(sys):
    """An unbound driver leaves no old value behind, and its return needs no restart."""
    device = sensor()
    (sys / "class/hwmon/hwmon2").rename(sys / "gone")
    for ask in (lambda: device.read(EVERY), device.probe):
        with pytest.raises(DeviceError, match="no 'sht4x' in hwmon") as caught:
            ask()
        assert caught.value.reason == "not-found"

    (sys / "gone").rename(sys / "class/hwmon/hwmon5")
    assert device.read(EVERY).values["temperature"] == 24.531


@pytest.mark.parametrize(
    ("text", "reason"), [("", "nan"), ("n/a", "nan"), ("nan", "out-of-range"), ("125001000", "out-of-range")]
)
def test_one_bad_file_is_one_absent_quantity(sys, text, reason):
    """What cannot be read is absent with its reason; the other quantity stays."""
    (sys / "class/hwmon/hwmon2/temp1_input").write_text(text)

    assert sensor().read(EVERY) == ({"relative_humidity": 45.12}, {"temperature": reason})


def test_a_missing_file_is_absent_and_all_missing_is_an_error(sys):
    """No humidity file: absent. No file at all: the device did not answer."""
    (sys / "class/hwmon/hwmon2/humidity1_input").unlink()
    assert sensor().read(EVERY) == ({"temperature": 24.531}, {"relative_humidity": "not-found"})

    (sys / "class/hwmon/hwmon2/temp1_input").unlink()
    with pytest.raises(DeviceError, match="dmesg"):
        sensor().read(EVERY)


def test_an_error_of_the_kernel_driver_is_no_value(sys):
    """A file that cannot be read (here: a folder in its place) is absent as a wrong reply."""
    path = sys / "class/hwmon/hwmon2/temp1_input"
    path.unlink()
    path.mkdir()

    assert sensor().read(EVERY) == ({"relative_humidity": 45.12}, {"temperature": "wrong-reply"})


def test_what_the_interface_does_not_have_is_refused_at_load():
    """hwmon has no pressure, and there is no third interface."""
    with pytest.raises(ProfileError, match="hwmon has no pressure"):
        sensor(quantities=["pressure"])
    with pytest.raises(ProfileError, match="did you mean 'hwmon'"):
        sensor(profile="hwmonn")
