"""What we speak: quantities with their units, and the nouns that travel between stages.

SI base units, sign ``+`` = consumed (imported). The unit belongs to the quantity, never to a driver.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from edge_agent.clock import Stamp

# --- why a value is absent -------------------------------------------------------------------

TIMEOUT: Final = "timeout"  # no answer in time
CRC: Final = "crc"  # an answer, damaged
WRONG_REPLY: Final = "wrong-reply"  # an answer to something else: unit, function, length
EXCEPTION: Final = "exception"  # the device refused; the code follows: exception-02
SENTINEL: Final = "not-available"  # the device itself said "no value"
NOT_A_NUMBER: Final = "nan"
OUT_OF_RANGE: Final = "out-of-range"  # physically impossible
SLEW: Final = "slew"  # moved faster than it can
COUNTER_BACKWARDS: Final = "counter-backwards"
WIRE: Final = "bus-down"  # the port or connection is gone
NOTHING_THERE: Final = "not-found"  # nobody at that address
PERMISSION: Final = "permission"
BUSY: Final = "busy"
STALE: Final = "stale"

# --- why a product was not inspected (beside the reasons above) -------------------------------

BLACK: Final = "black"
OVER_EXPOSED: Final = "over-exposed"
FROZEN: Final = "frozen"  # the same picture again and again, without the noise of a sensor
TRUNCATED: Final = "truncated"  # the picture ends too early
DAMAGED: Final = "damaged"  # it decodes, but not cleanly
WRONG_SIZE: Final = "wrong-size"
TOO_LARGE: Final = "too-large"  # more pixels than may be decoded
NOT_A_PICTURE: Final = "not-a-picture"  # neither JPEG nor PNG
UNPLUGGED: Final = "unplugged"
HUNG: Final = "camera-hung"  # no sign of life within the deadline
CRASHED: Final = "camera-crashed"  # its process died
NO_TRIGGER: Final = "no-trigger"  # what says that a part is there cannot be asked
NO_PICTURE: Final = "no-picture"  # a part was there, and no picture of it came in time
JUDGE_FAILED: Final = "judge-failed"  # nobody could decide
CAMERA_MOVED: Final = "camera-moved"  # it does not show what it showed when it was calibrated
LIGHT_CHANGED: Final = "light-changed"  # another light than when it was calibrated

# --- quantities ------------------------------------------------------------------------------

GAUGE: Final = "gauge"
COUNTER: Final = "counter"


class Quantity(NamedTuple):
    """A physical quantity: its unit, and what is physically possible for a machine on a line.

    ``low``/``high``: outside of it a value is wrong, not unusual. ``None``: no bound.
    ``slew``: the most it may move, in units per second; ``None``: any.
    ``digits``: significant digits that its source has (9 hold any float32); ``None``: all of them count.
    ``wraps``: a counter that is full begins again from 0 here; ``None``: not known. ``step``: the least it rises by.
    """

    name: str
    unit: str
    low: float | None = None
    high: float | None = None
    kind: str = GAUGE
    slew: float | None = None
    digits: int | None = None
    wraps: float | None = None
    step: float = 0.0


def _phases(name: str, unit: str, low: float, high: float) -> list[Quantity]:
    return [Quantity(f"{name}_{phase}", unit, low, high) for phase in ("l1", "l2", "l3")]


_POWER = 10e6  # W: ten megawatts is beyond any low-voltage line
_ENERGY = _POWER / 3600  # Wh that it delivers in a second
_ROWS: list[Quantity] = [
    Quantity("active_power", "W", -_POWER, _POWER),
    *_phases("active_power", "W", -_POWER, _POWER),
    Quantity("reactive_power", "var", -_POWER, _POWER),
    *_phases("reactive_power", "var", -_POWER, _POWER),
    Quantity("apparent_power", "VA", -_POWER, _POWER),
    *_phases("apparent_power", "VA", -_POWER, _POWER),
    Quantity("power_factor", "", -1.001, 1.001),
    *_phases("power_factor", "", -1.001, 1.001),
    Quantity("phase_angle", "deg", -360, 360),
    Quantity("frequency", "Hz", 40, 70),
    Quantity("voltage", "V", 0, 50_000),
    *_phases("voltage", "V", 0, 50_000),
    Quantity("voltage_l1_l2", "V", 0, 50_000),
    Quantity("voltage_l2_l3", "V", 0, 50_000),
    Quantity("voltage_l3_l1", "V", 0, 50_000),
    Quantity("current", "A", -10_000, 10_000),
    *_phases("current", "A", -10_000, 10_000),
    Quantity("current_n", "A", -10_000, 10_000),
    *[
        Quantity(f"{name}{suffix}", unit, low, 1e14, COUNTER, slew=_ENERGY)
        for name, unit, low in (
            ("energy_import", "Wh", 0),
            ("energy_export", "Wh", 0),
            ("reactive_energy_import", "varh", 0),
            ("reactive_energy_export", "varh", 0),
            ("apparent_energy", "VAh", 0),
        )
        for suffix in ("", "_l1", "_l2", "_l3", "_t1", "_t2")
    ],
    # Sums of import and export may fall; they are no counters in our sense.
    *[
        Quantity(f"{name}{suffix}", unit, -1e14, 1e14)
        for name, unit in (("energy_total", "Wh"), ("reactive_energy_total", "varh"))
        for suffix in ("", "_l1", "_l2", "_l3")
    ],
    Quantity("demand", "W", -_POWER, _POWER),
    Quantity("thd_voltage", "%", 0, 400),
    *_phases("thd_voltage", "%", 0, 400),
    Quantity("thd_current", "%", 0, 1000),
    *_phases("thd_current", "%", 0, 1000),
    Quantity("temperature", "°C", -55, 155, slew=20),
    Quantity("relative_humidity", "%", 0, 100, slew=50),
    Quantity("dew_point", "°C", -100, 155),
    Quantity("absolute_humidity", "g/m³", 0, 600),
    Quantity("pressure", "Pa", 30_000, 110_000),
]
QUANTITIES: Final[dict[str, Quantity]] = {row.name: row for row in _ROWS}

# --- units: what a person or a manual may write, and its factor to the base unit -------------

_PREFIXED = ("W", "var", "VA", "Wh", "varh", "VAh", "V", "A", "Pa", "Hz")
_PREFIX = {"m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
UNITS: Final[dict[str, tuple[str, float]]] = {
    **{prefix + base: (base, factor) for base in _PREFIXED for prefix, factor in _PREFIX.items()},
    "hPa": ("Pa", 100.0),
    "mbar": ("Pa", 100.0),
    "bar": ("Pa", 1e5),
    "%": ("%", 1.0),
    "%RH": ("%", 1.0),
    "": ("", 1.0),
    "°C": ("°C", 1.0),
    "degC": ("°C", 1.0),
    "C": ("°C", 1.0),
    "deg": ("deg", 1.0),
    "°": ("deg", 1.0),
    "g/m³": ("g/m³", 1.0),
}


def nearest(word: str, known: Iterable[object]) -> str:
    """A clause that names the closest right words (`` — did you mean …?``), or nothing."""
    close = difflib.get_close_matches(word, [str(each) for each in known], n=3, cutoff=0.5)
    return f" — did you mean {' or '.join(repr(match) for match in close)}?" if close else ""


# --- the nouns -------------------------------------------------------------------------------


class Origin(NamedTuple):
    """Who counts: counts go on only while both are the same.

    ``basis``: the table and ratios by which the count is read. ``serial``: of the meter; None: not known.
    """

    basis: str
    serial: str | None = None


class Sample(NamedTuple):
    """What a driver read: values in base units, and what is absent with its reason."""

    values: dict[str, float]
    absent: dict[str, str]


@dataclass(slots=True)
class Reading:
    """One device at one instant. A quantity stands in ``values`` or in ``absent``, never in both.

    ``events``: what happened to counters or identity at this reading, one JSON object each.
    ``origin``: who counts, where known.
    """

    device: str
    at: Stamp
    values: dict[str, float]
    absent: dict[str, str] = field(default_factory=dict)
    events: tuple[dict[str, object], ...] = ()
    origin: Origin | None = None


GOOD: Final = "good"
DEFECT: Final = "defect"
ANOMALY: Final = "anomaly"
NORMAL: Final = "normal"
NOT_INSPECTED: Final = "not-inspected"
UNKNOWN: Final = "unknown"


class Judgement(NamedTuple):
    """What a judge says of one picture. ``score`` rises with the suspicion."""

    label: str
    score: float
    threshold: float
    details: dict[str, object]


@dataclass(slots=True)
class Verdict:
    """A judgement, and who made it. ``subject``: the camera or model that it is about.

    ``evidence``: id of the picture file kept for it, or None. ``reason``: why not inspected.
    """

    subject: str
    at: Stamp
    label: str
    decided_by: str
    score: float | None = None
    threshold: float | None = None
    model_sha256: str | None = None
    latency_ms: float | None = None
    evidence: str | None = None
    reason: str | None = None
    details: dict[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class AlarmChange:
    """An alarm entered a state (ISA-18.2 words). ``since``: when the condition began."""

    alarm: str
    at: Stamp
    state: str
    severity: str
    since: Stamp
    cause: str
    details: dict[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Evidence:
    """A picture file that belongs to a verdict; the file is complete when this is sent."""

    camera: str
    at: Stamp
    id: str
    path: str
    sha256: str
    size_bytes: int
    role: str = "verdict"  # verdict | pre | post | overlay | uncertain
