"""``edge-agent probe``: what is plugged in, who answers, and what it is. Nothing is written to any device."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer

from edge_agent import catalogue, logs
from edge_agent.clock import SystemClock
from edge_agent.commands.options import ConfigFile, Json, NoConfig, columns, plain, print_json, screen, seconds
from edge_agent.commands.probe_ports import list_ports
from edge_agent.commands.probe_registers import scan_one
from edge_agent.config import find, load
from edge_agent.errors import EdgeAgentError, WireError
from edge_agent.sample import flow
from edge_agent.vocabulary import WIRE, nearest

_BAUDRATES: Final = (9600, 19200, 38400, 115200, 4800, 2400)
_PARITIES: Final = ("N", "E")
_INTERRUPTED: Final = 130
_LAST_UNIT: Final = 247
_LAST_PORT: Final = 65_535
_LONGEST_S: Final = 60.0  # for one unit
Bus = Annotated[str | None, typer.Option("--bus", help="A bus of the config, with its settings.")]


def register(app: typer.Typer) -> None:
    probe = typer.Typer(help="Find serial ports, Modbus units and I2C sensors, and print the lines for the config.")
    app.add_typer(probe, name="probe", epilog="Example: edge-agent probe modbus --port /dev/serial/by-id/usb-FTDI")

    @probe.callback(invoke_without_command=True)
    def ports(context: typer.Context, config: NoConfig = None, json_: Json = False) -> int:
        """Without a kind of bus: list serial ports, I2C buses and cameras by the names that survive re-plugging."""
        del config  # what is plugged in, is whatever a config says
        return 0 if context.invoked_subcommand else list_ports(as_json=json_)

    @probe.command(epilog="Example: edge-agent probe modbus --port /dev/serial/by-id/usb-FTDI --units 1-32")
    def modbus(
        port: Annotated[str | None, typer.Option(help="Serial port of an RTU line.")] = None,
        host: Annotated[
            str | None, typer.Option(help="Host of a Modbus TCP device or gateway, like 10.0.0.7:502.")
        ] = None,
        rtu: Annotated[bool, typer.Option("--rtu", help="The host passes RTU frames through.")] = False,
        bus: Bus = None,
        units: Annotated[str, typer.Option(help="Which units: 1-247, or 1,2,10-20.")] = "1-247",
        baudrate: Annotated[
            list[int] | None, typer.Option(min=300, max=4_000_000, help="May be repeated; default: the usual six.")
        ] = None,
        parity: Annotated[list[str] | None, typer.Option(help="N, E or O; may be repeated; default: N and E.")] = None,
        timeout: Annotated[str, typer.Option(help="How long to wait for each unit.")] = "200ms",
        scan: Annotated[
            bool, typer.Option("--scan-registers", help="Of one unit: which registers it has, and what they may mean.")
        ] = False,
        registers: Annotated[
            str | None, typer.Option(help="Which ones, like 0-1023,0x5000-0x50FF; default: where meters have them.")
        ] = None,
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """Ask every unit whether it is there and what it is. Exit code 1: nobody answered."""
        if sum(choice is not None for choice in (port, host, bus)) != 1:
            raise typer.BadParameter("name one of --port, --host and --bus; `edge-agent probe` lists the ports")
        asked, patience_s = _units(units), seconds(timeout, 0.001, _LONGEST_S)
        if bus is not None:
            tries = [_from_config(config, bus, asked, "modbus")]
        elif host is not None:
            tries = [_over_tcp(host, asked, rtu=rtu, baudrate=(baudrate or [9600])[0])]
        else:
            lines = product(baudrate or _BAUDRATES, parity or _PARITIES)
            tries = [_serial(str(port), rate, parity_, asked) for rate, parity_ in lines]
        if scan:
            return scan_one(tries, registers, patience_s, as_json=json_, progress=_progress)
        return _run(tries, lambda one, tell: _ask_units(one, patience_s, tell), as_json=json_)

    @probe.command(epilog="Example: edge-agent probe i2c --number 1")
    def i2c(
        number: Annotated[int | None, typer.Option(min=0, help="N of /dev/i2c-N; default: every one.")] = None,
        bus: Bus = None,
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """Ask every known sensor at its addresses who it is, then see who else answers. Exit code 1: nobody."""
        if bus is not None:
            tries = [_from_config(config, bus, range(1), "i2c")]
        else:
            from drivers.i2c import numbers  # noqa: PLC0415 - smbus2 is for those who look at I2C

            there = numbers() if number is None else [number]
            if not there:
                raise EdgeAgentError("this computer has no I2C bus", hint="raspi-config nonint do_i2c 0, then reboot")
            tries = [_Try(f"i2c-{each}", {"kind": "i2c", "number": each}, range(1)) for each in there]
        return _run(tries, _ask_sensors, as_json=json_)


# --- what is tried


class _Try(NamedTuple):
    """A bus with one set of settings. ``devices``: what a config has on it already (a simulated bus needs them)."""

    name: str
    settings: dict[str, Any]
    units: range | list[int]
    devices: tuple[Any, ...] = ()
    parsed: Any = None

    def open(self) -> Any:
        """The bus, open; raises WireError."""
        kind = catalogue.load(catalogue.BUSES, self.settings["kind"])
        quick = {"timeout_floor": "20ms", "timeout_ceiling": "500ms"}  # most of those who are asked are not there
        settings = self.settings | (quick if "timeout_floor" in kind.Settings.model_fields else {})
        bus = kind(self.name, self.parsed or kind.Settings.model_validate(settings), SystemClock())
        for plan in self.devices:
            bus.device(plan.name, plan.settings, plan.profile)
        bus.open()
        return bus


def _serial(port: str, baudrate: int, parity: str, units: list[int]) -> _Try:
    if parity not in {"N", "E", "O"}:
        raise typer.BadParameter(f"{parity!r} is no parity: N, E or O")
    return _Try("rs485-a", {"kind": "modbus-rtu", "port": port, "baudrate": baudrate, "parity": parity}, units)


def _over_tcp(where: str, units: list[int], *, rtu: bool, baudrate: int) -> _Try:
    host, _, port = where.partition(":")
    if not host or (port and not (port.isdigit() and 1 <= int(port) <= _LAST_PORT)):
        raise typer.BadParameter(f"{where!r} is no host like 10.0.0.7 or 10.0.0.7:502")
    settings: dict[str, Any] = {"kind": "modbus-rtu-over-tcp" if rtu else "modbus-tcp", "host": host}
    settings |= {"port": int(port)} if port else {}
    settings |= {"baudrate": baudrate} if rtu else {}
    return _Try("panel", settings, units)


def _from_config(config: Path | None, name: str, units: range | list[int], family: str) -> _Try:
    found = load(find(config))
    if name not in found.buses:
        raise typer.BadParameter(f"{name!r} is no bus of the config{nearest(name, found.buses)}")
    plan = found.buses[name]
    if family not in plan.settings.kind:
        raise typer.BadParameter(f"{name} is of kind {plan.settings.kind}; this asks {family} buses")
    settings = plan.settings.model_dump(mode="json", exclude_defaults=True)
    return _Try(name, settings | {"kind": plan.settings.kind}, units, tuple(found.devices_on(name)), plan.settings)


def _units(text: str) -> list[int]:
    """``1-3,7`` → [1, 2, 3, 7]; raises a usage error."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise typer.BadParameter(f"{text!r} is no list of units like 1-32 or 1,2,10-20")
        if not 1 <= int(first) <= int(last or first) <= _LAST_UNIT:
            raise typer.BadParameter(f"{text!r}: units are 1 to {_LAST_UNIT}")
        found += range(int(first), int(last or first) + 1)
    return found


# --- asking


Tell = Callable[[int, int], None]
"""``tell(done, of)``: how far it is."""


def _ask_units(one: _Try, timeout_s: float, tell: Tell) -> Iterator[dict[str, Any]]:
    from drivers import modbus_probe  # noqa: PLC0415 - the profiles are read only when somebody looks for them

    bus = one.open()
    units = list(one.units)
    try:
        if "baudrate" in one.settings:
            modbus_probe.wake(bus)
        for found in modbus_probe.scan(bus, units, timeout_s, lambda unit: tell(units.index(unit), len(units))):
            yield found._asdict()
    finally:
        bus.close()


def _ask_sensors(one: _Try, tell: Tell) -> Iterator[dict[str, Any]]:
    from drivers.sensors.scan import scan  # noqa: PLC0415 - the sensors are for those who look at I2C

    bus = one.open()
    try:
        for found in scan(bus, tell):
            yield {
                "address": f"0x{found.address:02x}",
                "profile": found.profile,
                "others": (),
                "evidence": found.evidence,
                "is_clear": True,
            }
    finally:
        bus.close()


def _run(tries: list[_Try], ask: Callable[[_Try, Tell], Iterator[dict[str, Any]]], *, as_json: bool) -> int:
    """Try one after the other; of the settings of one line, the first under which anybody answers are its own."""
    logs.configure(SystemClock(), level="critical")
    found: list[tuple[_Try, dict[str, Any]]] = []
    failures: list[WireError] = []
    settled: set[str] = set()
    code = 1
    try:
        for number, one in enumerate(tries, 1):
            wire = str(one.settings.get("port", one.name))
            if wire in settled:
                continue
            with _progress(f"{_words(one)} ({number} of {len(tries)})", quiet=as_json) as tell:
                try:
                    for each in ask(one, tell):
                        found.append((one, each))
                        if each["is_clear"]:
                            settled.add(wire)
                            code = 0
                except WireError as error:
                    failures.append(error)
                    if error.reason != WIRE:  # the port itself; a line full of noise may have another baud rate
                        settled.add(wire)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    if failures and not found and code != _INTERRUPTED:
        raise failures[0]
    _report(found, failures, as_json=as_json)
    return code


def _words(one: _Try) -> str:
    """``rs485-a 9600 N``."""
    shown = (str(one.settings[key]) for key in ("host", "baudrate", "parity") if key in one.settings)
    return " ".join((one.name, *shown))


@contextmanager
def _progress(title: str, *, quiet: bool) -> Iterator[Tell]:
    """A bar with the time that is left, for people at a terminal; a line for others."""
    if not quiet and sys.stderr.isatty():
        from rich.console import Console  # noqa: PLC0415 - only people need it
        from rich.progress import Progress  # noqa: PLC0415

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title)
            yield lambda done, of: bar.update(task, completed=done, total=of)
        return
    if not quiet:
        sys.stderr.write(f"{title} …\n")
    yield lambda _done, _of: None


# --- what was found


def _config_lines(found: list[tuple[_Try, dict[str, Any]]]) -> str:
    """Ready to paste."""
    useful = [(one, each) for one, each in found if each["profile"]]
    if not useful:
        return ""
    lines = ["buses:", *dict.fromkeys(f"  {one.name}: {flow(one.settings)}" for one, _ in useful), "devices:"]
    for one, each in useful:
        where = {"unit": each["unit"]} if "unit" in each else {"address": int(each["address"], 0)}
        number = each.get("unit", each.get("address"))
        name = f"meter-{number}" if "unit" in each else f"climate-{number}"
        lines.append(f"  {name}: {flow({'bus': one.name, 'profile': each['profile'], **where})}")
    return "\n".join(lines)


def _report(found: list[tuple[_Try, dict[str, Any]]], failures: list[WireError], *, as_json: bool) -> None:
    lines = _config_lines(found)
    if as_json:
        said = [str(error) for error in failures]
        print_json({"found": [{"bus": one.settings, **each} for one, each in found], "config": lines, "failed": said})
        return
    for error in failures:
        sys.stderr.write(f"{error}\n")
    if not found:
        print("nobody answered: check power, A and B (or SDA and SCL), the numbers asked, baud rate and parity")
        return
    table = columns("bus", "at", "profile", "because")
    for one, each in found:
        others = f" (or {', '.join(each['others'])})" if each["others"] else ""
        place, profile = each.get("unit", each.get("address")), (each["profile"] or "?") + others
        table.add_row(*(plain(cell) for cell in (_words(one), place, profile, each["evidence"])))
    screen().print(table)
    if lines:
        print(f"\n{lines}")
