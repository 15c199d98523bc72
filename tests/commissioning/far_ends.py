"""Installations behind an independent physical model (tests/peers/three_phase.py)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from edge_agent.commissioning.finding import Snapshot

PEERS = Path(__file__).parent.parent / "peers"
STEADY = {"watts": 12_000, "vars": 6_000, "kind": "steady", "share": [0.34, 0.33, 0.33]}
CYCLE = STEADY | {"kind": "cycle", "period": 8.0}
MAINS = {"volts": [229.0, 231.0, 230.0], "hertz": 50.0, "seed": 3}
PHASES = ("l1", "l2", "l3")


class Far:
    """The peer process; ``ask`` one question at a time."""

    def __init__(self):
        command = [sys.executable, str(PEERS / "three_phase.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def window(self, load, wiring=None, count=24, *, drop=(), **more):
        """What a perfect meter behind these wires says, second by second."""
        rows = [
            {"quantity": name, "at": 8 * index, "fc": 4, "type": "f64", "gain": 1.0}
            for index, name in enumerate(QUANTITIES)
        ]
        install = {"load": MAINS | load, "wiring": wiring or {}, "layout": {"rows": rows}, "tell": True, **more}
        self.ask({"install": install})
        return [self.snapshot(float(second), drop) for second in range(count)]

    def snapshot(self, at_s, drop):
        import struct

        words = self.ask({"at": at_s})["registers"]["4"]
        values = {}
        for index, name in enumerate(QUANTITIES):
            data = b"".join(words[str(8 * index + word)].to_bytes(2, "big") for word in range(4))
            if not name.startswith(tuple(drop) or ("-",)):
                values[name] = struct.unpack(">d", data)[0]
        return Snapshot(at_s, values)

    def end(self):
        self.process.stdin.close()
        self.process.wait(10)


QUANTITIES = [
    *(f"{kind}_{phase}" for kind in ("voltage", "current", "active_power", "reactive_power", "apparent_power",
                                     "power_factor") for phase in PHASES),
    *("voltage_l1_l2", "voltage_l2_l3", "voltage_l3_l1"),
    *("active_power", "reactive_power", "apparent_power", "power_factor", "frequency", "energy_import"),
]  # fmt: skip
