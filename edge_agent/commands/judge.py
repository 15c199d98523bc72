"""``edge-agent judge``: what a model says, without the daemon."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from edge_agent.clock import SystemClock
from edge_agent.commands.bundles import TrustUnsigned, find_bundle
from edge_agent.commands.options import ConfigFile, Json, print_json
from edge_agent.errors import CameraError, EdgeAgentError, ModelError
from edge_agent.vocabulary import NOT_INSPECTED, UNKNOWN, Verdict, nearest

PICTURES: Final = (".jpg", ".jpeg", ".png")
_MOST_PIXELS: Final = 40_000_000


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: edge-agent judge ./pitting.zip pictures/")
    def judge(
        bundle: Annotated[str, typer.Argument(help="A bundle (folder or zip), or the name of an installed one.")],
        given: Annotated[Path, typer.Argument(metavar="INPUT", help="A CSV, a picture or a folder of pictures.")],
        variant: Annotated[str | None, typer.Option(help="Which of its files decides, like int8-onnx.")] = None,
        trust_unsigned: TrustUnsigned = False,
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """One JSON line per picture or row, judged as the daemon would. Exit code 1: something could not be judged."""
        del json_  # there is no other form
        from models import judge as judges  # noqa: PLC0415 - a model runtime, only when a model decides
        from models import trial  # noqa: PLC0415

        found, is_installed = find_bundle(bundle, config, trust_unsigned=trust_unsigned)
        try:
            if not is_installed:
                trial.prove(found, variant)  # a crash happens there
            model = judges.load(found, variant)
        except ModelError as error:
            raise EdgeAgentError(f"{bundle}: {error}") from error
        lines = _rows(model, given) if found.card.input.kind == "rows" else _pictures(model, given)
        failed = 0
        for line in lines:
            failed += line.get("reason") is not None
            print_json(line)
            sys.stdout.flush()
        return 1 if failed else 0


def _pictures(model: Any, given: Path) -> Iterator[dict[str, object]]:
    from drivers import opencv  # noqa: PLC0415 - only where there are pictures

    say = _judging(model)
    for path in pictures_in(given):
        try:
            image = opencv.decode(path.read_bytes(), _MOST_PIXELS)
        except CameraError as error:
            nothing = {"label": NOT_INSPECTED, "score": None, "threshold": None, "decided_by": "gate"}
            yield {"file": str(path), **nothing, "reason": error.reason, "why": str(error)}
        except OSError as error:
            raise EdgeAgentError(f"cannot read {path}: {error.strerror}") from error
        else:
            yield {"file": str(path), **say(image)}


def pictures_in(given: Path) -> list[Path]:
    """The picture, or those of a folder in the order of their names. Raises EdgeAgentError."""
    if not given.is_dir():
        if not given.exists():
            raise EdgeAgentError(f"there is no {given}")
        return [given]
    found = sorted(path for path in given.iterdir() if path.suffix.lower() in PICTURES)
    if not found:
        raise EdgeAgentError(f"there are no pictures ({', '.join(PICTURES)}) in {given}")
    return found


def _rows(model: Any, given: Path) -> Iterator[dict[str, object]]:
    from models import rows  # noqa: PLC0415 - only where there are rows

    say = _judging(model)
    with rows.opened(given) as table:
        for name in model.card.input.quantities:
            if name not in table.quantities:
                raise typer.BadParameter(f"{given} has no column {name!r}{nearest(name, table.quantities)}")
        for time, row in table.rows:
            yield {"time": time, **say(row)}


def _judging(model: Any) -> Callable[[Any], dict[str, object]]:
    from models.chain import Chain  # noqa: PLC0415 - as above

    clock = SystemClock()
    chain = Chain(model.card.name, [model], clock, deadline_s=60.0)
    return lambda given: _line(chain.decide(given, clock.stamp()))


def _line(verdict: Verdict) -> dict[str, object]:
    """What a line says of a verdict; of what there is not, only what every line has."""
    every = {
        "label": verdict.label,
        "score": verdict.score,
        "threshold": verdict.threshold,
        "decided_by": verdict.decided_by,
    }
    fields = {
        "model_sha256": verdict.model_sha256,
        "latency_ms": verdict.latency_ms,
        "reason": verdict.reason if verdict.label in (UNKNOWN, NOT_INSPECTED) else None,
    }
    return {**every, **{key: value for key, value in fields.items() if value is not None}, **verdict.details}
