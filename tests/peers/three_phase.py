"""A three-phase load, its wires and a meter, sampled in time: the independent far end of the commissioning tests.

Knows nothing of the product and nothing of angles at the meter: it makes the voltages and currents of one period
sample by sample, sends them through the current transformers as they are wired, and multiplies what arrives at each
element, as a meter does. Standard library only.

    python three_phase.py            serves Modbus TCP on a free port; one JSON object per line on standard input:
      {"install": {…}}               another installation; answers {"port": …}
      {"at": 12.5}                   let time go on to 12.5 s; answers {"registers": {"4": {"0": 17254, …}}} if the
                                     installation says so ("tell": true), else {}

It ends when its standard input does.

An installation: ``load`` (see Load), ``wiring`` {carries, signs, volts, ratio}, ``layout`` {unit, word_order,
byte_order, max, strict, fcs, rows: [{quantity, at, fc, type, gain, shift}], decoys: [{at, fc, words}]}.
``gain`` and ``shift``: value = raw × gain + shift, in base units.
"""

import json
import math
import random
import socket
import socketserver
import struct
import sys
import threading

SAMPLES = 60
STEP_S = 0.25
CODES = {"u16": "H", "s16": "h", "u32": "I", "s32": "i", "u64": "Q", "s64": "q", "f32": "f", "f64": "d"}
SHIFTS = (0.0, -2 * math.pi / 3, 2 * math.pi / 3)


class Load:
    """What draws the current. Complex powers per phase and between phases over time.

    ``machine`` {watts, vars, kind: steady|cycle|switching|ramp|regen, period, share: [..3]}, ``single`` [[W, var] × 3],
    ``between`` [[W, var] × 3] for L1-L2, L2-L3, L3-L1, ``harmonics`` {order: share of the machine's current}.
    """

    def __init__(self, fields):
        self.volts = fields["volts"]
        self.hertz = fields["hertz"]
        self.rotation = fields.get("rotation", 1)
        self.machine = fields.get("machine")
        self.single = fields.get("single", [[0, 0]] * 3)
        self.between = fields.get("between", [[0, 0]] * 3)
        self.harmonics = {int(order): share for order, share in fields.get("harmonics", {}).items()}
        self.noise = random.Random(fields.get("seed", 0))
        self.switched = 1.0
        self.next_switch = 0.0

    def amount(self, at):
        machine = self.machine
        phase = at / machine.get("period", 10.0) % 1.0
        kind = machine["kind"]
        if kind == "cycle":
            return 0.25 if phase < 0.4 else 1.0 if phase < 0.75 else 0.5
        if kind == "ramp":
            return 0.3 + 0.7 * phase
        if kind == "regen":
            return 0.3 if phase < 0.3 else 1.0 if phase < 0.7 else -0.6
        if kind == "generator":
            return -0.8 + 0.2 * math.sin(2 * math.pi * phase)
        if kind == "switching":
            if at >= self.next_switch:
                self.switched = self.noise.uniform(0.1, 1.0)
                self.next_switch = at + self.noise.uniform(0.5, 0.3 * machine.get("period", 10.0))
            return self.switched
        return 1.0

    def phasors(self, at):
        """Voltages (rms, complex), fundamental currents of the whole load, machine's share of them."""
        wobble = [1 + self.noise.gauss(0, 0.002) for _ in range(3)]
        volts = [
            v * w * complex(math.cos(s * self.rotation), math.sin(s * self.rotation))
            for v, w, s in zip(self.volts, wobble, SHIFTS, strict=False)
        ]
        amps = [0j, 0j, 0j]
        own = [0j, 0j, 0j]
        if self.machine:
            amount = self.amount(at) * (1 + self.noise.gauss(0, 0.01))
            # A motor: its magnetisation stays, its stray field grows with the square of the load.
            watts = self.machine["watts"] * amount
            vars_ = self.machine["vars"] * (0.6 + 0.4 * amount * amount)
            for k, share in enumerate(self.machine.get("share", [1 / 3] * 3)):
                own[k] = (complex(watts, vars_) * share / volts[k]).conjugate()
        for k, (watts, vars_) in enumerate(self.single):
            amps[k] += (complex(watts, vars_) / volts[k]).conjugate()
        for k, (watts, vars_) in enumerate(self.between):
            there = (k + 1) % 3
            current = (complex(watts, vars_) / (volts[k] - volts[there])).conjugate()
            amps[k] += current
            amps[there] -= current
        return volts, [a + b for a, b in zip(amps, own, strict=False)], own


class Meter:
    """Three elements and counters."""

    def __init__(self, fields):
        self.load = Load(fields["load"])
        wiring = fields.get("wiring", {})
        self.carries = wiring.get("carries", [0, 1, 2])
        self.signs = wiring.get("signs", [1, 1, 1])
        self.taps = wiring.get("volts", [0, 1, 2])
        self.ratio = wiring.get("ratio", [1.0, 1.0, 1.0])  # primary amps per amp that the meter believes in
        self.unsigned_q = fields.get("unsigned_reactive", False)
        self.values = {}
        self.true_amps = [0.0, 0.0, 0.0]
        self.time = 0.0
        self.energy = {"energy_import": fields.get("counter", 1.2e6), "energy_export": 3.0e4,
                       "reactive_energy_import": 4.1e5}  # fmt: skip
        self.measure()

    def go(self, at):
        while self.time < at - 1e-9:
            step = min(STEP_S, at - self.time)
            before = self.values["active_power"], self.values["reactive_power"]
            self.time += step
            self.measure()
            power = (before[0] + self.values["active_power"]) / 2
            self.energy["energy_import" if power > 0 else "energy_export"] += abs(power) * step / 3600
            self.energy["reactive_energy_import"] += max(0, before[1]) * step / 3600
        self.values.update(self.energy)

    def measure(self):
        volts, amps, own = self.load.phasors(self.time)
        turn = [2 * math.pi * n / SAMPLES for n in range(SAMPLES)]

        def wave(phasor, extra=0j):
            root = math.sqrt(2)
            size, angle = abs(phasor), math.atan2(phasor.imag, phasor.real)
            more = [
                (order, abs(extra) * share, math.atan2(extra.imag, extra.real) * order)
                for order, share in self.load.harmonics.items()
            ]
            return [
                root * (size * math.cos(t + angle) + sum(s * math.cos(o * t + a) for o, s, a in more)) for t in turn
            ]

        voltage = [wave(v) for v in volts]
        current = [wave(i, machine) for i, machine in zip(amps, own, strict=False)]
        self.true_amps = [rms(wave_) for wave_ in current]
        found = {"frequency": self.load.hertz + self.load.noise.gauss(0, 0.004)}
        seen_v = [voltage[tap] for tap in self.taps]
        totals = {"active_power": 0.0, "reactive_power": 0.0, "apparent_power": 0.0}
        for k in range(3):
            u = seen_v[k]
            scale = self.signs[k] / self.ratio[k]
            i = [x * scale for x in current[self.carries[k]]]
            late = u[-SAMPLES // 4 :] + u[: -SAMPLES // 4]  # a quarter of a period later
            p, q = mean_product(u, i), mean_product(late, i)
            s = rms(u) * rms(i)
            name = f"l{k + 1}"
            found[f"voltage_{name}"] = rms(u)
            found[f"current_{name}"] = rms(i)
            found[f"active_power_{name}"] = p
            found[f"reactive_power_{name}"] = abs(q) if self.unsigned_q else q
            found[f"apparent_power_{name}"] = s
            found[f"power_factor_{name}"] = p / s if s > 1e-9 else 1.0
            totals["active_power"] += p
            totals["reactive_power"] += q
            totals["apparent_power"] += s
            other = seen_v[(k + 1) % 3]
            found[f"voltage_{name}_l{(k + 1) % 3 + 1}"] = rms([a - b for a, b in zip(u, other, strict=False)])
        found.update(totals)
        found["power_factor"] = totals["active_power"] / totals["apparent_power"] if totals["apparent_power"] else 1.0
        found["voltage"] = sum(found[f"voltage_l{k}"] for k in (1, 2, 3)) / 3
        found["current"] = sum(found[f"current_l{k}"] for k in (1, 2, 3))
        found["current_n"] = rms([sum(x) for x in zip(*current, strict=False)]) / self.ratio[0]
        self.values = found | self.energy


def rms(wave):
    return math.sqrt(sum(x * x for x in wave) / len(wave))


def mean_product(a, b):
    return sum(x * y for x, y in zip(a, b, strict=False)) / len(a)


class Registers:
    """What a meter's values look like on the wire."""

    def __init__(self, layout):
        self.unit = layout.get("unit", 1)
        self.most = layout.get("max", 125)
        self.strict = layout.get("strict", False)
        self.fcs = layout.get("fcs", [3, 4])
        self.rows = layout["rows"]
        self.orders = layout.get("word_order", "big"), layout.get("byte_order", "big")
        self.words = {fc: {} for fc in (3, 4)}
        self.inner = {fc: set() for fc in (3, 4)}  # addresses inside a value
        self.decoys = layout.get("decoys", [])

    def fill(self, values):
        for row in self.decoys:
            for k, word in enumerate(row["words"]):
                self.words[row["fc"]][row["at"] + k] = word
        for row in self.rows:
            value = values.get(row["quantity"], row.get("fixed", 0.0))
            data = self.encode(row, value)
            for k in range(len(data) // 2):
                self.words[row["fc"]][row["at"] + k] = int.from_bytes(data[2 * k : 2 * k + 2], "big")
                if k:
                    self.inner[row["fc"]].add(row["at"] + k)

    def encode(self, row, value):
        raw = (value - row.get("shift", 0.0)) / row["gain"]
        code = CODES[row["type"]]
        if code not in "fd":
            bits = 8 * struct.calcsize(code)
            low, high = (0, 2**bits - 1) if code.isupper() else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            raw = max(low, min(high, round(raw)))
        data = struct.pack(">" + code, raw)
        word_order = row.get("word_order", self.orders[0])
        words = [data[k : k + 2] for k in range(0, len(data), 2)]
        if word_order == "little":
            words.reverse()
        if row.get("byte_order", self.orders[1]) == "little":
            words = [word[::-1] for word in words]
        return b"".join(words)

    def reply(self, pdu):
        fc = pdu[0]
        if fc not in self.fcs:
            return bytes([fc | 0x80, 1])
        at, count = struct.unpack(">HH", pdu[1:5])
        if not 1 <= count <= self.most:
            return bytes([fc | 0x80, 3])
        words = self.words[fc]
        if any(place not in words for place in range(at, at + count)):
            return bytes([fc | 0x80, 2])
        if self.strict and (at in self.inner[fc] or at + count in self.inner[fc]):
            return bytes([fc | 0x80, 2])
        return bytes([fc, 2 * count]) + b"".join(words[place].to_bytes(2, "big") for place in range(at, at + count))


class Far:
    """The meter that is served now."""

    def __init__(self):
        self.lock = threading.Lock()
        self.meter = None
        self.registers = None

    def install(self, fields):
        with self.lock:
            self.meter = Meter(fields)
            self.registers = Registers(fields["layout"])
            self.meter.go(0.0)
            self.registers.fill(self.meter.values)
            self.tell = fields.get("tell", False)

    def at(self, seconds):
        with self.lock:
            self.meter.go(seconds)
            self.registers.fill(self.meter.values)
            answer = {"amps": self.meter.true_amps}
            if self.tell:
                answer["registers"] = self.registers.words
            return answer

    def reply(self, unit, pdu):
        with self.lock:
            if self.registers is None or unit != self.registers.unit:
                return bytes([pdu[0] | 0x80, 0x0B])
            return self.registers.reply(pdu)


FAR = Far()


class Connection(socketserver.StreamRequestHandler):
    def handle(self):
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while len(head := self.rfile.read(7)) == 7:
            mark, _, length, unit = struct.unpack(">HHHB", head)
            pdu = self.rfile.read(length - 1)
            answer = FAR.reply(unit, pdu)
            self.wfile.write(struct.pack(">HHHB", mark, 0, 1 + len(answer), unit) + answer)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


def main():
    server = Server(("127.0.0.1", 0), Connection)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for line in sys.stdin:
        asked = json.loads(line)
        if "install" in asked:
            FAR.install(asked["install"])
            answer = {"port": server.server_address[1]}
        else:
            answer = FAR.at(asked["at"])
        print(json.dumps(answer), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
