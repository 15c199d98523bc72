"""How the peer harness drives edge-agent: ``BENCH_ADAPTER=bench/adapter.py bench.py cell --peer edge_agent --n 100``.

``EDGE_AGENT_PYTHON``: the interpreter that has edge-agent installed; default: this one's.
"""

import json
import os
import sys
from pathlib import Path

FLOATS = 20


class EdgeAgent:
    can_units = True

    def prepare(self, wd, n, addr, mqtt_port, period):
        folder = Path(wd)
        rows = "".join(f"  v{k:02}: {{at: {2 * k:#06x}, fc: 4, type: f32, doc: float {k}}}\n" for k in range(FLOATS))
        own = ", ".join(f'v{k:02}: {{unit: ""}}' for k in range(FLOATS))
        (folder / "farm.yaml").write_text(
            "name: meter farm\nvendor: bench\nsource: the harness\nconfidence: A\nverified: simulator\n"
            f"quantities: {{{own}}}\nregisters:\n{rows}"
            "vectors:\n  - {registers: {4: {0x0000: 3F80 0000}}, expect: {v00: 1.0}}\n",
            encoding="utf-8",
        )
        buses: dict[int, str] = {}
        devices = []
        for i in range(n):
            port, unit = addr(i)
            bus = buses.setdefault(port, f"b{port}")
            devices.append(
                f"  m{i}: {{bus: {bus}, profile: ./farm.yaml, unit: {unit}, every: {int(period * 1000)}ms}}\n"
            )
        (folder / "config.yaml").write_text(
            f'site: bench\nline: farm\nstate_dir: state\nmqtt: {{brokers: ["mqtt://127.0.0.1:{mqtt_port}"]}}\nbuses:\n'
            + "".join(
                f"  {name}: {{kind: modbus-tcp, host: 127.0.0.1, port: {port}}}\n" for port, name in buses.items()
            )
            + "devices:\n"
            + "".join(devices),
            encoding="utf-8",
        )
        python = os.environ.get("EDGE_AGENT_PYTHON", sys.executable)
        return [python, "-m", "edge_agent", "run", "--config", str(folder / "config.yaml")], wd, {}

    def parse(self, topic, payload):
        levels = topic.split("/")
        if len(levels) != 5 or levels[3] != "telemetry":
            return []
        values = json.loads(payload)["values"]
        if "v01" not in values:
            return []
        return [(int(levels[4][1:]), int(values["v01"]), len(values))]


PEERS = {"edge_agent": EdgeAgent()}
