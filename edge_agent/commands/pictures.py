"""``edge-agent alarms pictures|correct``: what was kept, and what it really shows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_agent.clock import iso
from edge_agent.commands.options import ConfigFile, Json, ask, columns, plain, print_json, screen, state_dir, who
from edge_agent.errors import EdgeAgentError
from edge_agent.vocabulary import nearest


def register(alarms: typer.Typer) -> None:
    @alarms.command("pictures", epilog="Example: edge-agent alarms pictures --camera outfeed --uncertain")
    def pictures_(
        camera: Annotated[str | None, typer.Option(help="Only those of this camera.")] = None,
        uncertain: Annotated[bool, typer.Option("--uncertain", help="Only those that wait for a label.")] = False,
        last: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 20,
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """The pictures that were kept: what was said of them, and by whom. The daemon may run or not."""
        kept = _pictures(config)
        rows = [row for row in kept if camera in (None, row["camera"])]
        if uncertain:
            rows = [row for row in rows if row["uncertain"] and row["corrected"] is None]
        rows = rows[-last:]
        if json_:
            print_json({"pictures": rows})
            return 0
        table = columns("picture", "taken", "said", "score", "decided by", "label of a person", "file")
        for row in rows:
            said = row["label"] + (f", {row['uncertain']}" if row["uncertain"] else "")
            score = "" if row["score"] is None else f"{row['score']:.2f} of {row['threshold']:.2f}"
            cells = (row["id"], row["taken"], said, score, row["decided_by"], row["corrected"] or "", row["file"])
            table.add_row(*map(plain, cells))
        screen().print(table if rows else plain(_none(camera, {row["camera"] for row in kept}, waits=uncertain)))
        return 0

    @alarms.command(epilog="Example: edge-agent alarms correct outfeed good")
    def correct(
        picture: Annotated[str, typer.Argument(help="The picture, as `pictures` lists it; or a camera: its newest.")],
        label: Annotated[str, typer.Argument(help="What it shows: good, or what the defect is called.")],
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """Say what a kept picture really shows. It wins over the verdict when pictures are exported to train with."""
        answer = ask(config, {"ask": "correct", "picture": picture, "label": label, "who": who()})
        if json_:
            print_json(answer)
        else:
            print(f"{answer['picture']} shows {answer['label']}, not {answer['was']}")
        return 0


def _none(camera: str | None, known: Collection[str], *, waits: bool) -> str:
    """That there is none, of what was asked for."""
    close = nearest(camera, known) if camera is not None and camera not in known else ""
    return f"no picture{f' of {camera}' if camera else ''} {'waits for a label' if waits else 'is kept'}{close}"


def _pictures(config: Path | None) -> list[dict[str, Any]]:
    """What was kept of what was taken, oldest first. Raises EdgeAgentError."""
    from edge_agent import relabelling  # noqa: PLC0415 - only who has cameras pays for it

    folder = state_dir(config)
    said = {each.kept.id: each.label for each in relabelling.corrections(folder)}
    try:
        found = sorted((each for each in relabelling.pictures(folder)), key=lambda each: each.kept.at_ms)
    except OSError as error:
        raise EdgeAgentError(f"the pictures cannot be read: {error.strerror}", hint=str(error.filename)) from error
    return [
        {**asdict(kept), "taken": iso(kept.at_ms), "corrected": said.get(kept.id), "file": str(path)}
        for kept, path in found
    ]
