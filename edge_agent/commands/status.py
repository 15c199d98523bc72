"""``edge-agent status``: what the daemon knows, at a glance."""

from __future__ import annotations

from collections import Counter
from typing import Any

import typer

from edge_agent import readable
from edge_agent.bus_health import FULL
from edge_agent.commands.options import ConfigFile, Json, ask, columns, plain, print_json, screen
from edge_agent.lamps import NORMAL

_COLOURS = {"online": "green", "offline": "red", "absent": "yellow"}
_SOON_S = 60  # younger than this, a rate says nothing


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: edge-agent status")
    def status(config: ConfigFile = None, json_: Json = False) -> int:
        """Devices, buses, buffer, broker, alarms and faults of the running daemon. Exit code 1: something is wrong."""
        answer = ask(config, {"ask": "status"})
        if json_:
            print_json(answer)
        else:
            show(answer)
        return 1 if answer["faults"] else 0


def show(answer: dict[str, Any]) -> None:
    """For people."""
    console = screen()
    uptime = readable.span(answer["uptime_s"])
    clock = "clock synced" if answer["clock"] == "synced" else "[yellow]clock not synced[/]: rows are marked"
    console.print(f"[bold]{answer['line']}[/]   edge-agent {answer['version']}, running for {uptime}, {clock}")
    console.print(f"broker   {plain(answer['broker']) if answer['broker'] else '[yellow]not connected[/]'}")
    console.print(f"buffer   {buffer(answer['spool'], answer['uptime_s'])}")
    faults = {fault["source"]: fault for fault in answer["faults"]}
    if answer["devices"]:
        console.print()
        console.print(_devices(answer["devices"], faults))
    if answer["buses"]:
        console.print()
        console.print(_buses(answer["buses"]))
        for name, bus in answer["buses"].items():
            for suspicion in bus["suspicions"]:
                console.print(f"[yellow]{plain(name)}[/]: {plain(suspicion['says'])}")
    if answer.get("cameras"):
        console.print()
        console.print(_cameras(answer["cameras"], faults))
    if answer.get("models"):
        console.print()
        console.print(_models(answer["models"]))
    if answer["alarms"]:
        console.print()
        console.print(alarm_table(answer["alarms"]))
    if faults:
        console.print()
        console.print(_faults(answer["faults"]))


def buffer(spool: dict[str, Any], uptime_s: float) -> str:
    """What waits, and how long an outage may last."""
    waits = "empty" if not spool["rows"] else f"{spool['rows']} rows wait, the oldest since {_time(spool['oldest'])}"
    text = f"{waits}; {readable.size(spool['bytes'])} of {readable.size(spool['limit_bytes'])}"
    if spool.get("written_bytes") and uptime_s >= _SOON_S:
        left_s = (spool["limit_bytes"] - spool["bytes"]) / (spool["written_bytes"] / uptime_s)
        text += f"; holds {readable.span(left_s)} more at today's rate"
    return text + (" [red](in memory only: the disk refuses)[/]" if spool["volatile"] else "")


def alarm_table(alarms: list[dict[str, Any]]) -> Any:
    """Every alarm, its state and what to know of it."""
    table = columns("alarm", "severity", "state", "since", "cause")
    for alarm in alarms:
        colour = "" if alarm["state"] == NORMAL else "red" if alarm["severity"] in {"critical", "high"} else "yellow"
        state = f"[{colour}]{alarm['state']}[/]" if colour else alarm["state"]
        if alarm.get("shelved_s"):
            state += f" for {readable.span(alarm['shelved_s'])} more"
        cause = alarm["cause"] if alarm["state"] != NORMAL else alarm["when"]
        table.add_row(alarm["alarm"], alarm["severity"], state, _time(alarm["since"]), plain(cause))
    return table


def _buses(buses: dict[str, Any]) -> Any:
    """How full each bus is, what a round costs, and what went wrong on it."""
    table = columns("bus", "busy", "since start", "one round", "room", "failed")
    for name, bus in buses.items():
        last_minute, cycle = bus.get("last_minute"), bus.get("cycle_s")
        busy = bus["utilisation"] if last_minute is None else last_minute
        colour = "red" if busy > 1 - (1 - FULL) / 2 else "yellow" if busy > FULL else "green"
        errors: Counter[str] = Counter()
        for unit in bus["units"].values():
            errors.update(unit.get("errors", {}))
        table.add_row(
            name,
            f"[{colour}]{busy:.0%}[/]",
            f"{bus['utilisation']:.0%}",
            f"{cycle:.2g} s of {bus['wanted_s']:g} s" if cycle else "",
            f"{bus['room']} more at {bus['wanted_s']:g} s" if cycle else "",
            ", ".join(f"{kind} {count}" for kind, count in errors.most_common()),
        )
    return table


def _devices(devices: dict[str, Any], faults: dict[str, Any]) -> Any:
    table = columns("device", "state", "at", "values", "answers in (95 %)", "failed")
    for name, device in devices.items():
        fault = faults.get(f"device.{name}") or faults.get(f"bus.{device['bus']}")
        absent = sorted(set(device.get("absent", {}).values()))
        state = "offline" if fault else "absent" if absent and not device.get("values") else "online"
        shown = f"{state} since {_time(fault['since'])}" if fault else state
        values = readable.telling(device.get("values", {}), device["quantities"], 4)
        if absent:
            values = f"{values}  ({len(device['absent'])} absent: {', '.join(absent)})".strip()
        latency, stats = device.get("latency_ms"), device.get("stats")
        table.add_row(
            name,
            f"[{_COLOURS[state]}]{shown}[/]",
            _time(device.get("at")),
            plain(values or "nothing yet"),
            f"{latency[0]:.0f} ms ({latency[1]:.0f})" if latency else "",
            _failed(stats) if stats else "",
        )
    return table


def _failed(stats: dict[str, int]) -> str:
    """How many of the requests got no good answer."""
    bad = sum(count for name, count in stats.items() if name != "requests")
    return f"{bad} of {stats['requests']}" if stats.get("requests") else ""


def _cameras(cameras: dict[str, Any], faults: dict[str, Any]) -> Any:
    """What each camera counted in this shift and in the last, and when it last saw a part."""
    table = columns("camera", "state", "this shift since", "good", "bad", "not inspected", "last shift", "last part")
    for name, camera in cameras.items():
        fault = faults.get(f"camera.{name}") or faults.get(f"camera.{name}.trigger")
        state = f"[red]{plain(fault['reason'])} since {_time(fault['since'])}[/]" if fault else "[green]inspects[/]"
        now, last = camera.get("shift", {}), camera.get("last_shift")
        before = f"{last['good']} good, {last['bad']} bad, {last['not_inspected']} not" if last else ""
        seen = "" if camera.get("trigger", "time") == "time" else _time(camera["last_part"]) or "none yet"
        counts = (str(now.get(bucket, "")) for bucket in ("good", "bad", "not_inspected"))
        table.add_row(name, state, _time(now.get("since")), *counts, before, seen)
    return table


def _models(models: dict[str, Any]) -> Any:
    """What each model of the line says, who says it, and what it is about."""
    table = columns("model", "says", "score", "decided by", "by a fallback", "since", "what is off")
    for name, said in models.items():
        colour = {"normal": "green", "anomaly": "red"}.get(said["label"], "yellow")
        score = f"{said['score']:.2f} of {said['threshold']:.2f}" if said["score"] is not None else ""
        off = ", ".join(
            f"{each['quantity']} {each.get('direction', each.get('kind', ''))}" for each in said.get("off", ())
        )
        label = f"[{colour}]{plain(said['label'])}[/]"
        share = "" if said.get("fallbacks") is None else f"{said['fallbacks']:.0%}"
        decided_by = plain(said["decided_by"])
        table.add_row(plain(name), label, score, decided_by, share, _time(said.get("since")), plain(off))
    return table


def _faults(faults: list[dict[str, Any]]) -> Any:
    table = columns("fault", "since", "what, and what to do")
    for fault in faults:
        hint = f" → {fault['hint']}" if fault["hint"] and fault["hint"] not in fault["reason"] else ""
        table.add_row(f"[red]{fault['source']}[/]", _time(fault["since"]), plain(fault["reason"] + hint))
    return table


def _time(stamp: str | None) -> str:
    """``2026-11-20T05:51:02.317Z`` → ``11-20 05:51:02 UTC``."""
    return f"{stamp[5:10]} {stamp[11:19]} UTC" if stamp else ""
