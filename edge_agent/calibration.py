"""How a sensor differs from a reference instrument, and putting that right.

One file per device, ``state_dir/calibration/<device>.json``: its calibrations, the newest last, which is the one in
use. What is derived (dew point, absolute humidity) is derived anew from what was corrected. A calibration that has
expired goes on correcting, and is said to have expired until somebody calibrates again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from edge_agent.errors import EdgeAgentError
from edge_agent.psychrometrics import DERIVED, derive
from edge_agent.vocabulary import Sample
from edge_agent.whole import whole

KEPT: Final = 10
_DECIMALS: Final = 3
_SPILL: Final = 3.0  # a corrected humidity this far beyond 0..100 is 0 or 100


class CalibrationError(EdgeAgentError, ValueError):
    """A calibration file cannot be used."""


@dataclass(frozen=True, slots=True)
class Correction:
    """``value = raw × gain + offset``. ``uncertainty``: expanded (k = 2), in the quantity's unit."""

    gain: float
    offset: float
    uncertainty: float

    def __call__(self, raw: float) -> float:
        return raw * self.gain + self.offset

    def raw(self, value: float) -> float:
        """What the sensor itself had said."""
        return (value - self.offset) / self.gain


@dataclass(frozen=True, slots=True)
class Calibration:
    """One calibration of one device. ``at_ms``, ``expires_ms``: Unix milliseconds; ``details``: how it was made."""

    profile: str
    at_ms: int
    expires_ms: int
    who: str
    corrections: Mapping[str, Correction]
    details: Mapping[str, Any]

    def has_expired(self, wall_ms: int) -> bool:
        return wall_ms >= self.expires_ms

    def apply(self, sample: Sample) -> Sample:
        """The sample as the reference instrument would have said it. A quantity that is absent stays so."""
        values, absent = dict(sample.values), dict(sample.absent)
        for name, correction in self.corrections.items():
            if name in values:
                values[name] = _within(name, correction(values[name]))
        if any(name in sample.values or name in sample.absent for name in DERIVED):
            for name in DERIVED:
                values.pop(name, None)
                absent.pop(name, None)
            derive(values, absent)
        return Sample({name: round(value, _DECIMALS) for name, value in values.items()}, absent)


def _within(name: str, value: float) -> float:
    if name == "relative_humidity" and -_SPILL <= value <= 100 + _SPILL:
        return min(100.0, max(0.0, value))
    return value


def path_of(state_dir: Path, device: str) -> Path:
    return state_dir / "calibration" / f"{device}.json"


def history(state_dir: Path, device: str) -> list[Calibration]:
    """Every calibration that is kept, the newest last; none if there is no file. Raises CalibrationError."""
    path = path_of(state_dir, device)
    try:
        entries = json.loads(path.read_bytes())["calibrations"]
        return [_entry(entry) for entry in entries]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CalibrationError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CalibrationError(f"{path} is damaged", hint="calibrate again, or remove the file") from error


def load(state_dir: Path, device: str, profile: str) -> Calibration | None:
    """The calibration in use, if any. Raises CalibrationError, also when it was made with another sensor."""
    kept = history(state_dir, device)
    if not kept:
        return None
    if kept[-1].profile != profile:
        raise CalibrationError(
            f"the calibration of {device} was made with a {kept[-1].profile}, and it is a {profile} now",
            hint=f"edge-agent calibrate sensor {device} --reference …, or --undo",
        )
    return kept[-1]


def encode(kept: list[Calibration]) -> bytes:
    """The content of the file: the last ``KEPT``."""
    return json.dumps({"calibrations": [asdict(each) for each in kept[-KEPT:]]}, indent=1).encode() + b"\n"


def store(state_dir: Path, device: str, kept: list[Calibration]) -> None:
    """Write the file, whole or not at all; raises OSError. The folder must be there."""
    path = path_of(state_dir, device)
    with whole(path) as file:
        file.write(encode(kept))
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.chown(file.fileno(), owner.st_uid, owner.st_gid)


def _entry(entry: dict[str, Any]) -> Calibration:
    corrections = {
        name: Correction(float(row["gain"]), float(row["offset"]), float(row["uncertainty"]))
        for name, row in entry["corrections"].items()
    }
    if any(not 0.5 <= each.gain <= 2 or abs(each.offset) > 1e6 for each in corrections.values()):
        raise ValueError("no sensor is so far off")
    return Calibration(
        str(entry["profile"]),
        int(entry["at_ms"]),
        int(entry["expires_ms"]),
        str(entry["who"]),
        corrections,
        dict(entry["details"]),
    )
