"""``edge-agent demo``: a whole line on this computer, without hardware."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from edge_agent.clock import SystemClock
from edge_agent.commands.options import Json, NoConfig
from edge_agent.demo.stage import Stage
from edge_agent.errors import EdgeAgentError
from edge_agent.listener import Show

if TYPE_CHECKING:
    from edge_agent.demo.screen import Screen

ROUND_S: Final = 60.0
_SHORTEST_S: Final = 20.0
_MUST_BE_SEEN: Final = {"red light", "alarm overload", "alarm bad-part", "alarm compressor-silent"}


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: edge-agent demo --seconds 60")
    def demo(
        seconds: Annotated[
            float | None,
            typer.Option(
                min=_SHORTEST_S, max=86400, help="End by itself after so long and print the totals; default: go on."
            ),
        ] = None,
        keep: Annotated[
            Path | None, typer.Option(help="Folder for config, database and log; default: a temporary one.")
        ] = None,
        config: NoConfig = None,
        json_: Json = False,
    ) -> int:
        """Watch a simulated line live: meters, climate, a camera, alarms, and a broker outage survived."""
        del config  # the line that it shows has its own
        if find_spec("amqtt") is None:
            raise EdgeAgentError("the demo needs its broker", hint="pip install 'edge-agent[demo]'")
        with contextlib.ExitStack() as stack:
            folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-agent-demo-")))
            folder.mkdir(parents=True, exist_ok=True)
            totals = perform(folder.resolve(), seconds, quiet=json_)
        print(json.dumps(totals) if json_ else summary(totals))
        if seconds is not None and totals["seconds"] < seconds:
            raise KeyboardInterrupt  # it was cut short
        return 0 if is_good(totals, complete=seconds is not None) else 1


def perform(folder: Path, seconds: float | None, *, quiet: bool) -> dict[str, Any]:
    """Run the whole thing; the totals. Ctrl-C ends it in order."""
    clock = SystemClock()
    lively = sys.stdout.isatty() and not quiet
    tell: Callable[[str], None] = _nothing if quiet else _say
    show: Show = _show_nothing
    draw: contextlib.AbstractContextManager[Callable[[Stage], None]] = contextlib.nullcontext(_draw_nothing)
    if lively:
        from edge_agent.demo.screen import Screen  # noqa: PLC0415 - rich is only for people

        screen = Screen()
        tell, show, draw = screen.story.append, screen.show, _live(screen)
    stage = Stage(folder, seconds or ROUND_S, repeat=seconds is None, clock=clock, tell=tell, show=show)
    previous = signal.signal(signal.SIGTERM, lambda *_: stage.stop.set())
    try:
        stage.open()
        tell("the line runs: two buses of meters, a climate sensor, a camera, a stack light")
        with draw as redraw, contextlib.suppress(KeyboardInterrupt):
            stage.play(lambda: redraw(stage))
        return stage.finish()
    finally:
        stage.close()
        signal.signal(signal.SIGTERM, previous)


@contextlib.contextmanager
def _live(screen: Screen) -> Iterator[Callable[[Stage], None]]:
    from rich.live import Live  # noqa: PLC0415

    with Live(auto_refresh=False, screen=False) as live:
        yield lambda stage: live.update(screen.draw(stage), refresh=True)


def _say(text: str) -> None:
    print(text, flush=True)


def _nothing(_text: str) -> None:
    pass


def _draw_nothing(_stage: Stage) -> None:
    pass


def _show_nothing(_topic: str, _fields: dict[str, Any], _size: int) -> None:
    pass


def is_good(totals: dict[str, Any], *, complete: bool) -> bool:
    """Nothing missing, everything published, and (when it ran to its end) every act really happened."""
    happened = not complete or (set(totals["seen"]) >= _MUST_BE_SEEN and totals["late"] > 0)
    return bool(totals["missing"] == 0 and totals["published"] == totals["recorded"] > 0 and happened)


def summary(totals: dict[str, Any]) -> str:
    seen = ", ".join(totals["seen"])
    return (
        f"{totals['seconds']} s: {totals['recorded']} recorded, {totals['published']} published, "
        f"{totals['missing']} missing, {totals['duplicates']} duplicates, {totals['late']} came late after the outage\n"
        f"seen: {seen}"
    )
