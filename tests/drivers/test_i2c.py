"""The I2C bus against the kernel's interface: real smbus2, real structures, a stand-in for the ioctl itself."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest
import smbus2.smbus2

import drivers.i2c
from drivers.i2c import I2cBus, numbers
from edge_agent.clock import ManualClock
from edge_agent.errors import DeviceError, ProfileError, WireError

I2C_SLAVE, I2C_FUNCS, I2C_RDWR = 0x0703, 0x0705, 0x0707


class Kernel:
    """Answers the three ioctls of i2c-dev as Linux does; remembers every message."""

    def __init__(self):
        self.functions = 0x0EFF0009  # I2C and emulated SMBus, as i2c-bcm2835 says
        self.owned = set()
        self.failures = {}  # address → errno
        self.replies = {}  # address → bytes
        self.messages = []
        self.requests = []

    def ioctl(self, fd, request, arg=0):
        assert os.fstat(fd)
        self.requests.append(request)
        if request == I2C_FUNCS:
            arg.value = self.functions
        elif request == I2C_SLAVE:
            if arg in self.owned:
                raise OSError(errno.EBUSY, "Device or resource busy")
        elif request == I2C_RDWR:
            for message in arg.msgs[: arg.nmsgs]:
                self._transfer(message)
        else:
            raise AssertionError(f"unexpected ioctl 0x{request:04x}")
        return 0

    def _transfer(self, message):
        if message.addr in self.failures:
            raise OSError(self.failures[message.addr], os.strerror(self.failures[message.addr]))
        if message.flags & 1:
            ctypes.memmove(message.buf, self.replies[message.addr], message.len)
            self.messages.append((message.addr, "read", message.len))
        else:
            self.messages.append((message.addr, "write", ctypes.string_at(message.buf, message.len)))


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """A computer with I2C bus 1."""
    kernel = Kernel()
    (tmp_path / "i2c-1").touch()
    monkeypatch.setattr(drivers.i2c, "DEVICES", tmp_path)
    monkeypatch.setattr(drivers.i2c, "ioctl", kernel.ioctl)
    monkeypatch.setattr(smbus2.smbus2, "ioctl", kernel.ioctl)
    return kernel


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def bus(kernel, clock):
    bus = I2cBus("i2c-1", I2cBus.Settings(kind="i2c", number=1), clock)
    bus.open()
    yield bus
    bus.close()


def sensor(bus, name="cabinet", **settings):
    settings = I2cBus.DeviceSettings(**{"bus": "i2c-1", "profile": "sht31", **settings})
    return bus.device(name, settings, bus.profile(settings, Path()))


def test_a_measurement_is_a_write_a_wait_and_a_read(bus, kernel, clock):
    """An SHT31 is read by two transactions with its conversion time between them, and nothing else."""
    kernel.replies[0x44] = bytes.fromhex("666693666693")
    before_ns = clock.mono_ns()

    sample = sensor(bus).read(frozenset({""}))

    assert sample.values == {"temperature": 25.0, "relative_humidity": 40.0}
    assert kernel.messages == [(0x44, "write", b"\x24\x00"), (0x44, "read", 6)]
    assert clock.mono_ns() - before_ns == 16_000_000


def test_a_register_is_read_in_one_transaction(bus, kernel):
    """Nobody gets between the pointer and the read: both are messages of one I2C_RDWR."""
    kernel.replies[0x76] = b"\x60"

    assert bus.write_read(0x76, b"\xd0", 1) == b"\x60"
    assert kernel.requests[-1] == I2C_RDWR
    assert kernel.requests.count(I2C_RDWR) == 1
    assert kernel.messages == [(0x76, "write", b"\xd0"), (0x76, "read", 1)]


@pytest.mark.parametrize(
    ("code", "reason", "hint"),
    [
        (errno.ENOENT, "not-found", "dtparam=i2c_arm=on"),
        (errno.EACCES, "permission", "usermod -aG i2c"),
        (errno.EPERM, "permission", "DeviceAllow"),
        (errno.ENXIO, "bus-down", ""),
    ],
)
def test_a_bus_that_cannot_be_opened_says_what_to_do(kernel, clock, monkeypatch, code, reason, hint):
    """No such bus, no permission: a WireError with its reason and the command that mends it."""
    monkeypatch.setattr(smbus2.SMBus, "open", lambda *_: (_ for _ in ()).throw(OSError(code, os.strerror(code))))
    bus = I2cBus("i2c-1", I2cBus.Settings(kind="i2c"), clock)

    with pytest.raises(WireError, match="i2c-1") as caught:
        bus.open()

    assert caught.value.reason == reason
    assert hint in caught.value.hint


def test_a_bus_that_is_not_there_is_named(kernel, clock):
    """Number 7 of a computer that has only number 1."""
    bus = I2cBus("i2c-7", I2cBus.Settings(kind="i2c", number=7), clock)

    with pytest.raises(WireError, match=r"i2c-7: No such file.*raspi-config") as caught:
        bus.open()

    assert caught.value.reason == "not-found"
    assert numbers() == [1]


def test_a_file_that_is_no_i2c_device_is_refused(monkeypatch, tmp_path, clock):
    """The real kernel answers ENOTTY to an ordinary file; nothing stays open."""
    (tmp_path / "i2c-1").touch()
    monkeypatch.setattr(drivers.i2c, "DEVICES", tmp_path)
    bus = I2cBus("i2c-1", I2cBus.Settings(kind="i2c"), clock)
    before = len(list(Path("/proc/self/fd").iterdir()))

    with pytest.raises(WireError, match="no I2C device"):
        bus.open()

    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_adapter_without_plain_i2c_is_refused(kernel, clock):
    """An SMBus-only adapter cannot speak to parts that take commands."""
    kernel.functions = 0x0EFF0008
    bus = I2cBus("i2c-1", I2cBus.Settings(kind="i2c"), clock)

    with pytest.raises(WireError, match="SMBus adapter"):
        bus.open()


@pytest.mark.parametrize("code", [errno.ENXIO, errno.EREMOTEIO])
def test_nobody_at_the_address(bus, kernel, code):
    """A missing acknowledge names the address and what to check; the bus is fine."""
    kernel.failures[0x44] = code

    with pytest.raises(DeviceError, match="nothing answers at 0x44 on i2c-1") as caught:
        sensor(bus).read(frozenset({""}))

    assert caught.value.reason == "not-found"
    assert "address pin" in caught.value.hint
    assert not isinstance(caught.value, WireError)


def test_an_address_that_a_kernel_driver_owns_is_left_alone(bus, kernel):
    """Nothing is sent, and the hint names the other way to the sensor."""
    kernel.owned.add(0x44)

    with pytest.raises(DeviceError, match="kernel driver owns 0x44") as caught:
        sensor(bus).read(frozenset({""}))

    assert caught.value.reason == "busy"
    assert "kernel-sensor" in caught.value.hint
    assert kernel.messages == []


def test_a_sensor_that_never_gets_ready_costs_its_budget_and_no_more(bus, kernel, clock, monkeypatch):
    """It acknowledges the command and then no read: a timeout after 30 ms."""
    monkeypatch.setattr(bus, "read", lambda *_: (_ for _ in ()).throw(DeviceError("not-found")))
    before_ns = clock.mono_ns()

    with pytest.raises(DeviceError, match="no measurement within 30 ms") as caught:
        sensor(bus).read(frozenset({""}))

    assert caught.value.reason == "timeout"
    assert clock.mono_ns() - before_ns <= 32_000_000


@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL])
def test_what_is_no_missing_acknowledge_is_not_waited_for(bus, kernel, clock, monkeypatch, code):
    """A failure while the sensor works ends the reading at once, with its own reason."""
    device = sensor(bus)
    bus.write(0x44, b"\x24\x00")
    monkeypatch.setattr(bus, "write", lambda *_: kernel.failures.update({0x44: code}))
    before_ns = clock.mono_ns()

    with pytest.raises(DeviceError) as caught:
        device.read(frozenset({""}))

    assert caught.value.reason == "bus-down"
    assert clock.mono_ns() - before_ns == 16_000_000


@pytest.mark.parametrize("code", [errno.EIO, errno.ETIMEDOUT, errno.EAGAIN])
def test_the_only_sensor_of_a_stuck_bus_reports_the_bus(bus, kernel, code):
    """With nobody else to ask, the bus is down."""
    kernel.failures[0x44] = code

    with pytest.raises(WireError, match="stuck") as caught:
        sensor(bus).read(frozenset({""}))

    assert caught.value.reason == "bus-down"


def test_one_sensor_that_hangs_is_not_the_bus(bus, kernel):
    """As long as its neighbour answers in between, only the one that hangs is at fault."""
    hanging, healthy = sensor(bus), sensor(bus, "door", address=0x45)
    kernel.failures[0x44] = errno.EIO
    kernel.replies[0x45] = bytes.fromhex("666693666693")

    for _ in range(3):
        with pytest.raises(DeviceError) as caught:
            hanging.read(frozenset({""}))
        assert not isinstance(caught.value, WireError)
        assert healthy.read(frozenset({""})).values["temperature"] == 25.0


def test_two_sensors_that_hang_at_different_times_are_not_the_bus(bus, kernel):
    """What worked in between was no stuck bus."""
    first, second = sensor(bus), sensor(bus, "door", address=0x45)
    kernel.replies = dict.fromkeys((0x44, 0x45), bytes.fromhex("666693666693"))
    for hanging, healthy in ((first, second), (second, first)):
        kernel.failures = {hanging.address: errno.ETIMEDOUT}
        with pytest.raises(DeviceError) as caught:
            hanging.read(frozenset({""}))
        assert not isinstance(caught.value, WireError)
        assert healthy.read(frozenset({""})).values


def test_when_two_sensors_hang_it_is_the_bus(bus, kernel):
    """The second one that finds the bus stuck says so for all, and again after opening anew."""
    sensors = [sensor(bus), sensor(bus, "door", address=0x45)]
    kernel.failures = {0x44: errno.EIO, 0x45: errno.EIO}

    with pytest.raises(DeviceError):
        sensors[0].read(frozenset({""}))
    for each in [sensors[1], *sensors]:
        with pytest.raises(WireError):
            each.read(frozenset({""}))
        bus.close()
        bus.open()


def test_an_adapter_that_was_pulled_out_is_gone(bus, kernel):
    """ENODEV is the bus, whoever asked."""
    kernel.failures[0x44] = errno.ENODEV

    with pytest.raises(WireError, match="gone"):
        sensor(bus).read(frozenset({""}))


def test_a_closed_bus_raises_and_opens_again(bus, kernel):
    """close and open are harmless twice, and a read in between is a WireError."""
    kernel.replies[0x44] = bytes.fromhex("666693666693")
    device = sensor(bus)
    bus.close()
    bus.close()

    with pytest.raises(WireError):
        device.read(frozenset({""}))
    bus.open()
    files = len(list(Path("/proc/self/fd").iterdir()))
    bus.open()
    assert device.read(frozenset({""})).values
    assert len(list(Path("/proc/self/fd").iterdir())) == files


def test_two_devices_at_one_address_are_refused(bus):
    """The second one names both; the same name again is the same device."""
    sensor(bus)
    sensor(bus)

    with pytest.raises(ProfileError, match="door and cabinet both have address 0x44"):
        sensor(bus, "door")


def test_a_constructor_opens_nothing(clock):
    """A config can be checked on a computer without I2C."""
    bus = I2cBus("i2c-250", I2cBus.Settings(kind="i2c", number=250), clock)

    assert sensor(bus).name == "cabinet"
