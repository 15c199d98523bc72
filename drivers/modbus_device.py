"""A meter on a Modbus wire: which requests, in which order, and what to do when one of them fails.

A unit that stays silent is left alone for the rest of the cycle; the next cycle begins behind the request
that failed, so that no register starves. A request that the meter refuses is divided, and that is remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from drivers.decode import Decoder, Register
from drivers.modbus_unit import NOBODY_HOME, PERMANENT, RefusedError, Request, Unit
from drivers.plan import Block, Cut, cut, plan
from drivers.published import basis, published, quantities
from drivers.registers import MeterProfile
from drivers.sunspec import find_model
from edge_agent.clock import Clock
from edge_agent.errors import DeviceError, WireError
from edge_agent.vocabulary import TIMEOUT, Origin, Quantity, Sample

_MOST_FAILURES: Final = 2  # per cycle, other than silence
_MOST_SPLITS: Final = 8  # per cycle: what a strict meter costs its neighbours while it is learnt
_MOST_EXTRA: Final = 4  # registers that a read is lengthened by, to differ from one whose reply is owed


class Exchange(Protocol):
    """How questions reach the wire."""

    def request(self, unit: int, fc: int, address: int, count: int) -> Request: ...

    def ask(self, request: Request, unit: Unit, limit_ns: int = 0) -> bytes | memoryview: ...

    def open(self) -> None: ...

    def close(self) -> None: ...


class Link(Protocol):
    """What a device knows of its bus. ``times_opened``: changes whenever the bus was opened anew."""

    clock: Clock
    exchange: Exchange
    times_opened: int

    def hole(self, profile: MeterProfile) -> int:
        """The widest hole that a request may span."""
        ...


@dataclass(slots=True)
class _Step:
    """One request of a cycle."""

    block: Block
    request: Request
    decoder: Decoder


@dataclass(slots=True)
class _Cycle:
    """What is asked when certain groups are due. ``absent``: what the meter refuses for good."""

    steps: tuple[_Step, ...]
    absent: dict[str, str]
    resume: Cut | None = None


class ModbusDevice:
    """One meter. Implements :class:`edge_agent.contracts.Device`."""

    def __init__(self, name: str, settings: Any, profile: MeterProfile, link: Link, unit: Unit) -> None:
        self.name = name
        self.unit = unit
        self._profile = profile
        self._link = link
        self._ask = link.exchange.ask
        self._registers = published(profile, settings)
        self.quantities: Mapping[str, Quantity] = quantities(self._registers, profile)
        self.origin = Origin(basis(profile, settings))
        self._serial_due = profile.serial is not None
        every: float = settings.every
        own: Mapping[str, float] = settings.groups
        self.groups: Mapping[str, float] = {
            group: own.get(group, max(every, profile.groups.get(group, 0.0)))
            for group in sorted({row.group for row in self._registers})
        }
        self._times_opened = 0
        self._forget()

    @property
    def stats(self) -> Mapping[str, int]:
        """Requests, timeouts, damaged, wrong and late replies and exceptions since the start."""
        return self.unit.stats

    @property
    def errors(self) -> Mapping[str, int]:
        """What went wrong since the start, by reason."""
        return self.unit.errors

    def latency_ms(self) -> tuple[float, float] | None:
        """Median and 95th percentile of the last answers; None before the first."""
        return self.unit.latency_ms()

    def read(self, due: frozenset[str]) -> Sample:
        if self._times_opened != self._link.times_opened:
            self._start()
        cycle = self._cycles.get(due) or self._plan(due)
        steps = _rotated(cycle) if cycle.resume else cycle.steps
        values: dict[str, float] = {}
        absent = dict(cycle.absent)
        unit, ask = self.unit, self._ask
        first: DeviceError | None = None
        answered, position = False, 0
        self._failures = self._splits = 0
        while position < len(steps):
            step = steps[position]
            position += 1
            request = step.request
            try:
                if unit.pending:
                    request = self._unlike_owed(step)
                data = ask(request, unit)
            except WireError:
                raise
            except DeviceError as error:
                first = first or error
                answered = answered or _for_good(error)
                steps, position = self._mend(cycle, step, request, error, steps[position:], absent), 0
            else:
                answered = True
                step.decoder.decode(data, values, absent)
        if first is not None and (not answered or not self._enabled()):
            raise self._useless(first)
        if self._serial_due:
            self._ask_serial()
        return Sample(values, absent)

    def probe(self) -> None:
        if self._times_opened != self._link.times_opened:
            self._start()
        smallest = min(self._enabled(), key=lambda row: (row.end - row.first, row.fc, row.at))
        (step,) = self._steps([smallest])
        self._serial_due = self._profile.serial is not None  # whoever answers now may be another meter
        try:
            self._ask(self._unlike_owed(step), self.unit)
        except RefusedError as error:
            if error.code in NOBODY_HOME:
                raise
            # whoever refuses is there

    def mean_registers(self) -> float:
        """Of the requests that it is read with, on average; 0 before the first."""
        counts = [step.block.count for cycle in tuple(self._cycles.values()) for step in cycle.steps]
        return sum(counts) / len(counts) if counts else 0.0

    # --- what is asked

    def _forget(self) -> None:
        """Know nothing of what this meter refuses."""
        self._base = 0
        self._cuts: set[Cut] = set()
        self._refused: dict[str, str] = {}
        self._cycles: dict[frozenset[str], _Cycle] = {}
        self._may_lengthen = self._profile.holes and not self._profile.align
        self._failures = self._splits = 0

    def _start(self) -> None:
        """The bus was opened: this may be another meter now."""
        self._forget()
        if self._profile.discover:
            self._base = find_model(self._read_holding, self._profile.models)
        self._serial_due = self._profile.serial is not None
        self._times_opened = self._link.times_opened

    def _ask_serial(self) -> None:
        """Who is it? Asked once after every silence; a meter that does not say remains who it was."""
        self._serial_due = False
        row = self._profile.serial
        if row is None:
            return
        exchange = self._link.exchange
        try:
            data = exchange.ask(exchange.request(self.unit.number, row.fc, row.at, row.size), self.unit)
        except WireError:
            raise
        except DeviceError:
            return
        self.origin = self.origin._replace(serial=row.text(bytes(data)))

    def _read_holding(self, address: int, count: int) -> bytes:
        exchange = self._link.exchange
        return bytes(exchange.ask(exchange.request(self.unit.number, 3, address, count), self.unit))

    def _plan(self, due: frozenset[str]) -> _Cycle:
        wanted = [row for row in self._registers if row.group in due]
        steps = self._steps(row for row in wanted if row.name not in self._refused)
        refused = {row.name: self._refused[row.name] for row in wanted if row.name in self._refused}
        cycle = self._cycles[due] = _Cycle(steps, refused)
        return cycle

    def _steps(self, registers: Iterable[Register]) -> tuple[_Step, ...]:
        blocks = plan(
            registers,
            max_registers=self._profile.max_registers,
            hole=self._link.hole(self._profile),
            barriers=self._profile.barriers,
            cuts=self._cuts,
        )
        return tuple(
            _Step(block, self._request(block, block.count), Decoder(block.registers, block.start)) for block in blocks
        )

    def _request(self, block: Block, count: int) -> Request:
        return self._link.exchange.request(self.unit.number, block.fc, self._base + block.start, count)

    def _unlike_owed(self, step: _Step) -> Request:
        """The request, lengthened if its reply could be taken for one that is still owed.

        Where the meter does not allow that, the same request: the line then waits longer. Raises DeviceError
        when every length is owed: asking more would only make a slow unit slower.
        """
        owed = self.unit.owes(self._link.clock.mono_ns())
        block = step.block
        if block.count not in owed or not self._may_lengthen:
            return step.request
        for count in range(block.count + 1, block.count + _MOST_EXTRA + 1):
            end = block.start + count
            crosses = any(block.start < barrier < end for barrier in self._profile.barriers)
            if crosses or self._base + end > 0x10000 or count > self._profile.max_registers:
                return step.request
            if count not in owed:
                return self._request(block, count)
        raise DeviceError(TIMEOUT, f"unit {self.unit.number} still owes answers to {len(owed)} requests")

    def _enabled(self) -> list[Register]:
        return [row for row in self._registers if row.name not in self._refused]

    # --- what is done when it fails

    def _mend(
        self,
        cycle: _Cycle,
        step: _Step,
        request: Request,
        error: DeviceError,
        rest: tuple[_Step, ...],
        absent: dict[str, str],
    ) -> tuple[_Step, ...]:
        """Note what is absent and learn from it; what is still to be asked in this cycle."""
        names = [row.name for row in step.block.registers]
        absent |= dict.fromkeys(names, error.reason)
        if _for_good(error):
            if (here := cut(step.block)) is not None:
                self._cuts.add(here)
                self._cycles.clear()
                self._splits += 1
                if self._splits <= _MOST_SPLITS:
                    for name in names:
                        del absent[name]
                    return self._steps(step.block.registers) + rest
            else:
                self._refused |= dict.fromkeys(names, error.reason)
                self._cycles.clear()
            return rest
        if isinstance(error, RefusedError) and error.code in PERMANENT and request.count != step.block.count:
            self._may_lengthen = False  # it was our extra register that it refused
        self._failures += 1
        nobody = error.reason == TIMEOUT or (isinstance(error, RefusedError) and error.code in NOBODY_HOME)
        if not nobody and self._failures < _MOST_FAILURES:
            return rest
        if rest:
            cycle.resume = (rest[0].block.fc, rest[0].block.start)
            absent |= {row.name: error.reason for later in rest for row in later.block.registers}
        return ()

    def _useless(self, error: DeviceError) -> DeviceError:
        """Nothing of this meter can be read. What was learnt is forgotten: it may not be the meter's fault for ever."""
        if not self._enabled():
            self._forget()
            self._times_opened = 0
            return DeviceError(error.reason, str(error), hint=f"does {self._profile.key} fit this meter?")
        return error


def _for_good(error: DeviceError) -> bool:
    """Whether the unit refused, and will again."""
    return isinstance(error, RefusedError) and error.code in PERMANENT and not error.doubtful


def _rotated(cycle: _Cycle) -> tuple[_Step, ...]:
    """The steps from where the last cycle was given up; each resumption counts once."""
    steps, resume = cycle.steps, cycle.resume
    cycle.resume = None
    for index, step in enumerate(steps):
        if (step.block.fc, step.block.start) == resume:
            return steps[index:] + steps[:index]
    return steps
