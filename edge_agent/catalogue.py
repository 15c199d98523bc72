"""Every kind that a config may name, and where it lives. Imported only when it is named.

Adding a sensor costs one file and one row here; adding a meter costs one YAML file and no row.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

BUSES: Final[dict[str, str]] = {
    "modbus-tcp": "drivers.modbus:ModbusTcp",
    "modbus-rtu": "drivers.modbus:ModbusRtu",
    "modbus-rtu-over-tcp": "drivers.modbus:ModbusRtuOverTcp",
    "i2c": "drivers.i2c:I2cBus",
    "simulated-modbus-tcp": "drivers.simulated.modbus:SimulatedModbusTcp",
    "simulated-modbus-rtu": "drivers.simulated.modbus:SimulatedModbusRtu",
    "simulated-i2c": "drivers.simulated.i2c:SimulatedI2c",
}

SENSORS: Final[dict[str, str]] = {
    "sht31": "drivers.sensors.sht3x:Sht3x",
    "sht4x": "drivers.sensors.sht4x:Sht4x",
    "bme280": "drivers.sensors.bme280:Bme280",
    "htu21d": "drivers.sensors.htu21d:Htu21d",
    "si7021": "drivers.sensors.htu21d:Si7021",
}

CAMERAS: Final[dict[str, str]] = {
    "v4l2": "drivers.cameras.stream:V4l2",
    "rtsp": "drivers.cameras.stream:Rtsp",
    "http": "drivers.cameras.http:Http",
    "video-file": "drivers.cameras.stream:VideoFile",
    "folder": "drivers.cameras.folder:Folder",
    "csi": "drivers.cameras.csi:Csi",
    "simulated": "drivers.cameras.simulated:Simulated",
}

JUDGES: Final[dict[str, str]] = {
    "dark-spot": "models.dark_spot:DarkSpot",
}

OUTPUTS: Final[dict[str, str]] = {
    "gpio": "drivers.gpio:StackLight",
    "relay": "drivers.gpio:Relay",
    "simulated": "drivers.gpio:SimulatedStackLight",
}


def load(table: dict[str, str], kind: str) -> Any:
    """Import and return what a kind names; the import cost is paid here and only here."""
    module, _, name = table[kind].partition(":")
    return getattr(import_module(module), name)
