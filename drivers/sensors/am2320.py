"""Aosong AM2320. Datasheet AM2320, section 8.2. Address 0x5C, always; at most 100 kHz."""

from __future__ import annotations

from drivers.sensors.crc import check, crc16_modbus
from drivers.sensors.part import Part, Wire, ask
from edge_agent.errors import DeviceError
from edge_agent.vocabulary import NOTHING_THERE, WRONG_REPLY, Sample

_WAKE = b"\x00"
_READ_ALL = b"\x03\x00\x04"  # function 3, from register 0, 4 registers


def measure(wire: Wire, address: int) -> Sample:
    """Wake it (it does not acknowledge that), ask, wait 1.5 ms, read.

    The answer is the measurement that the question before started; this one starts the next.
    """
    _wake(wire, address)
    return decode(ask(wire, address, _READ_ALL, 8, first_ms=2, budget_ms=10))


def decode(reply: bytes) -> Sample:
    """Function, length, humidity, temperature (sign and magnitude, tenths), CRC-16."""
    check(crc16_modbus(reply[:6]), int.from_bytes(reply[6:8], "little"))
    if reply[:2] != b"\x03\x04":
        raise DeviceError(WRONG_REPLY, f"the answer begins with {reply[:2].hex()}, not with 0304")
    tenths = int.from_bytes(reply[4:6], "big")
    temperature = (tenths & 0x7FFF) / 10 * (-1 if tenths & 0x8000 else 1)
    return Sample({"temperature": temperature, "relative_humidity": int.from_bytes(reply[2:4], "big") / 10}, {})


def identify(wire: Wire, address: int) -> str | None:
    """A whole answer with its checksum."""
    measure(wire, address)
    return "an answer to function 3 with a good checksum"


def _wake(wire: Wire, address: int) -> None:
    """Asleep it does not acknowledge, and wakes all the same."""
    try:
        wire.write(address, _WAKE)
    except DeviceError as error:
        if error.reason != NOTHING_THERE:
            raise
    wire.wait_ms(1)


AM2320 = Part(
    title="Aosong AM2320",
    addresses=(0x5C,),
    ranges={"temperature": (-40, 80), "relative_humidity": (0, 100)},
    min_every_s=2.0,
    measure=measure,
    identify=identify,
    previous_within_s=60.0,
)
