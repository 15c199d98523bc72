"""The Modbus buses: TCP, RTU on a serial port, and RTU through a raw TCP gateway.

pymodbus makes the frames and checks the CRC; the conversation is ours (see modbus_tcp and modbus_rtu),
because what matters is which late or foreign reply is *not* believed. Only reading functions exist here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from pydantic import Field
from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU
from pymodbus.pdu.register_message import ReadHoldingRegistersRequest, ReadInputRegistersRequest

from drivers.modbus_device import Exchange, ModbusDevice
from drivers.modbus_rtu import RtuExchange
from drivers.modbus_tcp import TcpExchange
from drivers.modbus_transport import Rs485, SerialPort, SocketPort
from drivers.modbus_unit import Unit
from drivers.published import published
from drivers.registers import MeterProfile, load_profile
from edge_agent.clock import NS, Clock
from edge_agent.errors import ProfileError
from edge_agent.settings import BusSection, DeviceSection, Duration, Section
from edge_agent.vocabulary import nearest

_CEILING_S: Final = 4.0
_LEAST_CEILING_S: Final = 0.5
_SHARE_OF_PERIOD: Final = 0.8

_READS: Final[dict[int, type[ReadHoldingRegistersRequest]]] = {
    3: ReadHoldingRegistersRequest,
    4: ReadInputRegistersRequest,
}
_SOCKET: Final = FramerSocket(DecodePDU(is_server=False))
_RTU: Final = FramerRTU(DecodePDU(is_server=False))


def tcp_frame(unit: int, fc: int, address: int, count: int) -> bytes:
    """A read request with an MBAP header, transaction 0."""
    return _SOCKET.buildFrame(_READS[fc](address=address, count=count, dev_id=unit))


def rtu_frame(unit: int, fc: int, address: int, count: int) -> bytes:
    """A read request with its CRC."""
    return _RTU.buildFrame(_READS[fc](address=address, count=count, dev_id=unit))


def crc_is_good(frame: bytes) -> bool:
    """Whether the last two bytes of a frame are the CRC of the rest."""
    return FramerRTU.check_CRC(frame[:-2], int.from_bytes(frame[-2:], "big"))


class _Timing(BusSection):
    timeout_ceiling: Duration | None = Field(
        default=None,
        gt=0,
        description="The longest wait for an answer, and for the first one. "
        "Unset: 4s, but no longer than 0.8 of the shortest period of other devices on this wire (at least 500ms).",
    )
    gap: Duration = Field(default=0.0, ge=0, description="Pause between an answer and the next request.")
    warm_up: Duration = Field(default=0.0, ge=0, description="Pause after opening, before the first request.")
    bridge: int | None = Field(
        default=None,
        ge=0,
        le=123,
        description="Widest hole, in registers, that a request spans instead of becoming two. "
        "Unset: 7 on RTU, 31 on TCP, or more where the profile says so.",
    )


class ModbusTcpSettings(_Timing):
    """A Modbus TCP device or gateway."""

    host: str = Field(min_length=1, description="Its IP address or name.")
    port: int = Field(default=502, ge=1, le=65535, description="Its TCP port.")
    connect_timeout: Duration = Field(default=3.0, gt=0, description="The longest wait for a connection.")
    timeout_floor: Duration = Field(default=0.3, gt=0, description="The shortest wait for an answer.")


class _Rtu(_Timing):
    baudrate: int = Field(default=9600, ge=300, le=4_000_000, description="Bits per second on the line.")
    timeout_floor: Duration = Field(default=0.1, gt=0, description="The shortest wait for an answer.")
    echo: bool = Field(default=False, description="The adapter hears its own requests.")


class ModbusRtuSettings(_Rtu):
    """A serial line."""

    port: str = Field(
        min_length=1, description="The serial port; best by /dev/serial/by-id, which survives replugging."
    )
    parity: Literal["N", "E", "O"] = Field(default="N", description="N none, E even, O odd.")
    stopbits: Literal[1, 2] = Field(default=1, description="Stop bits.")
    bytesize: Literal[7, 8] = Field(default=8, description="Data bits; RTU has 8.")
    rs485: bool = Field(default=False, description="Let the UART switch the direction by RTS (not for USB adapters).")
    rts_delay_before: Duration = Field(default=0.0, ge=0, le=0.1, description="From RTS to the first bit.")
    rts_delay_after: Duration = Field(default=0.0, ge=0, le=0.1, description="From the last bit to RTS.")


class ModbusRtuOverTcpSettings(_Rtu):
    """A gateway that passes RTU frames through, byte by byte."""

    host: str = Field(min_length=1, description="Its IP address or name.")
    port: int = Field(default=502, ge=1, le=65535, description="Its TCP port.")
    connect_timeout: Duration = Field(default=3.0, gt=0, description="The longest wait for a connection.")


class ModbusDeviceSettings(DeviceSection):
    """A meter on an RTU line."""

    unit: int = Field(ge=1, le=247, description="The meter's address on the wire.")
    ct_ratio: float = Field(default=1.0, gt=0, description="Current transformer: 200/5 A is 40.")
    pt_ratio: float = Field(default=1.0, gt=0, description="Voltage transformer: 11000/110 V is 100.")
    invert: bool = Field(
        default=False, description="The current transformers look the other way: power changes sign, import is export."
    )
    groups: dict[str, Duration] = Field(default={}, description="Own periods for register groups of the profile.")
    quantities: list[str] | None = Field(
        default=None, min_length=1, description="Read only these; unset: all of the profile."
    )


class ModbusTcpDeviceSettings(ModbusDeviceSettings):
    """A meter behind Modbus TCP, where 0 and 255 mean the device itself."""

    unit: int = Field(default=1, ge=0, le=255, description="The meter's address behind this connection.")


class _Modbus:
    """What the three buses share. Implements :class:`edge_agent.contracts.Bus`."""

    Settings: ClassVar[type[Section]]
    DeviceSettings: ClassVar[type[Section]] = ModbusDeviceSettings
    default_hole: ClassVar[int] = 7
    exchange: Exchange

    def __init__(self, name: str, settings: Any, clock: Clock) -> None:
        self.name = name
        self.clock = clock
        self.times_opened = 0
        self._settings = settings
        self._is_open = False
        self._units: dict[int, Unit] = {}
        self._periods: dict[int, float] = {}

    @classmethod
    def profile(cls, settings: Any, folder: Path) -> MeterProfile:
        """See :class:`edge_agent.contracts.Bus`; also checks the names that the device's settings use."""
        profile = load_profile(settings.profile, folder)
        known = {row.name for row in published(profile, settings.model_copy(update={"quantities": None}))}
        for word in settings.quantities or ():
            if word not in known:
                raise ProfileError(f"profile {profile.key} has no quantity {word!r}{nearest(word, known)}")
        for word in settings.groups:
            if word not in profile.groups:
                raise ProfileError(f"profile {profile.key} has no group {word!r}{nearest(word, profile.groups)}")
        return profile

    def device(self, name: str, settings: Any, profile: MeterProfile) -> ModbusDevice:
        device = ModbusDevice(name, settings, profile, self, self.unit(settings.unit))
        shortest = min(device.groups.values())
        self._periods[settings.unit] = min(shortest, self._periods.get(settings.unit, shortest))
        for unit in self._units.values():
            unit.bound(int(self._settings.timeout_floor * NS), self._ceiling_ns(unit.number))
        return device

    def open(self) -> None:
        self.exchange.open()
        if not self._is_open:
            self._is_open = True
            self.times_opened += 1

    def close(self) -> None:
        self._is_open = False
        self.exchange.close()

    def request(self, unit: int, fc: int, address: int, count: int, timeout_s: float | None = None) -> bytes:
        """Read ``count`` registers by hand: their bytes. Raises as a device's ``read`` does."""
        question = self.exchange.request(unit, fc, address, count)
        return bytes(self.exchange.ask(question, self.unit(unit), int((timeout_s or 0) * NS)))

    def unit(self, number: int) -> Unit:
        """What is known of a unit."""
        if number not in self._units:
            floor_ns = int(self._settings.timeout_floor * NS)
            self._units[number] = Unit(number, floor_ns, self._ceiling_ns(number))
        return self._units[number]

    def hole(self, profile: MeterProfile) -> int:
        """The widest hole that a request to this meter may span."""
        if not profile.holes:
            return 0
        if self._settings.bridge is not None:
            return int(self._settings.bridge)
        return max(self.default_hole, profile.bridge or 0)

    def _ceiling_ns(self, unit: int) -> int:
        """A dead unit must not cost its neighbours a turn, unless somebody wants it to."""
        if self._settings.timeout_ceiling is not None:
            return int(self._settings.timeout_ceiling * NS)
        shortest = min((period for number, period in self._periods.items() if number != unit), default=_CEILING_S * 2)
        return int(NS * max(_LEAST_CEILING_S, min(_CEILING_S, _SHARE_OF_PERIOD * shortest)))


class ModbusTcp(_Modbus):
    """Modbus TCP: one connection, any number of units behind it."""

    Settings = ModbusTcpSettings
    DeviceSettings = ModbusTcpDeviceSettings
    default_hole = 31

    def __init__(self, name: str, settings: ModbusTcpSettings, clock: Clock) -> None:
        super().__init__(name, settings, clock)
        self.exchange = TcpExchange(
            settings.host,
            settings.port,
            clock,
            tcp_frame,
            connect_s=settings.connect_timeout,
            gap_s=settings.gap,
            warm_up_s=settings.warm_up,
        )


def _line(port: SerialPort | SocketPort, settings: _Rtu, clock: Clock) -> RtuExchange:
    return RtuExchange(
        port,
        clock,
        rtu_frame,
        crc_is_good,
        baudrate=settings.baudrate,
        gap_s=settings.gap,
        warm_up_s=settings.warm_up,
        echo=settings.echo,
        may_be_half_open=isinstance(port, SocketPort),
    )


class ModbusRtu(_Modbus):
    """Modbus RTU on a serial port of this machine."""

    Settings = ModbusRtuSettings

    def __init__(self, name: str, settings: ModbusRtuSettings, clock: Clock) -> None:
        super().__init__(name, settings, clock)
        port = SerialPort(
            settings.port,
            baudrate=settings.baudrate,
            parity=settings.parity,
            stopbits=settings.stopbits,
            bytesize=settings.bytesize,
            rs485=Rs485(settings.rts_delay_before, settings.rts_delay_after) if settings.rs485 else None,
        )
        self.exchange = _line(port, settings, clock)


class ModbusRtuOverTcp(_Modbus):
    """Modbus RTU frames through a raw TCP gateway."""

    Settings = ModbusRtuOverTcpSettings

    def __init__(self, name: str, settings: ModbusRtuOverTcpSettings, clock: Clock) -> None:
        super().__init__(name, settings, clock)
        port = SocketPort(settings.host, settings.port, settings.connect_timeout)
        self.exchange = _line(port, settings, clock)
