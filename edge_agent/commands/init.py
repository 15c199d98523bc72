"""``edge-agent init``: a few questions, a commented config that `check` takes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import TypeAdapter, ValidationError

from edge_agent.broker import Broker
from edge_agent.catalogue import SENSORS
from edge_agent.commands.options import Json, print_json, whole_file
from edge_agent.config import loads
from edge_agent.errors import EdgeAgentError
from edge_agent.interview import Answers, Meter, Sensor, write
from edge_agent.plan import named
from edge_agent.settings import Watts
from edge_agent.vocabulary import nearest

_NONE: Final = "none"


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: sudo edge-agent init --output /etc/edge-agent/config.yaml")
    def init(
        output: Annotated[Path, typer.Option("--output", "-o", "--config", "-c", help="File to write.")] = Path(
            "config.yaml"
        ),
        defaults: Annotated[
            bool, typer.Option("--defaults", help="Ask nothing; what is not given stays at its default.")
        ] = False,
        force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
        site: Annotated[str | None, typer.Option(help="The site, as it stands in topics.")] = None,
        line: Annotated[str | None, typer.Option(help="The line, as it stands in topics.")] = None,
        broker: Annotated[list[str] | None, typer.Option(help="mqtts://host:8883; may be repeated.")] = None,
        username: Annotated[str | None, typer.Option(help="User name for the broker.")] = None,
        meter: Annotated[
            list[str] | None, typer.Option(help="PROFILE@PORT:UNIT or PROFILE@HOST:UNIT; may be repeated.")
        ] = None,
        baudrate: Annotated[int, typer.Option(min=300, help="Of the serial lines of --meter.")] = 9600,
        parity: Annotated[str, typer.Option(help="Of the serial lines of --meter: N, E or O.")] = "N",
        sensor: Annotated[
            list[str] | None, typer.Option(help="PROFILE or PROFILE@BUS:0xADDRESS; may be repeated.")
        ] = None,
        camera: Annotated[str | None, typer.Option(help="/dev/video0, rtsp://…, http://… or a folder.")] = None,
        overload: Annotated[
            str | None, typer.Option(help="Alarm above this power of the first meter, like 45 kW.")
        ] = None,
        stack_light: Annotated[
            bool, typer.Option("--stack-light", help="A stack light on the usual GPIO lines.")
        ] = False,
        simulated: Annotated[
            bool, typer.Option("--simulated", help="A meter, a sensor and a camera that are simulated.")
        ] = False,
        json_: Json = False,
    ) -> int:
        """Write a commented config. Plain Enter takes what stands in brackets."""
        if output.exists() and not force:
            raise EdgeAgentError(f"{output} is there already", hint="--force replaces it, --output names another")
        in_place = output.resolve().parent == Path("/etc/edge-agent")
        answers = Answers(state_dir="/var/lib/edge-agent" if in_place else "state")
        asker = Asker(quiet=defaults)
        answers.site = asker.one("Site", site, answers.site, named)
        answers.line = asker.one("Line", line, answers.line, named)
        answers.brokers = [_checked(_broker, each) for each in broker or ()] or asker.brokers()
        answers.username = username or (asker.maybe("Broker user name", str) if answers.brokers else None)
        serial: dict[str, Any] = {"baudrate": baudrate, "parity": _checked(_parity, parity)}
        answers.meters = [replace(_checked(_meter, each), **serial) for each in meter or ()] or asker.meters()
        answers.sensors = [_checked(_sensor, each) for each in sensor or ()] or asker.sensors()
        if simulated:
            answers.meters = answers.meters or [Meter("eastron-sdm630", "")]
            answers.sensors = answers.sensors or [Sensor("sht31", None)]
        answers.camera = camera or ("simulated" if simulated else asker.camera())
        if answers.meters:
            answers.overload = (
                _checked(_power, overload) if overload else asker.maybe("Alarm above which power, like 45 kW", _power)
            )
        answers.stack_light = stack_light or asker.yes("Stack light on GPIO lines 17, 27, 22, 23, 24")
        text = write(answers, output)
        output.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(output) as file:
            file.write(text)
        _tell(answers, text, output, as_json=json_)
        return 0


def _answered(ask: Callable[[], Any]) -> Any:
    """What a person answers; a usage error where nobody is there to answer."""
    try:
        return ask()
    except typer.Abort:
        if sys.stdin.isatty():
            raise  # Ctrl-C
        raise typer.BadParameter("nobody answers here: --defaults asks nothing") from None


class Asker:
    """Asks at the keyboard until the answer is right; ``quiet``: takes every default."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def one(self, question: str, given: str | None, default: str, check: Callable[[str], Any]) -> Any:
        """One answer, checked; ``given``: it was on the command line already."""
        if given is not None:
            return _checked(check, given)
        while not self._quiet:
            answer = _answered(lambda: typer.prompt(question, default=default, err=True))
            try:
                return check(str(answer).strip())
            except ValueError as error:
                typer.echo(f"  {error}", err=True)
        return check(default)

    def maybe(self, question: str, check: Callable[[str], Any]) -> Any:
        """One answer, or None."""
        return self.one(question, None, _NONE, lambda text: None if text in ("", _NONE) else check(text))

    def yes(self, question: str) -> bool:
        """Yes or no; no by default."""
        return not self._quiet and bool(_answered(lambda: typer.confirm(question, default=False, err=True)))

    def brokers(self) -> list[str]:
        """One broker after the other, until there is none more."""
        first = self.one(
            "Broker", None, "mqtt://localhost:1883", lambda text: _NONE if text == _NONE else _broker(text)
        )
        found = [] if first == _NONE else [str(first)]
        while found and (another := self.maybe("Another broker, tried when that is away", _broker)):
            found.append(str(another))
        return found

    def meters(self) -> list[Meter]:
        """What is on each serial port, then behind Ethernet."""
        from drivers.ports import serial_ports  # noqa: PLC0415 - only who is asked needs to know

        found: list[Meter] = []
        for place in serial_ports():
            unit = 1
            while profile := self.maybe(f"Meter on {place.name} (profile)", _profile):
                unit = self.one("  its unit", None, str(unit), _unit)
                known = found[-1] if found and found[-1].where == place.name else None
                rate = known.baudrate if known else self.one("  baud rate of the line", None, "9600", _baudrate)
                parity = known.parity if known else self.one("  parity (N, E, O)", None, "N", _parity)
                found.append(Meter(profile, place.name, unit, rate, parity))
                unit += 1
        while host := self.maybe("Meter or gateway on Ethernet (host)", _host):
            profile = self.one("  its profile", None, "eastron-sdm630", _profile)
            found.append(Meter(profile, host, self.one("  its unit", None, "1", _unit)))
        return found

    def sensors(self) -> list[Sensor]:
        """What is on each I2C bus."""
        from drivers.i2c import numbers  # noqa: PLC0415 - only who is asked needs to know

        found: list[Sensor] = []
        for number in numbers() if not self._quiet else ():
            while profile := self.maybe(f"Sensor on /dev/i2c-{number} (profile, like sht31)", _sensor_profile):
                found.append(Sensor(profile, number))
        return found

    def camera(self) -> str | None:
        """The first that is plugged in, an address, or none."""
        from drivers.ports import cameras  # noqa: PLC0415 - only who is asked needs to know

        there = [place.name for place in cameras()]
        answer = self.one("Camera (device, rtsp://…, http://…, folder)", None, there[0] if there else _NONE, str)
        return None if self._quiet or answer in ("", _NONE) else str(answer)


# --- what an answer may be; each raises ValueError that says what would be right


def _checked(check: Callable[[str], Any], text: str) -> Any:
    try:
        return check(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _broker(text: str) -> str:
    return Broker.parse(text).url


def _profile(text: str) -> str:
    from drivers.registers import load_profile, profile_names  # noqa: PLC0415 - only who has a meter needs them

    if text not in profile_names():
        load_profile(text, Path())
    return text


def _sensor_profile(text: str) -> str:
    if text not in SENSORS:
        raise ValueError(f"there is no sensor {text!r}{nearest(text, SENSORS)}")
    return text


def _number(text: str, low: int, high: int, what: str) -> int:
    if not text.isdigit() or not low <= int(text) <= high:
        raise ValueError(f"{text!r} is no {what}: {low} to {high}")
    return int(text)


def _unit(text: str) -> int:
    return _number(text, 1, 247, "unit")


def _baudrate(text: str) -> int:
    return _number(text, 300, 4_000_000, "baud rate")


def _parity(text: str) -> str:
    if text.upper() not in ("N", "E", "O"):
        raise ValueError(f"{text!r} is no parity: N, E or O")
    return text.upper()


def _host(text: str) -> str:
    host, _, port = text.partition(":")
    if not host or " " in host or "/" in host or (port and not port.isdigit()):
        raise ValueError(f"{text!r} is no host like 10.0.0.7 or 10.0.0.7:502")
    return text


def _power(text: str) -> str:
    try:
        TypeAdapter(Watts).validate_python(text)
    except ValidationError as error:
        raise ValueError(str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from error
    return text


def _meter(text: str) -> Meter:
    """``PROFILE@PORT:UNIT``."""
    profile, at, rest = text.partition("@")
    where, colon, unit = rest.rpartition(":")
    if not (at and colon and where):
        raise ValueError(f"{text!r} is no meter like eastron-sdm630@/dev/ttyUSB0:1 or eastron-sdm630@10.0.0.7:1")
    return Meter(_profile(profile), where if where.startswith("/") else _host(where), _unit(unit))


def _sensor(text: str) -> Sensor:
    """``PROFILE`` or ``PROFILE@BUS:0xADDRESS``."""
    profile, _, rest = text.partition("@")
    number, _, address = rest.partition(":")
    try:
        return Sensor(_sensor_profile(profile), int(number or 1), int(address, 0) if address else None)
    except ValueError as error:
        if rest and "there is no sensor" not in str(error):
            raise ValueError(f"{text!r} is no sensor like sht31 or sht31@1:0x44") from error
        raise


def _tell(answers: Answers, text: str, output: Path, *, as_json: bool) -> None:
    devices = list(loads(text, output).devices)
    if as_json:
        print_json({"file": str(output), "devices": devices, "brokers": answers.brokers})
        return
    print(f"{output}: {len(devices)} devices, {len(answers.brokers)} brokers")
    if answers.username:
        print(f"write the password of {answers.username} into {output.parent / 'mqtt-password'} (chmod 640)")
    print(f"prove it:  edge-agent check --config {output}")
