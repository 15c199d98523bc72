"""``edge-agent outputs safe``: what systemd runs after the daemon ended, however it ended."""

from __future__ import annotations

import typer

from edge_agent.commands.options import ConfigFile, Json, print_json
from edge_agent.config import find
from edge_agent.panel import safe_state


def register(app: typer.Typer) -> None:
    outputs = typer.Typer(help="The stack light and relays.", no_args_is_help=True)
    app.add_typer(outputs, name="outputs", epilog="Example: edge-agent outputs safe")

    @outputs.callback()
    def _group() -> None:
        """The stack light and relays."""

    @outputs.command(epilog="Example: edge-agent outputs safe")
    def safe(config: ConfigFile = None, json_: Json = False) -> int:
        """Put every output into its configured safe state (on_exit) and leave it there."""
        from edge_agent.commands.run import load_or_last_good  # noqa: PLC0415

        found, _ = load_or_last_good(find(config))
        errors = safe_state([plan.cls(plan.name, plan.settings) for plan in found.outputs.values()])
        if json_:
            print_json({"outputs": list(found.outputs), "failed": [str(error) for error in errors]})
        for error in [] if json_ else errors:
            print(error)
        return 3 if errors else 0
