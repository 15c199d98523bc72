"""What several verbs share: options, where the daemon is, files that are whole or not there."""

from __future__ import annotations

import io
import json
import os
import pwd
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

import typer
from pydantic import TypeAdapter, ValidationError

from edge_agent import control, readable
from edge_agent.config import find, load, stated_dir
from edge_agent.errors import ConfigError, EdgeAgentError
from edge_agent.settings import Duration
from edge_agent.whole import whole

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        readable=False,  # reading it is what tells, and what the daemon then has an answer to
        help="Config file; default /etc/edge-agent/config.yaml, then ./config.yaml.",
    ),
]
NoConfig = Annotated[
    Path | None, typer.Option("--config", "-c", help="Taken as by every verb; this one needs nothing of it.")
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
CENTURY_S: Final = 36_500 * 86_400.0


def state_dir(config: Path | None) -> Path:
    """The state folder of the config, also of one that is broken: the daemon then runs with the last good one."""
    path = find(config)
    try:
        return load(path).state_dir
    except ConfigError:
        if not path.is_file():
            raise
        return stated_dir(path)


def ask(config: Path | None, question: dict[str, Any]) -> dict[str, Any]:
    """Ask the daemon of this config; raises EdgeAgentError."""
    return control.ask(control.socket_path(state_dir(config)), question)


def who() -> str:
    """The person at the keyboard, also behind sudo."""
    name = os.environ.get("SUDO_USER")
    if name:
        return name
    with suppress(KeyError):
        return pwd.getpwuid(os.getuid()).pw_name
    return str(os.getuid())


def seconds(text: str, least_s: float = 0.0, most_s: float = CENTURY_S) -> float:
    """``30min`` → 1800.0; raises a usage error, also for what is shorter or longer than makes sense."""
    try:
        found = float(TypeAdapter(Duration).validate_python(text))
    except ValidationError as error:
        raise typer.BadParameter(str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from error
    if not least_s <= found <= most_s:
        between = f"{readable.span(least_s) if least_s else '0 s'} to {readable.span(most_s)}"
        raise typer.BadParameter(f"{text!r} must be from {between}")
    return found


@contextmanager
def whole_file(path: Path | None) -> Iterator[TextIO]:
    """A text file that is complete or was never touched; None: standard output. Raises EdgeAgentError."""
    if path is None:
        yield sys.stdout
        return
    is_device = path.exists() and not path.is_file()  # /dev/stdout is written to, not replaced
    try:
        with path.open("wb") if is_device else whole(path.resolve()) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            yield text
            text.flush()
            text.detach()
    except OSError as error:
        raise EdgeAgentError(f"cannot write {path}: {error.strerror}") from error


def print_json(answer: object) -> None:
    """For machines: one line."""
    print(json.dumps(answer, ensure_ascii=False, default=str))


def screen() -> Any:
    """Where tables are drawn; wide when nobody looks, so that nothing is cut off."""
    from rich.console import Console  # noqa: PLC0415 - only people need it

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    return console


def plain(text: object) -> str:
    """Text of others for a table: its brackets mean nothing."""
    from rich.markup import escape  # noqa: PLC0415 - only people need it

    return escape(str(text))


def columns(*names: str) -> Any:
    """A table without lines around it."""
    from rich.table import Table  # noqa: PLC0415 - only people need it

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    return table
