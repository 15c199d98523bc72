"""What happens in the demo, and when: one config with scripted twins, one list of acts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ACTS: Final = (
    # share of the time: from, to, what the audience sees
    (0.12, 0.24, "overload", "the press draws too much: the overload alarm, the light goes red"),
    (0.30, 0.46, "meter", "the compressor's meter dies; its neighbours keep their pace; it comes back"),
    (0.36, 0.42, "defect", "a bad part passes the camera"),
    (0.50, 0.56, "climate", "the cabinet sensor answers with a wrong checksum: absent, never a wrong value"),
    (0.60, 0.80, "outage", "the broker is gone: nothing is lost, the backlog drains beside the present"),
)


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that happens. ``at_s``/``for_s``: seconds from the start of the demo."""

    name: str
    at_s: float
    for_s: float
    story: str


def acts(seconds: float) -> list[Act]:
    """The acts of a demo that takes so long."""
    return [Act(name, begin * seconds, (end - begin) * seconds, story) for begin, end, name, story in ACTS]


def config(port: int, seconds: float, *, every: float | None) -> str:
    """The config of the line. ``every``: seconds after which the twins' scripts begin again; None: once."""
    play = {act.name: act for act in acts(seconds)}

    def fault(kind: str, act: str) -> str:
        again = f", every: {every * 1000:.0f}ms" if every else ""
        return f"{{kind: {kind}, at: {play[act].at_s * 1000:.0f}ms, for: {play[act].for_s * 1000:.0f}ms{again}}}"

    return f"""\
site: demo
line: press-3
state_dir: state
mqtt:
  brokers: ["mqtt://127.0.0.1:{port}"]
  drain_rate: 200
spool: {{commit_every: 500ms}}
buses:
  panel:   {{kind: simulated-modbus-tcp}}
  rs485-a: {{kind: simulated-modbus-rtu, baudrate: 38400}}
  i2c-1:   {{kind: simulated-i2c}}
devices:
  main-meter:
    bus: panel
    profile: eastron-sdm630
    unit: 1
    every: 500ms
    twin: {{load: constant, power: 36 kW, faults: [{fault("overload", "overload")}]}}
  compressor:
    bus: rs485-a
    profile: carlo-gavazzi-em340
    unit: 2
    every: 1s
    twin: {{load: press-cycle, power: 11 kW, faults: [{fault("silent", "meter")}]}}
  hydraulics:
    bus: rs485-a
    profile: eastron-sdm120
    unit: 3
    every: 1s
    twin: {{load: press-cycle, power: 4 kW}}
  cabinet:
    bus: i2c-1
    profile: sht31
    every: 1s
    twin: {{temperature: 31.0, relative_humidity: 42.0, faults: [{fault("crc", "climate")}]}}
cameras:
  outfeed:
    kind: simulated
    every: 500ms
    faults: [{fault("defect", "defect")}]
alarms:
  overload:
    when: main-meter.active_power > 45 kW
    for: 1s
    clear: "< 42 kW"
    severity: high
    latch: true
  compressor-silent: {{when: compressor is offline, severity: medium}}
  bad-part: {{when: outfeed is defect, severity: medium}}
outputs:
  stack-light: {{kind: simulated, red: 17, amber: 27, green: 22, buzzer: 23, acknowledge: 24, on_exit: red}}
"""
