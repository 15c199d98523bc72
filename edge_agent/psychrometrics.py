"""What temperature and relative humidity say together.

Magnus formula over water with the coefficients 6.112 hPa, 17.62 and 243.12 °C: WMO-No. 8, Guide to
Instruments and Methods of Observation, annex 4.B; valid from -45 to 60 °C.
"""

from __future__ import annotations

import math
from typing import Final

from edge_agent.vocabulary import OUT_OF_RANGE

_A: Final = 17.62
_B: Final = 243.12  # °C
_E0: Final = 611.2  # Pa, saturation vapour pressure at 0 °C
_LOW: Final = -45.0  # °C
_HIGH: Final = 60.0  # °C
_WATER: Final = 461.5  # J/(kg K), specific gas constant of water vapour

DERIVED: Final = ("dew_point", "absolute_humidity")


def vapour_pressure(temperature: float, relative_humidity: float) -> float:
    """Partial pressure of water vapour in Pa, from °C and %."""
    return relative_humidity / 100 * _E0 * math.exp(_A * temperature / (_B + temperature))


def dew_point(temperature: float, relative_humidity: float) -> float:
    """Dew point in °C, from °C and % (above 0)."""
    gamma = math.log(relative_humidity / 100) + _A * temperature / (_B + temperature)
    return _B * gamma / (_A - gamma)


def absolute_humidity(temperature: float, relative_humidity: float) -> float:
    """Grams of water in a cubic metre of air, from °C and %."""
    return 1000 * vapour_pressure(temperature, relative_humidity) / (_WATER * (temperature + 273.15))


def derive(values: dict[str, float], absent: dict[str, str]) -> None:
    """Add both derived quantities; absent for the reason of what they come from."""
    try:
        temperature, humidity = values["temperature"], values["relative_humidity"]
    except KeyError as missing:
        absent.update(dict.fromkeys(DERIVED, absent.get(str(missing.args[0]), OUT_OF_RANGE)))
        return
    if not (_LOW <= temperature <= _HIGH and humidity > 0):
        absent.update(dict.fromkeys(DERIVED, OUT_OF_RANGE))
        return
    values["dew_point"] = dew_point(temperature, humidity)
    values["absolute_humidity"] = absolute_humidity(temperature, humidity)
