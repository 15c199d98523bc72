"""``edge-agent version``."""

from __future__ import annotations

import json
import platform
import sqlite3

import typer

from edge_agent.commands.options import Json, NoConfig
from edge_agent.report import product_version


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: edge-agent version --json")
    def version(config: NoConfig = None, json_: Json = False) -> None:
        """Say which version this is, and on what it runs."""
        del config  # every verb takes it
        facts = {
            "version": product_version(),
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "machine": platform.machine(),
        }
        print(json.dumps(facts) if json_ else f"edge-agent {facts['version']}")
