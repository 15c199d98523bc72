"""``edge-agent calibrate meter|sensor|…``: what is done once on site."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

import typer

# what is calibrated → module of edge_agent.commands; each offers ``register(app)``.
SUBJECTS: Final = {
    "meter": "calibrate_meter",
    "sensor": "calibrate_sensor",
    "line": "calibrate_line",
    "camera": "calibrate_camera",
    "model": "calibrate_model",
}


def register(app: typer.Typer) -> None:
    calibrate = typer.Typer(
        no_args_is_help=True, help="Commission meters and sensors: check, correct, and write down what was found."
    )
    app.add_typer(calibrate, name="calibrate", epilog="Example: edge-agent calibrate meter main-meter --clamp l1=41.2A")
    for subject in _asked() or SUBJECTS:
        import_module(f"edge_agent.commands.{SUBJECTS[subject]}").register(calibrate)


def _asked() -> list[str]:
    """The one that the command line names: the others' imports would only cost time."""
    words = sys.argv[1:]
    after = words[words.index("calibrate") + 1 :] if "calibrate" in words else []
    return [after[0]] if after and after[0] in SUBJECTS else []
