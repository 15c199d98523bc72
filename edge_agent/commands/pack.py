"""``edge-agent models pack``: a card and model files become a signed bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_agent.commands.bundles import key_folder, state_of, write_bundle
from edge_agent.commands.judge import pictures_in
from edge_agent.commands.options import ConfigFile, Json, print_json
from edge_agent.errors import BundleError, EdgeAgentError, ModelError

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.card import Card

_MOST_PIXELS = 40_000_000


def register(models: typer.Typer) -> None:
    @models.command(epilog="Example: edge-agent models pack pitting/ pictures/ --output pitting.zip")
    def pack(
        folder: Annotated[Path, typer.Argument(help="card.yaml (its hashes may be missing) and the model files.")],
        samples: Annotated[Path, typer.Argument(help="Pictures, or a CSV of rows, that it must go on deciding alike.")],
        output: Annotated[Path, typer.Option(help="The bundle: a new folder, or a file with the ending .zip.")],
        key: Annotated[Path | None, typer.Option(help="Ed25519 key (PEM) that signs; default: this machine's.")] = None,
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """Make a signed bundle of your own models. What they decide about the samples is what they must always decide.

        Who trusts the key can install it: its public half belongs into /etc/edge-agent/keys. Exit code 1: refused.
        """
        from models import archive, bundle, trial  # noqa: PLC0415 - only who deals with bundles pays for it

        try:
            drafted = _draft(folder)
            made = bundle.complete(drafted, _golden(drafted, samples), _key(key, config))
            found = bundle.Bundle(drafted.card, made, bundle.digest(made))
            for file in drafted.card.files:  # all variants decide alike, or it is no bundle
                trial.prove(found, file.variant)
        except ModelError as error:
            print(f"{folder} is refused: {error}")
            return 1
        if output.suffix == ".zip":
            try:
                archive.replace(output.absolute(), archive.zipped(made), mode=0o644)
            except OSError as error:
                raise EdgeAgentError(f"cannot write {output}: {error.strerror}") from error
        else:
            write_bundle(made, output)
        if json_:
            print_json({"bundle": str(output), "name": found.card.name, "version": found.card.version})
        else:
            print(f"{found.card.name}@{found.card.version} is in {output}")
        return 0


def _draft(folder: Path) -> Bundle:
    """Whatever ``golden.npz`` and signature the folder has are made anew."""
    from edge_agent.document import parse  # noqa: PLC0415 - as above
    from models import archive, bundle  # noqa: PLC0415 - as above
    from models.card import CARD  # noqa: PLC0415 - as above

    files = archive.read(folder)
    if CARD not in files:
        raise BundleError(f"has no {CARD}", hint="docs/training.md says what is in it")
    document = parse(files.pop(CARD).decode(errors="replace"), CARD)
    if document.problems or not isinstance(document.data, dict):
        raise BundleError("\n".join(map(str, document.problems)) or f"{CARD} is not a card")
    models = {name: data for name, data in files.items() if name not in (bundle.GOLDEN, bundle.SIGNATURE)}
    named = document.data.get("files")
    for entry in named if isinstance(named, list) else [named]:
        if not isinstance(entry, dict) or entry.get("name") not in models:
            raise BundleError(f"{CARD} names {entry!r} among its files, which is not there")
    return bundle.draft(document.data, models)


def _golden(drafted: Bundle, samples: Path) -> bytes:
    from models import golden, judge  # noqa: PLC0415 - as above

    judged = judge.build(drafted)
    inputs, times = (_rows if drafted.card.input.kind == "rows" else _pictures)(drafted.card, samples)
    return golden.record(judged, drafted.card, inputs, times)


def _pictures(card: Card, samples: Path) -> tuple[Any, None]:
    """As large as the model wants them."""
    import numpy as np  # noqa: PLC0415 - as above

    from drivers import opencv  # noqa: PLC0415 - only where there are pictures

    width, height = card.input.size  # type: ignore[union-attr]  # it is a picture's
    try:
        pictures = [opencv.decode(path.read_bytes(), _MOST_PIXELS) for path in pictures_in(samples)]
    except OSError as error:
        raise EdgeAgentError(f"cannot use {samples}: {error}") from error
    return np.stack([opencv.resize(each, width, height) for each in pictures]), None


def _rows(card: Card, samples: Path) -> tuple[Any, list[float]]:
    import numpy as np  # noqa: PLC0415 - as above

    from models import rows  # noqa: PLC0415 - as above

    with rows.opened(samples) as table:
        found = [row for _, row in table.rows]
    names = card.input.quantities  # type: ignore[union-attr]  # it is rows'
    inputs = np.array([[row.values.get(name, np.nan) for name in names] for row in found], float)
    return inputs.reshape(-1, len(names)), [row.time_s for row in found]


def _key(path: Path | None, config: Path | None) -> Any:
    from models import keys  # noqa: PLC0415 - as above

    folder = key_folder(state_of(config))
    try:
        if path is not None:
            return keys.signing_key(path)
        folder.mkdir(parents=True, exist_ok=True)
        return keys.device_key(folder)
    except OSError as error:
        raise EdgeAgentError(f"cannot use the key {path or folder}: {error.strerror}") from error
