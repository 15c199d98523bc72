"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Config file; default /etc/edge-agent/config.yaml, then ./config.yaml."),
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
