"""What flows through the meters of strangers: volts, amperes and angles of each phase over time."""

from __future__ import annotations

import cmath
import math

PHASES = ("l1", "l2", "l3")
MAINS = ((110, 60), (120, 60), (127, 60), (220, 50), (220, 60), (230, 50), (240, 50), (277, 60), (400, 50), (480, 60))
WORDS = {"u16": 1, "s16": 1, "u32": 2, "s32": 2, "u64": 4, "s64": 4, "f32": 2, "f64": 4}


class Load:
    """Volts, amperes and angles of each phase over time."""

    def __init__(self, rng, phases):
        self.rng = rng
        nominal, self.hertz = rng.choice(MAINS)
        level = nominal * rng.uniform(0.94, 1.06)
        self.volts = [level * rng.uniform(0.985, 1.015) for _ in range(phases)]
        size = 10 ** rng.uniform(-0.3, 2.4)
        self.amps = [size * rng.uniform(0.5, 1.5) for _ in range(phases)]
        kind = rng.choice(["machine", "machine", "motor", "drive", "light-phase", "idle-phase", "solar", "one-solar"])
        cosine = {"motor": (0.15, 0.6), "drive": (0.9, 1.0)}.get(kind, (0.6, 0.99))
        self.angles = [math.acos(rng.uniform(*cosine)) * (1 if rng.random() < 0.9 else -1) for _ in range(phases)]
        self.distortion = rng.uniform(0.2, 0.8) if kind == "drive" else rng.choice([0.0, rng.uniform(0, 0.1)])
        odd = rng.randrange(phases)
        if kind == "light-phase":
            self.amps[odd] *= rng.uniform(0.01, 0.1)
        if kind == "idle-phase" and phases > 1:
            self.amps[odd] = 0.0
        if kind == "solar":
            self.angles = [math.pi - angle * 0.2 for angle in self.angles]
        if kind == "one-solar" and phases > 1:
            self.angles[odd] = math.pi - 0.1 * self.angles[odd]
        self.kind = kind
        self.moves = rng.choice(["steps", "steps", "wave", "drift", "steady"])
        self.period = rng.uniform(4, 40)
        self.wh = [rng.uniform(0, 3e7), rng.uniform(0, 2e6)]

    def fit(self, rows):
        """Nobody installs a meter whose registers are too small for the load."""
        now = self.values(0.0)
        whole = [row for row in rows if row.type[0] != "f" and row.quantity[:4] not in ("ener", "volt")]
        shares = [abs(now[row.quantity]) / row.gain / 2 ** (16 * WORDS[row.type] - 1) for row in whole]
        most = max(shares, default=0.0)
        self.amps = [amps * min(1.0, 0.4 / max(most, 1e-9)) for amps in self.amps]

    def level(self, at, phase):
        if self.moves == "steps":
            return 0.3 + 0.7 * ((int(at / self.period * 3) * 37 + 11) % 97) / 96
        if self.moves == "wave":
            return 0.65 + 0.35 * math.sin(2 * math.pi * at / self.period + 0.3 * phase)
        if self.moves == "drift":
            return 1.0 - 0.004 * min(at, 150)
        return 1.0

    def values(self, at, times=1.0):
        """Every quantity of the meter at a moment."""
        found, sums = {}, {"active_power": 0.0, "reactive_power": 0.0, "apparent_power": 0.0}
        phasors, currents = [], []
        for index, phase in enumerate(PHASES[: len(self.volts)]):
            volts = self.volts[index] * (1 + self.rng.gauss(0, 0.0015))
            fundamental = self.amps[index] * self.level(at, index) * times * (1 + self.rng.gauss(0, 0.004))
            amps = fundamental * math.hypot(1, self.distortion)
            p = volts * fundamental * math.cos(self.angles[index])
            q = volts * fundamental * math.sin(self.angles[index])
            s = volts * amps
            phasors.append(cmath.rect(volts, -2 * math.pi / 3 * index))
            currents.append(cmath.rect(amps, -2 * math.pi / 3 * index - self.angles[index]))
            found |= {f"voltage_{phase}": volts, f"current_{phase}": amps, f"active_power_{phase}": p,
                      f"reactive_power_{phase}": q, f"apparent_power_{phase}": s,
                      f"power_factor_{phase}": p / s if s > 0 else 1.0,
                      f"angle_{phase}": math.degrees(self.angles[index]),
                      f"thd_{phase}": 100 * self.distortion}  # fmt: skip
            for name, value in zip(sums, (p, q, s), strict=True):
                sums[name] += value
        found |= sums
        found["power_factor"] = sums["active_power"] / sums["apparent_power"] if sums["apparent_power"] else 1.0
        if len(phasors) == 3:
            for index, pair in enumerate(("l1_l2", "l2_l3", "l3_l1")):
                found[f"voltage_{pair}"] = abs(phasors[index] - phasors[(index + 1) % 3])
        found["mean_volts"] = sum(abs(each) for each in phasors) / len(phasors)
        found["mean_line"] = found["mean_volts"] * math.sqrt(3)
        found["mean_amps"] = sum(abs(each) for each in currents) / len(currents)
        found["neutral_amps"] = abs(sum(currents))
        found["frequency"] = self.hertz + self.rng.gauss(0, 0.008)
        found["energy_import"], found["energy_export"] = self.wh
        return found
