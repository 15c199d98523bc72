"""Meters of other makers, for the search of unknown registers: a second generator, which shares nothing with it.

It knows neither the first generator nor what the search believes of tables: habits are taken from public register
maps (groups, records per phase, averages first, spare words, scaled integers, four word orders, mirrored functions,
meters that serve every address). A proposal is judged by what it *reads* later, under loads that were not searched.
"""

from __future__ import annotations

import math
import random
import struct
from typing import NamedTuple

from bench.strange_loads import PHASES, WORDS, Load
from drivers.modbus_unit import RefusedError
from edge_agent.clock import ManualClock
from edge_agent.commissioning.unknown import hot_places, search

CODES = {"u16": "H", "s16": "h", "u32": "I", "s32": "i", "u64": "Q", "s64": "q", "f32": "f", "f64": "d"}
CHARACTER_S = 10 / 9600
TURNAROUND_S = 0.02
SIZED = ("current", "active_power", "reactive_power", "apparent_power")


class Row(NamedTuple):
    """value = raw × gain."""

    quantity: str
    at: int
    type: str
    gain: float


def number_habits(rng):
    """Types and gains of the kinds of values, as one maker has them."""
    style = rng.choice(["float", "float", "float", "int16", "int32", "int32", "mixed"])
    if style == "float":
        kilo = rng.random() < 0.3
        kinds = {"volts": ("f32", 1.0), "amps": ("f32", 1.0), "power": ("f32", 1000.0 if kilo else 1.0),
                 "factor": ("f32", 1.0), "hertz": ("f32", 1.0)}  # fmt: skip
        energy = rng.choice([("f32", 1000.0), ("f32", 1.0), ("u64", 1.0), ("f64", 1.0), ("u32", 10.0)])
    elif style == "int16":
        kinds = {"volts": ("u16", rng.choice([0.1, 0.1, 0.01])), "amps": ("u16", rng.choice([0.01, 0.01, 0.1])),
                 "power": ("s16", rng.choice([1.0, 10.0])), "factor": ("s16", rng.choice([0.001, 0.01])),
                 "hertz": ("u16", rng.choice([0.1, 0.01]))}  # fmt: skip
        if rng.random() < 0.5:
            kinds = {name: (kind.replace("u", "s") if name != "volts" else kind, gain)
                     for name, (kind, gain) in kinds.items()}  # fmt: skip
        energy = rng.choice([("u32", 10.0), ("u32", 100.0), ("u32", 1000.0), ("u64", 1.0)])
    elif style == "int32":
        kinds = {"volts": ("u32", rng.choice([0.1, 0.01, 0.001])), "amps": ("u32", rng.choice([0.01, 0.001, 0.0001])),
                 "power": ("s32", rng.choice([1.0, 0.1, 0.01, 0.001])),
                 "factor": (rng.choice(["s16", "s32"]), 0.001),
                 "hertz": rng.choice([("u16", 0.1), ("u16", 0.01), ("u32", 0.01), ("u32", 0.001)])}  # fmt: skip
        if rng.random() < 0.4:
            kinds = {name: (kind.replace("u", "s"), gain) for name, (kind, gain) in kinds.items()}
        energy = rng.choice([("u32", 10.0), ("u32", 100.0), ("u64", 1.0), ("u64", 0.1), ("s64", 1.0)])
    else:
        kinds = {"volts": ("u16", rng.choice([0.1, 0.01])), "amps": rng.choice([("u16", 0.01), ("u32", 0.001)]),
                 "power": rng.choice([("s32", 0.1), ("s32", 1.0), ("s32", 0.01)]), "factor": ("s16", 0.001),
                 "hertz": ("u16", 0.01)}  # fmt: skip
        energy = rng.choice([("u32", 10.0), ("u64", 1.0)])
    return kinds | {"energy": energy, "percent": (kinds["factor"][0], 0.1 if style != "float" else 1.0)}


def table(rng, phases, start):  # noqa: PLR0912 - one choice after the other
    """The rows of one meter, and how many words stay free or hold something else."""
    habits = number_habits(rng)
    ends = PHASES[:phases]
    plain = rng.random() < 0.5 and phases == 1  # some single-phase meters have no totals beside
    names = [("voltage", "volts"), ("current", "amps"), ("active_power", "power")]
    rest = [("reactive_power", "power"), ("apparent_power", "power"), ("power_factor", "factor")]
    names += [each for each in rest if rng.random() < 0.75]
    if not {"apparent_power", "power_factor"} & {name for name, _ in names}:
        names.append(rng.choice(rest[1:]))
    # Without a power factor only the order tells power from reactive power: nobody could find it in another one.
    if rng.random() < 0.25 and "power_factor" in dict(names):
        head, tail = names[:1], names[1:]
        rng.shuffle(tail)
        names = head + tail
    if rng.random() < 0.15:
        names.insert(0, names.pop(1))  # amperes first
    spare = rng.choice([0, 0, 0, 0, 1, 2]) if phases == 3 else rng.choice([0, 0, 1, 4])
    aligned = rng.choice([0, 0, 0, 0, 0, 0, 8, 16, 32])  # every group begins at such an address
    averages, extras = rng.random() < 0.4, rng.random() < 0.4
    rows, at = [], start

    def put(quantity, kind):
        nonlocal at
        rows.append(Row(quantity, at, *habits[kind]))
        at += WORDS[habits[kind][0]] + spare

    def gap():
        nonlocal at
        if aligned:
            at += -(at - start) % aligned
        elif rng.random() < 0.2:
            at += rng.choice([1, 2, 4, 6, 10])

    if phases == 3 and rng.random() < 0.25:
        width = rng.choice([0, 0, 16, 20, 32, 40])
        for end in ends:
            first = at
            for name, kind in names:
                put(f"{name}_{end}", kind)
            at = max(at, first + width)
        gap()
    else:
        for name, kind in names:
            if averages and name in ("voltage", "current") and rng.random() < 0.5:
                put("mean_volts" if name == "voltage" else "mean_amps", kind)
            for end in ends:
                put(f"{name}_{end}", kind)
            if name == "voltage" and phases == 3 and rng.random() < 0.5:
                gap()
                for pair in ("l1_l2", "l2_l3", "l3_l1"):
                    put(f"voltage_{pair}", "volts")
                if averages:
                    put("mean_line", "volts")
            if name == "current" and phases == 3 and rng.random() < 0.3:
                put("neutral_amps", kind)
            if not plain and (name.endswith("power") or name == "power_factor") and rng.random() < 0.7:
                put(name, kind)
            gap()
    put("frequency", "hertz")
    gap()
    if extras:
        for end in ends:
            put(f"thd_{end}", "percent")
    if rng.random() < 0.4:
        gap()
        for end in ends:
            put(f"angle_{end}", "percent")
    for name in ("energy_import", "energy_export")[: rng.choice([0, 1, 2])]:
        put(name, "energy")
    return rows


class Stranger:
    """A unit that answers, behind a simulated 9600 baud line. ``seconds``: of the line, so far."""

    def __init__(self, rng, clock=None):
        self.rng = rng
        self.clock = clock or ManualClock()
        self.phases = 1 if rng.random() < 0.2 else 3
        self.load = Load(rng, self.phases)
        start = rng.choice([0, 1, 2, 0x100, 1000, 3000, 0x1000, 0x2000, 0x4000, 40000]) if rng.random() < 0.5 else (
            rng.choice([rng.randrange(0, 0xF0) * 0x100, rng.randrange(0, 62) * 1000, rng.randrange(0, 0xF000)])
            + rng.choice([0, 0, 1, -1])
        )  # fmt: skip
        start = max(0, start)
        self.rows = table(rng, self.phases, start)
        self.load.fit(self.rows)
        self.first, self.end = start, max(row.at + WORDS[row.type] for row in self.rows)
        wide = any(WORDS[row.type] > 1 and row.quantity[:6] != "energy" for row in self.rows)
        self.word_order = rng.choice(["big", "big", "big", "little"])
        self.byte_order = "little" if rng.random() < (0.15 if wide else 0.05) else "big"
        self.fc = rng.choice([3, 4])
        self.functions = rng.choice(["one", "both", "mirror"])
        self.most = rng.choice([125, 125, 120, 100, 64, 50, 32])
        self.around = rng.choice(["refuse", "refuse", "zeros", "holes-zero", "ones"])
        if self.around == "refuse" and self.rows[1].at - self.rows[0].at > WORDS[self.rows[0].type]:
            self.around = "holes-zero"  # single spare words are served
        self.strict = rng.random() < 0.15
        self.every_s = rng.choice([0.1, 0.3, 1.0])
        self.other = [self.row_of_settings() for _ in range(rng.choice([0, 0, 1, 2]))]
        self.times = 1.0
        self._filled_s = None
        self._behind_s = 0.0
        self.elapsed_s = 0.0
        self.words = {}

    @property
    def told(self):
        """In words, for whoever studies what was not found."""
        first = self.rows[0]
        return (
            f"{self.phases} phases, {self.load.kind} {self.load.moves}, {first.quantity} {first.type} at {first.at:#x} "
            f"to {self.end:#x}, {self.word_order} {self.byte_order}, {self.functions}, around {self.around}"
            f"{', strict' if self.strict else ''}"
        )

    def row_of_settings(self):
        """Words of something else: settings, names, versions."""
        at = self.rng.randrange(0, 0xFF00)
        while self.first - 80 < at < self.end + 10:
            at = self.rng.randrange(0, 0xFF00)
        kinds = [lambda: self.rng.randrange(65536), lambda: self.rng.choice([0, 1, 5, 100, 9600, 220, 50])]
        kind = self.rng.choice(kinds)
        return at, [kind() for _ in range(self.rng.randrange(4, 60))]

    def read(self, fc, at, count):
        size = 5
        try:
            data = self.answer(fc, at, count)
            size = 5 + 2 * count
        finally:
            self.spend((8 + size + 7) * CHARACTER_S + TURNAROUND_S)
        return data

    def spend(self, seconds):
        self.elapsed_s += seconds
        self._behind_s += seconds
        if self._behind_s > 0.05:
            self.clock.advance(self._behind_s)
            self._behind_s = 0.0

    def answer(self, fc, at, count):
        if self.functions == "one" and fc != self.fc:
            raise RefusedError(1, 1)
        if count > self.most:
            raise RefusedError(1, 3)
        self.fill()
        words = self.words if fc == self.fc or self.functions == "mirror" else {}
        found = [words.get(place) for place in range(at, at + count)]
        rest = {"zeros": 0, "ones": 0xFFFF}.get(self.around)
        if rest is None and any(word is None for word in found):
            raise RefusedError(1, 2)
        if self.strict and words and (at in self.inner or at + count in self.inner):
            raise RefusedError(1, 2)
        return b"".join((rest if word is None else word).to_bytes(2, "big") for word in found)

    def fill(self):
        now = self.clock.mono_ns() / 1e9
        if self._filled_s is not None and now - self._filled_s < self.every_s:
            return
        self._filled_s = now
        self.truth = self.load.values(now, self.times)
        power = self.truth["active_power"]
        self.load.wh[0 if power > 0 else 1] += abs(power) * self.every_s / 3600
        self.words, self.inner = {}, set()
        if self.around == "holes-zero":
            self.words |= dict.fromkeys(range(self.first, self.end + 6), 0)
        for at, words in self.other:
            self.words |= {at + step: word for step, word in enumerate(words)}
        for row in self.rows:
            words = encode(row, self.truth[row.quantity], self.word_order, self.byte_order)
            self.words |= {row.at + step: word for step, word in enumerate(words)}
            self.inner |= set(range(row.at + 1, row.at + len(words)))


def encode(row, value, word_order, byte_order):
    raw = value / row.gain
    code = CODES[row.type]
    if code not in "fd":
        bits = 8 * struct.calcsize(code)
        low, high = (0, 2**bits - 1) if code.isupper() else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        raw = max(low, min(high, round(raw)))
    data = struct.pack(">" + code, raw)
    words = [data[step : step + 2] for step in range(0, len(data), 2)]
    if word_order == "little":
        words.reverse()
    return [int.from_bytes(word, byte_order) for word in words]


def decode(stranger, at, kind, word_order, byte_order):
    """What a proposal reads there; None where nothing is."""
    rest = {"zeros": 0, "ones": 0xFFFF}.get(stranger.around)
    found = [stranger.words.get(at + step, rest) for step in range(WORDS[kind])]
    if None in found:
        return None
    data = [word.to_bytes(2, byte_order) for word in found]
    if word_order == "little":
        data.reverse()
    return struct.unpack(">" + CODES[kind], b"".join(data))[0]


def problems(stranger, layout, *, clamped):
    """What a proposal reads wrongly, under ten loads that it has not seen, or does not have."""
    if layout is None:
        return ["nothing found"]
    found = {}
    for _ in range(10):
        stranger.times = 10 ** stranger.rng.uniform(-1.0, 0.3)
        stranger.clock.advance(7.0)
        stranger.fill()
        for name, (place, scale) in layout.rows.items():
            raw = decode(stranger, place.at, place.type, layout.word_order, layout.byte_order)
            row, true = true_of(stranger, name)
            if row is None or raw is None or not math.isfinite(raw):
                found[name] = f"{name} reads {raw}, is no quantity of it"
            elif not clips(row, true) and not is_right(raw * scale, true, row, clamped=clamped):
                found[name] = f"{name} reads {raw * scale:.4g}, is {true:.4g}"
    ends = [f"_{phase}" for phase in PHASES] if stranger.phases == 3 else [""]
    wanted = [f"{name}{end}" for name in ("voltage", "current", "active_power") for end in ends] + ["frequency"]
    return [f"{name} is missing" for name in wanted if name not in layout.rows] + list(found.values())


def true_of(stranger, name):
    """The row that a quantity of a proposal should read, and its value now."""
    for wanted in (name, f"{name}_l1") if stranger.phases == 1 else (name,):
        for row in stranger.rows:
            if row.quantity == wanted:
                return row, stranger.truth[wanted]
    return None, 0.0


def is_right(value, true, row, *, clamped):
    """Without a clamp meter nobody can know where the decimal point of current and power stands."""
    if not clamped and row.quantity.rsplit("_l", 1)[0] in SIZED and value and true:
        value *= 10.0 ** round(math.log10(abs(true / value)))
    return abs(value - true) <= 0.51 * row.gain + 0.003 * abs(true) + 1e-9


def clips(row, true):
    """The meter itself cannot show so much."""
    if row.type[0] == "f":
        return False
    bits = 16 * WORDS[row.type]
    low, high = (0, 2**bits) if row.type[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    return not low <= true / row.gain < high - 1


def find(rng, hot, *, clamped=True, limit_s=180.0):
    """Search one stranger; (what is wrong with the proposal, seconds of the line and of waiting, the stranger)."""
    stranger = Stranger(rng)
    stranger.fill()
    began_s = stranger.clock.mono_ns() / 1e9
    most = max(range(stranger.phases), key=lambda phase: stranger.load.amps[phase])
    clamp = {f"l{most + 1}": stranger.truth[f"current_l{most + 1}"] * rng.uniform(0.98, 1.02)} if clamped else {}
    layout, _ = search(stranger.read, stranger.clock, clamp, limit_s=limit_s, hot=hot)
    seconds = stranger.clock.mono_ns() / 1e9 - began_s
    return problems(stranger, layout, clamped=clamped), seconds, stranger


def run(seed, count, show, *, clamped=True):
    """(how many were found, seconds of each)."""
    hot, good, took = hot_places(), 0, []
    for index in range(count):
        wrong, seconds, stranger = find(random.Random(f"{seed}/stranger/{index}"), hot, clamped=clamped)
        good += not wrong
        took.append(seconds)
        if wrong:
            show(f"stranger {index} after {seconds:.0f} s, {stranger.told}: {'; '.join(wrong)[:200]}")
    return good, took
