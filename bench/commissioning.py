"""How often does ``calibrate meter`` name the fault, blame the healthy, and find the layout of an unknown meter?

    python -m bench.commissioning [--seed N] [--plants 100] [--healthy 100] [--layouts 20] [--strangers 20]

Every installation is a process of its own with a sampled three-phase load (tests/peers/three_phase.py), read over
Modbus TCP through the product's own driver. Time is simulated on both sides.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from threading import Event

import yaml

from bench import installations, strangers
from bench.layouts import WORDS, random_layout
from drivers.modbus import ModbusTcp
from drivers.published import published
from edge_agent.clock import ManualClock
from edge_agent.commissioning.finding import Snapshot
from edge_agent.commissioning.meter import Facts, examine, resolution_of
from edge_agent.commissioning.unknown import hot_places, search
from edge_agent.commissioning.variants import reader
from edge_agent.plausibility import Gate
from edge_agent.vocabulary import UNITS

ROOT = Path(__file__).parent.parent
PEER = ROOT / "tests" / "peers" / "three_phase.py"
METERS = ("eastron-sdm630", "abb-b23", "carlo-gavazzi-em340", "inepro-pro380", "janitza-umg96", "siemens-pac3200",
          "socomec-countis-e44", "chint-dtsu666", "lovato-dmg610", "schneider-iem3155", "orno-we516",
          "bernecker-mpm3pm", "finder-7m38", "siemens-pac1600", "wago-879-3000", "eltako-dsz15")  # fmt: skip
FAULTS = ("wrong-ct", "swapped", "reversed", "word-order", "off-by-one")
WINDOW_S = 40
CHARACTER_S = 10 / 9600
TURNAROUND_S = 0.02  # assumed


class Far:
    """The peer process, with one installation after the other."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, str(PEER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(10)


class FarClock(ManualClock):
    """A clock that takes the far end along."""

    def __init__(self, far):
        super().__init__()
        self._far = far
        self.elapsed_s = 0.0
        self.amps = [0.0, 0.0, 0.0]

    def advance(self, seconds):
        super().advance(seconds)
        self.elapsed_s += seconds
        self.amps = self._far.ask({"at": self.elapsed_s})["amps"]


def layout_of(name, *, shift=0, word_order=None):
    """The registers that a profile's file says, for the peer to encode by itself."""
    text = yaml.safe_load((ROOT / "drivers" / "meters" / f"{name}.yaml").read_text())
    default = text.get("word_order", "big")
    rows = []
    for quantity, row in text["registers"].items():
        if row["type"] in ("bits", "string"):
            continue
        order = row.get("word_order", default)
        if word_order == "other":
            order = {"big": "little", "little": "big"}[order]
        _, factor = UNITS[row.get("unit", "")]
        rows.append({
            "quantity": quantity, "at": row["at"] + shift, "fc": row["fc"], "type": row["type"],
            "gain": row.get("scale", 1.0) * factor, "shift": row.get("offset", 0.0) * factor, "word_order": order,
        })  # fmt: skip
    # A meter serves the holes between its values, and nothing beyond.
    decoys = []
    for fc in (3, 4):
        mine = sorted((row["at"], row["at"] + WORDS[row["type"]]) for row in rows if row["fc"] == fc)
        for (_, end), (start, _) in pairwise(mine):
            if 0 < start - end <= 48:
                decoys.append({"fc": fc, "at": end, "words": [0] * (start - end)})
    return {"unit": 1, "rows": rows, "decoys": decoys, "max": text.get("max_registers", 125)}


def plant(rng, kind) -> installations.Planted:
    if kind == "swapped":
        return installations.swapped(rng)
    if kind == "reversed":
        return installations.reversed_(rng)
    load = installations.ordinary(rng)
    if kind == "wrong-ct":
        load["machine"]["kind"] = "steady"  # the clamp meter is read while the load is held
        return installations.Planted(kind, "ct-ratio", {"load": load}, consuming=True)
    return installations.Planted(kind, kind, {"load": load}, consuming=True)


def meters_for(kind):
    if kind == "word-order":
        return [name for name in METERS if name != "schneider-iem3155"]
    return METERS


class Site:
    """One installation commissioned: what would be said to the engineer."""

    def __init__(self, far, rng, planted):
        self.rng, self.planted, self.clock = rng, planted, FarClock(far)
        self.name = rng.choice(meters_for(planted.kind))
        layout = layout_of(
            self.name,
            shift=rng.choice([-1, 1]) if planted.kind == "off-by-one" else 0,
            word_order="other" if planted.kind == "word-order" else None,
        )
        if any(row["at"] < 0 for row in layout["rows"]):
            layout = layout_of(self.name, shift=1)
        machine = planted.fields["load"].get("machine")
        amps = sum(abs(complex(*each)) for each in planted.fields["load"].get("single", [])) / 3
        amps += abs(complex(machine["watts"], machine["vars"])) / 3 if machine else 0
        amps /= planted.fields["load"]["volts"][0]
        fitting = [Fraction(p, s) for p, s in installations.RATIOS if p * 0.15 < amps < p * 1.2] or [Fraction(1)]
        self.true = rng.choice(fitting)
        self.set = self.true
        if planted.kind == "wrong-ct":
            self.set = rng.choice(
                [r for r in (Fraction(p, s) for p, s in installations.RATIOS) if r != self.true] + [Fraction(1)] * 2
            )
            if self.set == self.true:
                self.set = self.true * 2
        fields = planted.fields | {"layout": layout}
        fields["wiring"] = fields.get("wiring", {}) | {"ratio": [float(self.true)] * 3}
        self.port = far.ask({"install": fields})["port"]

    def commission(self):
        settings = {"bus": "b", "profile": self.name, "unit": 1, "ct_ratio": float(self.set)}
        bus = ModbusTcp("b", ModbusTcp.Settings(kind="modbus-tcp", host="127.0.0.1", port=self.port), self.clock)
        section = ModbusTcp.DeviceSettings(**settings)
        profile = ModbusTcp.profile(section, Path())
        device = bus.device("m", section, profile)
        gate, window = Gate("m", device.quantities), []
        bus.open()
        try:
            clamp = {}
            reading_at = self.rng.randrange(5, WINDOW_S - 5)
            for second in range(WINDOW_S):
                self.clock.wait(Event(), 1.0)
                sample = device.read(frozenset(device.groups))
                reading = gate.judge(sample, self.clock.stamp())
                window.append(Snapshot(float(second), reading.values, reading.absent))
                if second == reading_at:
                    clamp = {"l1": self.clock.amps[0] * self.rng.uniform(0.98, 1.02)}
            self.window = window
            fine = resolution_of(published(profile, section))
            facts = Facts(
                resolution=fine,
                ct_ratio=float(self.set),
                clamps=clamp if self.planted.kind in ("wrong-ct", "ordinary") else {},
            )
            found = examine(window, facts, profile=profile, reread=reader(bus, "m", section))
            if any(not finding.certain for finding in found.findings) and self.planted.consuming:
                # The question that it asks is answered truthfully.
                facts = replace(facts, consuming=True)
                found = examine(window, facts, profile=profile, reread=reader(bus, "m", section))
            return found
        finally:
            bus.close()


def is_named(site, found):
    certain = [finding for finding in found.findings if finding.certain]
    if site.planted.code == "ct-ratio":
        return any(
            finding.code == "ct-ratio" and abs(finding.settings["ct_ratio"] / float(site.true) - 1) < 0.03
            for finding in certain
        )
    return [finding.code for finding in certain] == [site.planted.code]


def run(seed, plants, healthy, show=print):
    """Counts: (kind, named) and (kind, blamed)."""
    results = Counter()
    with Far() as far:
        for index in range(plants):
            rng = random.Random(f"{seed}/plant/{index}")
            kind = FAULTS[index % len(FAULTS)]
            site = Site(far, rng, plant(rng, kind))
            found = site.commission()
            good = is_named(site, found)
            results["named" if good else "missed"] += 1
            results[kind, good] += 1
            if not good:
                show(f"missed {index} {kind} on {site.name}: {site.planted.code}, true {site.true} set {site.set}: "
                     + str([(f.code, f.certain, f.evidence) for f in found.findings]))  # fmt: skip
        for index in range(healthy):
            rng = random.Random(f"{seed}/healthy/{index}")
            site = Site(far, rng, installations.healthy(rng))
            found = site.commission()
            blamed = any(finding.certain for finding in found.findings) or any(c.state == "wrong" for c in found.checks)
            results["blamed" if blamed else "left alone"] += 1
            if blamed:
                show(f"blamed {index} {site.planted.kind} on {site.name} x{site.true}: "
                     + str([(f.code, f.evidence) for f in found.findings if f.certain])
                     + str([(c.name, c.evidence) for c in found.checks if c.state == "wrong"]))  # fmt: skip
            elif found.findings:
                results["asked about", site.planted.kind] += 1
    return results


class Wire:
    """A unit behind a simulated 9600 baud line: every question takes its bytes, its silences and a turnaround."""

    def __init__(self, far, port):
        self._far, self._behind_s, self.seconds = far, 0.0, 0.0
        self.clock = FarClock(far)
        self.bus = ModbusTcp("b", ModbusTcp.Settings(kind="modbus-tcp", host="127.0.0.1", port=port), self.clock)

    def read(self, fc, at, count):
        size = 5
        try:
            data = self.bus.request(1, fc, at, count)
            size = 5 + 2 * count
        finally:
            self._behind_s += (8 + size) * CHARACTER_S + 2 * 3.5 * CHARACTER_S + TURNAROUND_S
            if self._behind_s > 0.25:
                self.clock.advance(self._behind_s)
                self._behind_s = 0.0
        return data


def find_layout(far, rng, limit_s=180.0):
    """Search one random layout; (found, wanted, layout for the peer, seconds of the line and of waiting)."""
    layout, wanted = random_layout(rng)
    load = installations.ordinary(rng)
    load["machine"] |= {"watts": 10 ** rng.uniform(3.7, 4.7), "kind": rng.choice(["cycle", "ramp", "switching"])}
    wire = Wire(far, far.ask({"install": {"load": load, "layout": layout}})["port"])
    clamp = {"l1": far.ask({"at": 0.01})["amps"][0] * rng.uniform(0.98, 1.02)}  # read before the search
    wire.bus.open()
    try:
        found, _ = search(wire.read, wire.clock, clamp, limit_s=limit_s, hot=hot_places())
    finally:
        wire.bus.close()
    return found, wanted, layout, wire.clock.elapsed_s


def layout_problems(found, wanted, layout):
    """What of a proposal is not as it is in the meter."""
    if found is None:
        return ["nothing found"]
    problems = []
    for name, row in wanted.items():
        if name not in found.rows:
            if name.startswith(("voltage", "current", "active_power_l", "frequency")):
                problems.append(f"{name} is missing")
            continue
        place, scale = found.rows[name]
        alike = place.fc == row["fc"] and place.at == row["at"] and place.type[1:] == row["type"][1:]
        if not alike or abs(scale / row["gain"] - 1) > 0.01:
            problems.append(
                f"{name}: {place.at:#x} {place.type} x{scale:g}, is {row['at']:#x} {row['type']} x{row['gain']}"
            )
    wide = any(WORDS[row["type"]] > 1 for row in wanted.values())
    if (wide and found.word_order != layout["word_order"]) or found.byte_order != layout["byte_order"]:
        problems.append(f"orders {found.word_order}, {found.byte_order}")
    return problems


def run_layouts(seed, count, show=print):
    """(how many were found, seconds of each)."""
    good, took = 0, []
    with Far() as far:
        for index in range(count):
            rng = random.Random(f"{seed}/layout/{index}")
            found, wanted, layout, seconds = find_layout(far, rng)
            problems = layout_problems(found, wanted, layout)
            good += not problems
            took.append(seconds)
            if problems:
                show(f"layout {index} after {seconds:.0f} s: {'; '.join(problems)[:300]}")
    return good, took


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options.add_argument("--plants", type=int, default=100)
    options.add_argument("--healthy", type=int, default=100)
    options.add_argument("--layouts", type=int, default=20)
    options.add_argument("--strangers", type=int, default=20)
    chosen = options.parse_args()
    print(f"seed {chosen.seed}")
    if chosen.layouts:
        good, took = run_layouts(chosen.seed, chosen.layouts)
        print(f"layouts: {good} of {chosen.layouts} found in {sum(took) / len(took):.0f} s, at most {max(took):.0f} s")
    if chosen.strangers:
        good, took = strangers.run(chosen.seed, chosen.strangers, print)
        print(f"strangers: {good} of {chosen.strangers} in {sum(took) / len(took):.0f} s, at most {max(took):.0f} s")
    for key, count in run(chosen.seed, chosen.plants, chosen.healthy).items():
        print(key, count)


if __name__ == "__main__":
    main()
