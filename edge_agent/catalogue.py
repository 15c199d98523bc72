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
    "kernel-sensor": "drivers.kernel_sensor:KernelSensors",
    "simulated-modbus-tcp": "drivers.simulated.modbus:SimulatedModbusTcp",
    "simulated-modbus-rtu": "drivers.simulated.modbus:SimulatedModbusRtu",
    "simulated-i2c": "drivers.simulated.i2c:SimulatedI2c",
}

# How long a device keeps its wire busy, where that can be told from baud rate and plan.
WIRE_TIMES: Final[dict[str, str]] = {
    "modbus-rtu": "drivers.modbus_time:rtu",
    "modbus-rtu-over-tcp": "drivers.modbus_time:rtu",
}

# A scan asks in this order: where parts share an address, first the question that harms none of the others.
SENSORS: Final[dict[str, str]] = {
    "hdc3020": "drivers.sensors.hdc302x:HDC302X",
    "hdc3021": "drivers.sensors.hdc302x:HDC302X",
    "hdc3022": "drivers.sensors.hdc302x:HDC302X",
    "sht31": "drivers.sensors.sht3x:SHT3X",
    "sht30": "drivers.sensors.sht3x:SHT3X",
    "sht35": "drivers.sensors.sht3x:SHT3X",
    "sht4x": "drivers.sensors.sht4x:SHT4X",
    "sht40": "drivers.sensors.sht4x:SHT4X",
    "sht41": "drivers.sensors.sht4x:SHT4X",
    "sht45": "drivers.sensors.sht4x:SHT4X",
    "shtc3": "drivers.sensors.shtc3:SHTC3",
    "htu21d": "drivers.sensors.htu21d:HTU21D",
    "si7021": "drivers.sensors.htu21d:HTU21D",
    "si7020": "drivers.sensors.htu21d:HTU21D",
    "sht20": "drivers.sensors.htu21d:HTU21D",
    "sht21": "drivers.sensors.htu21d:HTU21D",
    "sht25": "drivers.sensors.htu21d:HTU21D",
    "hdc1080": "drivers.sensors.hdc1080:HDC1080",
    "hdc1008": "drivers.sensors.hdc1080:HDC1008",
    "hdc1010": "drivers.sensors.hdc1080:HDC1008",
    "aht20": "drivers.sensors.aht:AHT20",
    "aht21": "drivers.sensors.aht:AHT20",
    "aht25": "drivers.sensors.aht:AHT20",
    "aht10": "drivers.sensors.aht:AHT10",
    "am2320": "drivers.sensors.am2320:AM2320",
    "bme280": "drivers.sensors.bme280:BME280",
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
    "sanity": "models.sanity_rule:SanityRule",
    "model": "models.installed:InstalledModel",
}

# What models need done to pictures.
PICTURES: Final[dict[str, str]] = {
    "decode": "drivers.opencv:decode",
    "encode": "drivers.opencv:encode_jpeg",
    "resize": "drivers.opencv:resize",
    "channels": "drivers.opencv:channels",
    "look-up": "drivers.opencv:look_up",
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
