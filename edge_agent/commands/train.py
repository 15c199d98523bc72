"""``edge-agent train defects``: from labelled pictures to a signed bundle, on a workstation."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from math import ceil, inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from edge_agent.commands.bundles import state_of
from edge_agent.commands.options import ConfigFile, Json, print_json, whole_file
from edge_agent.errors import ConfigError, EdgeAgentError, Problem

if TYPE_CHECKING:
    from models.train.packing import Made
    from models.train.prepared import Prepared, Stage
    from models.train.recipe import Recipe

_MOST_REMARKS: Final = 20
_WORKSTATION: Final = Path("~/.local/share/edge-agent")
_EXTRA: Final = ("torch", "litert_torch", "onnxscript", "onnxruntime")


def register(app: typer.Typer) -> None:
    train = typer.Typer(no_args_is_help=True, help="Make models from your own data.")
    app.add_typer(train, name="train", epilog="Example: edge-agent train defects pictures/ --output scratches.zip")

    @train.callback()
    def _verbs() -> None:
        """More kinds of models have a verb of their own under `calibrate`."""

    @train.command(epilog="Example: edge-agent train defects pictures/ --output scratches.zip --groups '(part\\d+)_'")
    def defects(
        data: Annotated[
            Path, typer.Argument(help="Folders per class, MVTec-style, or pictures with labelme polygons.")
        ],
        output: Annotated[Path, typer.Option("--output", "-o", help="The bundle: a new folder, or a .zip.")],
        recipe: Annotated[
            str | None, typer.Option(help="A recipe: its name or file; options here go before it.")
        ] = None,
        task: Annotated[str | None, typer.Option(help="locate, classify or auto.")] = None,
        groups: Annotated[str | None, typer.Option(help="Regular expression that finds the part in a path.")] = None,
        good: Annotated[list[str] | None, typer.Option(help="A class that is good; may be repeated.")] = None,
        size: Annotated[str | None, typer.Option(help="What the model sees: 640x360; default: fitting.")] = None,
        colour: Annotated[str | None, typer.Option(help="What the model sees: grey or bgr.")] = None,
        folds: Annotated[int | None, typer.Option(help="Hold out each of so many sets of parts in turn.")] = None,
        false_rejects: Annotated[float | None, typer.Option(help="Share of good parts that may be refused.")] = None,
        seed: Annotated[int | None, typer.Option(help="Of everything that is random.")] = None,
        epochs: Annotated[float | None, typer.Option(help="How often each picture is seen, about.")] = None,
        name: Annotated[str | None, typer.Option(help="Of the bundle.")] = None,
        version: Annotated[int | None, typer.Option(help="Of the bundle; a newer one must be higher.")] = None,
        fp32: Annotated[bool, typer.Option("--fp32", help="Keep the large variants in the bundle, too.")] = False,
        check: Annotated[bool, typer.Option("--check", help="Only look at the pictures; nothing is trained.")] = False,
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """Learn to tell good from bad. Writes the bundle and a report (.html) beside it, whole or not at all."""
        named: dict[str, Any] = {
            "task": task, "groups": groups, "good": good or None, "size": size, "colour": colour, "folds": folds,
            "false_rejects": false_rejects, "seed": seed, "name": name, "version": version,
        }  # fmt: skip
        named = {key: value for key, value in named.items() if value is not None}
        wanted = _recipe(recipe, named)
        _check_epochs(epochs)
        command = _command(data, output, recipe, named | ({"epochs": epochs} if epochs is not None else {}))
        _check_place(output)
        with _scratch(output) as scratch, _stages(quiet=json_) as stage:
            prepared = _prepare(data, wanted, epochs, scratch, stage)
            if check:
                return _say_prepared(prepared, as_json=json_)
            _check_extra()
            made, files = _make(prepared, stage, command, _key_folder(config), small=not fp32)
            page = _page(made)
            report = _report(output)
            _write(output, files)
            with whole_file(report) as file:
                file.write(page)
        return _say_made(made, output, report, as_json=json_)


# --- what is wanted


def _recipe(source: str | None, named: dict[str, Any]) -> Recipe:
    from models.train.recipe import Recipe, read_recipe, with_options  # noqa: PLC0415 - only who trains pays for it

    return with_options(read_recipe(source) if source else Recipe(), named)


def _check_epochs(epochs: float | None) -> None:
    if epochs is not None and not 0 < epochs < inf:
        raise ConfigError([Problem(0, "--epochs", f"must be above 0, and come to an end; not {epochs:g}")])


def _check_place(output: Path) -> None:
    there = [
        Problem(0, "--output", f"{place} is there already") for place in (output, _report(output)) if place.exists()
    ]
    if there:
        raise ConfigError(there)
    if not output.absolute().parent.is_dir():
        raise ConfigError([Problem(0, "--output", f"there is no folder {output.absolute().parent}")])


def _report(output: Path) -> Path:
    return output.with_name(f"{output.stem}.html")


def _check_extra() -> None:
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        raise EdgeAgentError(f"training needs {', '.join(missing)}", hint="pip install 'edge-agent[train]'")


def _command(data: Path, output: Path, recipe: str | None, named: dict[str, Any]) -> str:
    """What makes the same bundle again; paths by their last part."""
    words = ["edge-agent", "train", "defects", data.name, "--output", output.name]
    words += ["--recipe", Path(recipe).name] if recipe else []
    for key, value in named.items():
        for each in value if isinstance(value, list) else [value]:
            words += [f"--{key.replace('_', '-')}", str(each)]
    return shlex.join(words)


def _key_folder(config: Path | None) -> Path:
    """Whose key signs: the machine's, beside the state of the daemon, or at home on a workstation."""
    return state_of(config) or _WORKSTATION.expanduser()


# --- the work


def _prepare(data: Path, recipe: Recipe, epochs: float | None, scratch: Path, stage: Stage) -> Prepared:
    from models.train.prepared import prepare  # noqa: PLC0415 - as above

    prepared = prepare(data, recipe, scratch, stage)
    if epochs is not None:
        steps = max(1, ceil(epochs * len(prepared.samples) / recipe.batch))
        prepared = prepared._replace(recipe=prepared.recipe.model_copy(update={"steps": steps}))
    return prepared


def _make(
    prepared: Prepared, stage: Stage, command: str, key_folder: Path, *, small: bool
) -> tuple[Made, dict[str, bytes]]:
    from models import bundle, keys  # noqa: PLC0415 - as above
    from models.train import defects, packing  # noqa: PLC0415

    made = defects.make(prepared, stage)
    drafted = packing.finish(made, command, small=small)
    try:
        key_folder.mkdir(parents=True, exist_ok=True)
        key = keys.device_key(key_folder)
    except OSError as error:
        raise EdgeAgentError(f"cannot make a key in {key_folder}: {error.strerror}") from error
    files = bundle.complete(drafted, made.golden, key)
    bundle.verify(files, keys.trusted(key_folder))
    return made, files


def _page(made: Made) -> str:
    from models.train import report  # noqa: PLC0415 - as above

    prepared, card = made.prepared, made.drafted.card
    facts = [
        ("bundle", f"{card.name}, version {card.version}"),
        ("pictures", str(len(prepared.samples))),
        ("parts", str(len(set(prepared.groups)))),
        ("seed", str(prepared.recipe.seed)),
        ("threshold", f"{made.result.threshold:.4f}, set for {card.threshold.set_for if card.threshold else ''}"),
    ]
    title = f"{card.name}: {prepared.kind}"
    return report.render(title, made.result, made.parity, prepared.samples, prepared.pixels, facts, prepared.remarks)


def _write(output: Path, files: dict[str, bytes]) -> None:
    from models import archive  # noqa: PLC0415 - as above

    try:
        if output.suffix == ".zip":
            archive.replace(output, archive.zipped(files), mode=0o644)
        else:
            archive.place(files, output)
    except OSError as error:
        raise EdgeAgentError(f"cannot write {output}: {error.strerror}") from error


@contextmanager
def _scratch(output: Path) -> Iterator[Path]:
    """Room for large arrays, gone afterwards whatever happens."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=".train-", dir=output.absolute().parent)
    except OSError as error:
        raise EdgeAgentError(f"cannot write beside {output}: {error.strerror}") from error
    with folder as path:
        yield Path(path)


@contextmanager
def _stages(*, quiet: bool) -> Iterator[Callable[[str, int, int, dict[str, float]], None]]:
    """Where it is, with live metrics: a bar for people at a terminal, a line now and then for others."""
    if quiet:
        yield lambda _name, _done, _of, _live: None
        return
    if not sys.stderr.isatty():
        said: dict[str, int] = {}

        def line(name: str, done: int, of: int, live: dict[str, float]) -> None:
            tenth = 10 * done // max(1, of)
            if said.get(name) != tenth or "validation" in live:
                said[name] = tenth
                sys.stderr.write(f"{name} {done} of {of}{_words(live)}\n")

        yield line
        return
    from rich.console import Console  # noqa: PLC0415 - only people need it
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[live]}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def draw(name: str, done: int, of: int, live: dict[str, float]) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=of, live="")
            bar.update(tasks[name], completed=done, total=of, live=_words(live))

        yield draw


def _words(live: dict[str, float]) -> str:
    return "".join(f"  {key} {value:.4f}" for key, value in live.items())


# --- what came out


def _say_prepared(prepared: Prepared, *, as_json: bool) -> int:
    from models.train import defects  # noqa: PLC0415 - as above

    defects.check(prepared)
    counts = {label: int((prepared.truth == number).sum()) for number, label in enumerate(prepared.labels)}
    answer = {
        "kind": prepared.kind,
        "classes": counts,
        "parts": len(set(prepared.groups)),
        "size": prepared.recipe.size,
        "remarks": prepared.remarks,
    }
    if as_json:
        print_json(answer)
    else:
        for key, value in answer.items():
            if key != "remarks":
                print(f"{key}: {value}")
        _say_remarks(prepared)
    return 0


def _say_remarks(prepared: Prepared) -> None:
    for remark in prepared.remarks[:_MOST_REMARKS]:
        print(remark)
    if len(prepared.remarks) > _MOST_REMARKS:
        print(f"and {len(prepared.remarks) - _MOST_REMARKS} more; --json says all")


def _say_made(made: Made, output: Path, report: Path, *, as_json: bool) -> int:
    """Exit code 1 where the variants do not decide the same."""
    agree = made.parity.worst
    numbers = made.result.numbers()
    if as_json:
        parity, remarks = made.parity._asdict(), made.prepared.remarks
        print_json({"bundle": str(output), "report": str(report), "parity": parity, "remarks": remarks, **numbers})
    else:
        _say_remarks(made.prepared)
        for key, value in numbers.items():
            print(f"{key.replace('_', ' ')}: {value}")
        print(f"variants decide the same: {agree:.2%} of {made.parity.pictures} pictures")
        print(f"{output} is signed; look at {report}")
    return 0 if agree >= 0.98 else 1
