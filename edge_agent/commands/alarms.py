"""``edge-agent alarms list|ack|shelve|pictures|correct``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_agent import readable
from edge_agent.commands import pictures
from edge_agent.commands.options import ConfigFile, Json, ask, print_json, screen, seconds, who
from edge_agent.commands.status import alarm_table
from edge_agent.lamps import NORMAL
from edge_agent.vocabulary import nearest

Name = Annotated[str, typer.Argument(help="The alarm, by its name in the config.")]


def register(app: typer.Typer) -> None:
    alarms = typer.Typer(
        no_args_is_help=True, help="See, acknowledge and shelve alarms; say what kept pictures really show."
    )
    app.add_typer(alarms, name="alarms", epilog="Example: edge-agent alarms ack overload")

    @alarms.command("list", epilog="Example: edge-agent alarms list")
    def list_(config: ConfigFile = None, json_: Json = False) -> int:
        """Every alarm and its state. Exit code 1: one of them is not normal."""
        answer = ask(config, {"ask": "alarms"})
        found = answer["alarms"]
        if json_:
            print_json(answer)
        elif found:
            screen().print(alarm_table(found))
        else:
            print("no alarms are configured")
        return 1 if any(alarm["state"] != NORMAL for alarm in found) else 0

    @alarms.command(epilog="Example: edge-agent alarms ack overload")
    def ack(
        name: Annotated[str | None, typer.Argument(help="The alarm; all if not given.")] = None,
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """Acknowledge one alarm or all: the light goes steady, the buzzer off."""
        _check(config, name)
        answer = ask(config, {"ask": "acknowledge", "alarm": name, "who": who()})
        done = answer["acknowledged"]
        if json_:
            print_json(answer)
        else:
            print(f"acknowledged: {', '.join(done)}" if done else "nothing to acknowledge")
        return 0

    @alarms.command(epilog="Example: edge-agent alarms shelve overload --for 30min")
    def shelve(
        name: Name,
        duration: Annotated[str, typer.Option("--for", help="How long, like 30min; 0s ends it.")],
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """Take an alarm out of sight for a while; it comes back by itself."""
        for_s = seconds(duration)
        _check(config, name)
        answer = ask(config, {"ask": "shelve", "alarm": name, "seconds": for_s, "who": who()})
        if json_:
            print_json(answer)
        elif for_s:
            print(f"{name} is shelved for {readable.span(for_s)}")
        else:
            print(f"{name} is back from the shelf" if answer["shelved"] else f"{name} was not shelved")
        return 0

    pictures.register(alarms)


def _check(config: Path | None, name: str | None) -> None:
    """Raises a usage error that names the nearest alarm."""
    known = [alarm["alarm"] for alarm in ask(config, {"ask": "alarms"})["alarms"]]
    if name is not None and name not in known:
        raise typer.BadParameter(f"there is no alarm {name!r}{nearest(name, known)}")
