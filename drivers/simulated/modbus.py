"""Simulated Modbus buses: the real client, a real wire, and twins of meters at its far end.

Usable in any config: a device on such a bus is read through sockets or a terminal like any other.
"""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from drivers.modbus import (
    ModbusDeviceSettings,
    ModbusRtu,
    ModbusRtuSettings,
    ModbusTcp,
    ModbusTcpDeviceSettings,
    ModbusTcpSettings,
    tcp_frame,
)
from drivers.modbus_device import ModbusDevice
from drivers.modbus_tcp import TcpExchange
from drivers.registers import MeterProfile
from drivers.simulated.meter import MeterTwin, TwinSection
from drivers.simulated.server import ModbusTwinServer
from edge_agent.clock import Clock


class SimulatedModbusTcpSettings(ModbusTcpSettings):
    """Twins behind Modbus TCP, on this machine only."""

    host: str = Field(default="127.0.0.1", pattern=r"^127\.\d+\.\d+\.\d+$", description="Where the twins listen.")
    port: int = Field(default=0, ge=0, le=65535, description="The TCP port of the twins; 0: one that is free.")


class SimulatedModbusRtuSettings(ModbusRtuSettings):
    """Twins on a pseudo-terminal."""

    port: str = Field(default="", description="The link that leads to the terminal; empty: a temporary one.")


class SimulatedTcpDeviceSettings(ModbusTcpDeviceSettings):
    """A meter that is simulated behind Modbus TCP."""

    twin: TwinSection = Field(default=TwinSection(), description="What the meter measures, and what goes wrong.")

    @field_validator("twin")
    @classmethod
    def _possible(cls, twin: TwinSection) -> TwinSection:
        if any(fault.kind == "crc" for fault in twin.faults):
            raise ValueError("a TCP frame has no checksum of its own; `crc` needs kind simulated-modbus-rtu")
        return twin


class SimulatedRtuDeviceSettings(ModbusDeviceSettings):
    """A meter that is simulated on an RTU line."""

    twin: TwinSection = Field(default=TwinSection(), description="What the meter measures, and what goes wrong.")


class SimulatedModbusTcp(ModbusTcp):
    """A Modbus TCP bus whose far end is simulated. ``twins``: by unit; ``server``: to make them fail at will."""

    Settings = SimulatedModbusTcpSettings
    DeviceSettings = SimulatedTcpDeviceSettings

    def __init__(self, name: str, settings: SimulatedModbusTcpSettings, clock: Clock) -> None:
        super().__init__(name, settings, clock)
        self.twins: dict[int, MeterTwin] = {}
        self.server = ModbusTwinServer(self.twins, clock)
        self._address = (settings.host, settings.port)
        self._following = _Following(settings, clock)
        self.exchange = self._following

    def device(self, name: str, settings: Any, profile: MeterProfile) -> ModbusDevice:
        self.twins[settings.unit] = _twin(profile, settings, self.clock)
        return super().device(name, settings, profile)

    def open(self) -> None:
        """Start the twins, then connect to them; raises WireError. Harmless when already open."""
        if not self.server.is_open:
            host, port = self._address
            self._address = host, self.server.listen(host, port)
            self._following.aim(*self._address)
        super().open()

    def close(self) -> None:
        super().close()
        self.server.close()


class SimulatedModbusRtu(ModbusRtu):
    """An RTU line whose far end is simulated. ``twins``: by unit; ``server``: to make them fail at will."""

    Settings = SimulatedModbusRtuSettings
    DeviceSettings = SimulatedRtuDeviceSettings

    def __init__(self, name: str, settings: SimulatedModbusRtuSettings, clock: Clock) -> None:
        unique = f"edge-agent-{secrets.token_hex(8)}.tty"
        self._terminal = Path(settings.port) if settings.port else Path(tempfile.gettempdir(), unique)
        super().__init__(name, settings.model_copy(update={"port": str(self._terminal)}), clock)
        self.twins: dict[int, MeterTwin] = {}
        self.server = ModbusTwinServer(self.twins, clock)

    def device(self, name: str, settings: Any, profile: MeterProfile) -> ModbusDevice:
        self.twins[settings.unit] = _twin(profile, settings, self.clock)
        return super().device(name, settings, profile)

    def open(self) -> None:
        """Start the twins, then open their terminal; raises WireError. Harmless when already open."""
        if not self.server.is_open:
            self.server.open_pty(self._terminal)
        super().open()

    def close(self) -> None:
        super().close()
        self.server.close()


class _Following(TcpExchange):
    """A connection to a port that is known only once somebody listens."""

    def __init__(self, settings: SimulatedModbusTcpSettings, clock: Clock) -> None:
        self._patience_s = settings.connect_timeout
        super().__init__(
            settings.host,
            settings.port,
            clock,
            tcp_frame,
            connect_s=settings.connect_timeout,
            gap_s=settings.gap,
            warm_up_s=settings.warm_up,
        )

    def aim(self, host: str, port: int) -> None:
        self._where = f"{host}:{port}"
        self._connect_to = (host, port, self._patience_s)


def _twin(profile: MeterProfile, settings: Any, clock: Clock) -> MeterTwin:
    """The meter behind the device's transformers: what it sees is what the load does, seen through them."""
    direction = -1.0 if settings.invert else 1.0
    through = {"A": settings.ct_ratio, "V": settings.pt_ratio}
    views = {}
    for name, quantity in profile.quantities.items():
        ratio = through.get(quantity.unit, 1.0)
        if quantity.unit in ("W", "var", "VA", "Wh", "varh", "VAh"):
            ratio = settings.ct_ratio * settings.pt_ratio
        seen = _reversed(name) if settings.invert else name
        if seen == name and name.startswith(("active_power", "reactive_power")):
            ratio *= direction
        views[name] = (seen, ratio)
    return MeterTwin(profile, settings.twin, clock, views)


def _reversed(name: str) -> str:
    """What transformers that look the other way make of import and export."""
    return name.replace("_import", "_export") if "_import" in name else name.replace("_export", "_import")
