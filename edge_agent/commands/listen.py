"""``edge-agent listen``: the integrator's view, with proof of completeness."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from edge_agent.broker import Broker, Credentials, Why
from edge_agent.clock import NS, SystemClock
from edge_agent.commands.options import ConfigFile, Json
from edge_agent.config import find, load
from edge_agent.errors import EdgeAgentError
from edge_agent.listener import Listener

_PATIENCE_S: Final = 15
_LONGEST_S: Final = 366 * 86_400.0
_PASSING: Final = {Why.NETWORK, Why.SILENT}  # may mend themselves


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: edge-agent listen --broker mqtt://broker-a --seconds 60")
    def listen(
        broker: Annotated[str | None, typer.Option(help="Broker URL; default: the first one of the config.")] = None,
        seconds: Annotated[
            float | None, typer.Option(min=0.1, max=_LONGEST_S, help="End by itself after so long.")
        ] = None,
        topic: Annotated[
            str | None, typer.Option(help="What to subscribe to; default: all below the config's prefix, or edge/#.")
        ] = None,
        username: Annotated[str | None, typer.Option(help="User name for the broker.")] = None,
        password_file: Annotated[Path | None, typer.Option(help="File whose first line is the password.")] = None,
        ca_file: Annotated[Path | None, typer.Option(help="CA certificate of the broker.")] = None,
        cert_file: Annotated[Path | None, typer.Option(help="Client certificate.")] = None,
        key_file: Annotated[Path | None, typer.Option(help="Key of the client certificate.")] = None,
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """Subscribe, print, and prove that nothing is missing. Exit code 1: something is."""
        if broker is None:
            settings = load(find(config)).mqtt
            if settings is None:
                raise EdgeAgentError("the config has no broker", hint="name one with --broker mqtt://host")
            where = Broker.parse(settings.brokers[0])
            credentials: Credentials = settings
            topic = topic or f"{settings.topic_prefix}/#"
        else:
            try:
                where = Broker.parse(broker)
            except ValueError as error:
                raise typer.BadParameter(str(error)) from error
            credentials = Credentials(
                username=username, password_file=password_file, ca_file=ca_file, cert_file=cert_file, key_file=key_file
            )
        return follow(where, credentials, _filter(topic or "edge/#"), seconds, as_json=json_)


def _filter(topic: str) -> str:
    """A topic filter as MQTT has it (MQTT 5, 4.7.1); raises a usage error."""
    levels = topic.split("/")
    wild = [level for level in levels if "#" in level or "+" in level]
    if any(level not in {"#", "+"} for level in wild) or "#" in levels[:-1] or "\0" in topic:
        raise typer.BadParameter(f"{topic!r} is no topic filter: + stands for one level, # for all at the end")
    return topic


def follow(broker: Broker, credentials: Credentials, topic: str, seconds: float | None, *, as_json: bool) -> int:
    """Listen until the time is over or Ctrl-C; print the totals; the exit code.

    Raises MqttError when it never came so far, and KeyboardInterrupt when it was to listen for longer.
    """
    clock, stop = SystemClock(), threading.Event()
    unsaid: list[OSError] = []

    def show(topic: str, fields: dict[str, Any], size: int) -> None:
        try:
            _print(topic, fields, size)
        except OSError as error:  # `| head` has seen enough, or the disk behind `>` is full
            unsaid.append(error)
            stop.set()

    listener = Listener(broker, credentials, topic, clock, None if as_json else show)
    worker = threading.Thread(target=listener.body, args=(stop,), daemon=True)
    worker.start()
    is_cut_short = False
    try:
        _await(listener, clock)
        is_cut_short = _cut_short(stop, seconds)
    finally:
        stop.set()
        worker.join(5)
    if unsaid:
        raise unsaid[0]
    totals = listener.completeness.totals()
    if as_json:
        print(json.dumps({**totals, "streams": listener.completeness.by_stream()}))
    else:
        print(json.dumps(totals))
        for name, facts in listener.completeness.by_stream().items():
            print(f"stream {name}: seq {facts['from']} to {facts['to']}, missing {facts['missing']}")
    if is_cut_short:
        raise KeyboardInterrupt
    return 1 if totals["missing"] else 0


def _cut_short(stop: threading.Event, seconds: float | None) -> bool:
    """Wait; True: somebody pressed Ctrl-C before the time was over. Without a time that is how it ends."""
    try:
        stop.wait(seconds)
    except KeyboardInterrupt:
        return seconds is not None
    return False


def _await(listener: Listener, clock: SystemClock) -> None:
    """Until it listens; raises MqttError at once when waiting would not help, and after a while when it did not."""
    deadline_ns = clock.mono_ns() + _PATIENCE_S * NS
    while not listener.connected.wait(0.1):
        trouble = listener.trouble
        if trouble is not None and (trouble.kind not in _PASSING or clock.mono_ns() > deadline_ns):
            raise trouble


def _print(topic: str, fields: dict[str, Any], size: int) -> None:
    late = " late" if fields.get("late") else ""
    seq = fields.get("seq", "")
    rest = {name: value for name, value in fields.items() if name not in {"stream", "seq", "late", "clock", "boot"}}
    text = json.dumps(rest, ensure_ascii=False)
    print(f"{topic} {seq}{late} {text if len(text) < 400 else text[:400] + '…'} ({size} B)", flush=True)
