"""How a bus fares, and what that points to, in words that a person with a screwdriver can use.

``diagnose`` is a table of rules over facts: counters that the drivers keep anyway, over some minutes. A rule says
what it suspects and from what; it never changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

from edge_agent.vocabulary import CRC, EXCEPTION, TIMEOUT, WRONG_REPLY

ECHO: Final = "echo"  # a timeout in which only our own request was heard
SECOND_ANSWER: Final = "second-answer"  # something followed a whole answer

FULL: Final = 0.8  # of a line's time; beyond, a slow answer makes the next one late
_FEW: Final = 3  # events that are no accident
_NOISY: Final = 0.01  # share of damaged answers that a sound line does not have
_BAD: Final = 0.05
_LONGER: Final = 1.25  # damaged answers are so much longer than others
_SLOW: Final = 3.0  # times as slow as the neighbours …
_SLOW_MS: Final = 50.0  # … and slow at all
_NO_ROUTE: Final = (f"{EXCEPTION}-0A", f"{EXCEPTION}-0B")


class Load(NamedTuple):
    """What the schedule asks of a line. ``share``: of its time; ``cycle_s``: one round of everything."""

    share: float
    cycle_s: float
    shortest_s: float
    devices: int

    @property
    def room(self) -> int:
        """So many more devices like these fit, at the shortest period."""
        each = self.cycle_s / self.devices / self.shortest_s
        return max(0, int((FULL - self.share) / each + 1e-9))

    def overload(self) -> str:
        """``cycle 7.4 s is longer than 5 s``, or nothing."""
        return f"cycle {self.cycle_s:.1f} s is longer than {self.shortest_s:g} s" if self.share > 1 else ""

    def spare(self) -> str:
        """``room for 3 more meters at 1 s``, or nothing."""
        more = "meter" if self.room == 1 else "meters"
        return f"room for {self.room} more {more} at {self.shortest_s:g} s" if self.room else ""


def load(shares: Iterable[tuple[float, float]], devices: int) -> Load | None:
    """``shares``: seconds on the wire and period, of every register group of every device."""
    rows = [(busy_s, period_s) for busy_s, period_s in shares if busy_s > 0]
    if not rows or not devices:
        return None
    share = sum(busy_s / period_s for busy_s, period_s in rows)
    return Load(share, sum(busy_s for busy_s, _ in rows), min(period_s for _, period_s in rows), devices)


class UnitFacts(NamedTuple):
    """One device, over the time that is looked at; ``has_answered``: ever.

    ``answers``: good ones; a request may still be under way, so what is neither answer nor error tells nothing.
    ``registers``: of an answer, on average; ``damaged_registers``: of those that came damaged. 0: not known.
    """

    device: str
    unit: int | None
    requests: int
    answers: int
    errors: Mapping[str, int]
    latency_ms: tuple[float, float] | None = None
    has_answered: bool = True
    registers: float = 0.0
    damaged_registers: float = 0.0

    @property
    def name(self) -> str:
        return self.device if self.unit is None else f"unit {self.unit} ({self.device})"

    @property
    def answered(self) -> bool:
        """Whether it answered, if only by a refusal."""
        return self.answers > 0 or any(kind.startswith(EXCEPTION) and kind not in _NO_ROUTE for kind in self.errors)

    def count(self, kind: str) -> int:
        return self.errors.get(kind, 0)

    def share(self, kind: str) -> float:
        """Of its requests."""
        return self.count(kind) / self.requests if self.requests else 0.0


class BusFacts(NamedTuple):
    """A bus. ``is_serial``: RTU, where nothing but the bytes tells who talks."""

    is_serial: bool
    units: Sequence[UnitFacts]
    load: Load | None = None


class Suspicion(NamedTuple):
    """``kind``: for machines, it does not change; ``says``: for people, with what it is seen from."""

    kind: str
    says: str


def diagnose(facts: BusFacts) -> list[Suspicion]:
    """What the facts point to; nothing when the bus is well."""
    asked = facts._replace(units=[unit for unit in facts.units if unit.requests])
    return [Suspicion(kind, says) for kind, rule in _RULES for says in rule(asked)]


Rule = Callable[[BusFacts], Iterator[str]]


def _echo(facts: BusFacts) -> Iterator[str]:
    count = sum(unit.count(ECHO) for unit in facts.units)
    if count:
        yield f"the adapter echoes: {_times(count)} only our own request came back; set `echo: true` on this bus"


def _nobody(facts: BusFacts) -> Iterator[str]:
    units = facts.units
    if not facts.is_serial or not units or any(unit.answered or unit.count(ECHO) for unit in units):
        return
    garbage = sum(unit.count(CRC) + unit.count(WRONG_REPLY) for unit in units)
    requests = sum(unit.requests for unit in units)
    who = "the only unit" if len(units) == 1 else f"all {len(units)} units"
    if any(unit.has_answered for unit in units):
        yield f"cable or power? {who} answered before, and now nothing comes to {requests} requests"
    elif garbage:
        seen = f"garbage to {garbage} of {requests} requests, and no answer from {who}"
        yield f"baud rate or parity wrong, or A and B swapped? {seen}"
    else:
        also = ", or another unit number" if len(units) == 1 else ""
        seen = f"{who} silent, {requests} requests, never an answer"
        yield f"A and B swapped? {seen}; it may also be power, baud rate or parity{also}"


def _noise(facts: BusFacts) -> Iterator[str]:
    hit = [unit for unit in facts.units if unit.count(CRC) >= _FEW and unit.share(CRC) >= _NOISY and unit.answered]
    if not facts.is_serial or len(hit) < 2:
        return
    damaged, requests = sum(unit.count(CRC) for unit in hit), sum(unit.requests for unit in hit)
    text = f"termination or noise? damaged answers from {len(hit)} of {len(facts.units)} units"
    text += f", {damaged} of {requests} ({damaged / requests:.1%})"
    known = [unit for unit in hit if unit.registers and unit.damaged_registers]
    if known:
        usual = sum(unit.registers for unit in known) / len(known)
        bad = sum(unit.damaged_registers for unit in known) / len(known)
        if bad >= _LONGER * usual:
            text += f", the longer the worse: {bad:.0f} registers where {usual:.0f} are usual"
    yield text + "; 120 Ω at both ends and only there, shield on one side, away from drives"


def _one_damaged(facts: BusFacts) -> Iterator[str]:
    bad = [unit for unit in facts.units if unit.count(CRC) >= _FEW and unit.share(CRC) >= _BAD]
    others = [unit for unit in facts.units if unit not in bad]
    if len(bad) != 1 or not facts.is_serial or not any(unit.answered for unit in others):
        return
    (unit,) = bad
    if all(other.share(CRC) < _NOISY for other in others):
        seen = f"{unit.count(CRC)} of {unit.requests} answers damaged, those of its neighbours are not"
        yield f"two devices at one address, or a bad stub? {unit.name}: {seen}"


def _second_answer(facts: BusFacts) -> Iterator[str]:
    for unit in facts.units:
        if unit.count(SECOND_ANSWER) >= _FEW:
            seen = f"{_times(unit.count(SECOND_ANSWER))} something followed a whole answer"
            yield f"two devices answer at the address of {unit.name}: {seen}; give one of them another"


def _other_master(facts: BusFacts) -> Iterator[str]:
    hit = [unit for unit in facts.units if unit.count(WRONG_REPLY) >= _FEW and unit.answered]
    if facts.is_serial and len(hit) >= 2:
        count = sum(unit.count(WRONG_REPLY) for unit in hit)
        yield f"another master on the line? {_times(count)} {len(hit)} units seemed to answer what was not asked"


def _silent(facts: BusFacts) -> Iterator[str]:
    if not any(unit.answered for unit in facts.units):
        return
    for unit in facts.units:
        if not unit.has_answered and unit.errors.keys() <= {TIMEOUT, ECHO}:
            yield f"{unit.name} has never answered, its neighbours do: unit number, power, or its own wires?"
        elif unit.answered and unit.count(TIMEOUT) >= _FEW and unit.share(TIMEOUT) >= _BAD:
            seen = f"{unit.count(TIMEOUT)} of {unit.requests} requests unanswered"
            yield f"{unit.name} misses answers: {seen}; a loose wire, or too slow for `timeout_ceiling`?"


def _slow(facts: BusFacts) -> Iterator[str]:
    half = [(unit, unit.latency_ms[0]) for unit in facts.units if unit.latency_ms]
    for unit, mine in half:
        others = [ms for other, ms in half if other is not unit]
        usual = median(others) if others else mine
        if mine >= _SLOW_MS and others and mine >= _SLOW * usual:
            seen = f"half of its answers take more than {mine:.0f} ms, those of its neighbours {usual:.0f} ms"
            yield f"{unit.name} is slow: {seen}"


def _refuses(facts: BusFacts) -> Iterator[str]:
    for unit in facts.units:
        for kind, count in sorted(unit.errors.items()):
            if kind in _NO_ROUTE:
                yield f"the gateway does not reach {unit.name}: {kind} {_times(count)}; look at the wire behind it"
            elif kind.startswith(EXCEPTION) and count >= _FEW and unit.share(kind) >= _NOISY:
                yield f"{unit.name} refuses: {kind} {_times(count)}; does its profile fit?"


def _full(facts: BusFacts) -> Iterator[str]:
    if facts.load is None or facts.load.share <= FULL:
        return
    relief = "read less often, read fewer quantities, raise the baud rate or use a second line"
    yield f"{facts.load.overload() or f'the line is {facts.load.share:.0%} busy'}; {relief}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


_RULES: Final[tuple[tuple[str, Rule], ...]] = (
    ("echo", _echo),
    ("nobody-answers", _nobody),
    ("noise", _noise),
    ("one-damaged", _one_damaged),
    ("two-at-one-address", _second_answer),
    ("another-master", _other_master),
    ("unit-silent", _silent),
    ("unit-slow", _slow),
    ("unit-refuses", _refuses),
    ("full", _full),
)
KINDS: Final = tuple(kind for kind, _ in _RULES)
