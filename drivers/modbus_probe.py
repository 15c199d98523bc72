"""Who is on a Modbus wire: which units answer, and which profile fits what they say.

Nothing is written. A unit is known by its identity registers where its profile has some, by its SunSpec
models, and else by whether voltage and frequency stand where a profile has them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from drivers.decode import Decoder, Register
from drivers.modbus_unit import NOBODY_HOME, RefusedError
from drivers.registers import MeterProfile, load_profile, profile_names
from drivers.sunspec import find_model
from edge_agent.errors import DeviceError, WireError
from edge_agent.vocabulary import CRC, TIMEOUT, WRONG_REPLY

_WAKING: Final = 10  # frames after which a meter that finds the baud rate by itself has found it
_WAKE_S: Final = 0.02
_DAMAGED: Final = "something answers, but damaged: wrong baud rate or parity, or two units with one number"
# What mains may be, in base units, by the beginning of a quantity's name.
_PLAUSIBLE: Final = (
    ("voltage_l1_l2", ((190, 245), (360, 500))),
    ("voltage_l2_l3", ((190, 245), (360, 500))),
    ("voltage", ((90, 140), (200, 300))),
    ("frequency", ((49, 51), (59, 61))),
)
_TELLING: Final = ("voltage_l1", "voltage", "voltage_l2", "voltage_l3", "voltage_l1_l2", "voltage_l2_l3", "frequency")


class Wire(Protocol):
    """A Modbus bus."""

    def request(self, unit: int, fc: int, address: int, count: int, timeout_s: float | None = None) -> bytes: ...


class Found(NamedTuple):
    """``profile``: what to write into the config, None if nothing fits; ``others``: what fits as well.

    ``is_clear``: whole answers came; else the settings of the line are wrong, or two units have one number.
    """

    unit: int
    profile: str | None
    others: tuple[str, ...]
    evidence: str
    is_clear: bool = True


def wake(wire: Wire) -> None:
    """Broadcast some frames, which nobody answers, for meters that find the baud rate by listening."""
    for count in range(1, _WAKING + 1):  # each of another length, or the wire would wait for the answer still owed
        with suppress(DeviceError):
            wire.request(0, 4, 0, count, _WAKE_S)


def scan(wire: Wire, units: Iterable[int], timeout_s: float, progress: Callable[[int], None]) -> Iterator[Found]:
    """Ask each unit whether it is there, and who answers what it is; raises WireError.

    ``progress`` hears each unit before it is asked.
    """
    for unit in units:
        progress(unit)
        try:
            wire.request(unit, 4, 0, 2, timeout_s)
        except WireError:
            raise
        except RefusedError as error:
            if error.code not in NOBODY_HOME:
                yield identify(wire, unit, timeout_s)
        except DeviceError as error:
            if error.reason in (CRC, WRONG_REPLY):
                yield Found(unit, None, (), _DAMAGED, is_clear=False)
        else:
            yield identify(wire, unit, timeout_s)


@dataclass
class _Memory:
    """Every question of one unit is asked once. None: refused or silent."""

    wire: Wire
    unit: int
    timeout_s: float
    known: dict[tuple[int, int, int], bytes | None] = field(default_factory=dict)
    misses: int = 0

    def read(self, fc: int, at: int, count: int) -> bytes | None:
        key = fc, at, count
        if key not in self.known:
            self.known[key] = None
            try:
                self.known[key] = bytes(self.wire.request(self.unit, fc, at, count, self.timeout_s))
            except WireError:
                raise
            except DeviceError as error:
                self.misses += error.reason == TIMEOUT
        return self.known[key]

    def holding(self, address: int, count: int) -> bytes:
        data = self.read(3, address, count)
        if data is None:
            raise RefusedError(self.unit, 2)
        return data


def identify(wire: Wire, unit: int, timeout_s: float) -> Found:
    """Which profile fits, and why; raises WireError."""
    memory = _Memory(wire, unit, timeout_s)
    for profile in _profiles():
        if profile.identity and _is(profile, memory):
            said = ", ".join(str(row.match) for row in profile.identity)
            return Found(unit, profile.key, (), f"its identity registers say {said}")
    model = _sunspec_model(memory)
    if model is not None:
        fitting = tuple(profile.key for profile in _profiles() if model in profile.models)
        return Found(unit, fitting[0] if fitting else None, fitting[1:], f"SunSpec model {model}")
    return _best_fit(unit, memory)


def _is(profile: MeterProfile, memory: _Memory) -> bool:
    for row in profile.identity:
        data = memory.read(row.fc, row.at, row.size)
        if data is None or not row.matches(data):
            return False
    return True


def _sunspec_model(memory: _Memory) -> int | None:
    wanted = {model for profile in _profiles() for model in profile.models}
    try:
        address = find_model(memory.holding, wanted)
    except WireError:
        raise
    except DeviceError:
        return None
    return int(struct.unpack(">H", memory.holding(address, 2)[:2])[0])


def _best_fit(unit: int, memory: _Memory) -> Found:
    """The profiles under which the unit measures mains."""
    scores: dict[str, tuple[int, str]] = {}
    for profile in _profiles():
        if profile.discover is None and not profile.identity:
            score, seen = _score(profile, memory)
            if score > 0:
                scores[profile.key] = (score, seen)
    if not scores:
        return Found(unit, None, (), "answers; no profile sees mains voltage in it")
    best = max(score for score, _ in scores.values())
    fitting = [key for key, (score, _) in scores.items() if score == best]
    return Found(unit, fitting[0], tuple(fitting[1:]), f"{scores[fitting[0]][1]} where this profile has them")


def _score(profile: MeterProfile, memory: _Memory) -> tuple[int, str]:
    """How many of its rows show mains, less those that cannot; what was seen. None at all without a voltage."""
    score, voltages = 0, 0
    seen: list[str] = []
    rows = {row.name: row for row in profile.registers if row.name in _TELLING}
    for name in _TELLING:
        if name not in rows:
            continue
        value = _value(rows[name], memory)
        if value is not None and _is_plausible(name, value):
            score += 2
            voltages += name != "frequency"
            if len(seen) < 2 and name in ("voltage_l1", "voltage", "voltage_l1_l2", "frequency"):
                seen.append(f"{value:.1f} {'Hz' if name == 'frequency' else 'V'}")
        elif value == 0 and name != "frequency" and voltages:
            score -= 1  # a phase that is not there
        else:
            score -= 3
        if not voltages and score < 0:
            return 0, ""
    if not voltages:
        return 0, ""
    last = max(profile.registers, key=lambda row: (row.fc, row.at))
    score += 1 if memory.read(last.fc, last.first, last.end - last.first) is not None else -2
    return score, " and ".join(seen)


def _value(row: Register, memory: _Memory) -> float | None:
    data = memory.read(row.fc, row.first, row.end - row.first)
    if data is None:
        return None
    values: dict[str, float] = {}
    Decoder([row], row.first).decode(data, values, {})
    return values.get(row.name)


def _is_plausible(name: str, value: float) -> bool:
    ranges = next(ranges for prefix, ranges in _PLAUSIBLE if name.startswith(prefix))
    return any(low <= value <= high for low, high in ranges)


@cache
def _profiles() -> tuple[MeterProfile, ...]:
    """Every shipped profile, the best proven first."""
    found = [load_profile(name, Path()) for name in profile_names()]
    return tuple(sorted(found, key=lambda profile: (profile.confidence, profile.key)))
