"""``edge-agent calibrate camera``: what do good parts look like, and from where on is one not good?"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from edge_agent.clock import SystemClock
from edge_agent.commands.bundles import bundles_of_daemon, key_folder, library, state_of, write_bundle
from edge_agent.commands.options import ConfigFile, Json, plain, print_json, screen, who
from edge_agent.errors import EdgeAgentError

if TYPE_CHECKING:
    from models.train.camera import Fit
    from models.train.camera_bundle import Made
    from models.train.shown import Shown

NAME: Final = "good-parts"


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: edge-agent calibrate camera --good-dir ./good --bundle-dir ./bundle")
    def camera(
        good_dir: Annotated[Path, typer.Option("--good-dir", help="A folder with 10 to 50 pictures of good parts.")],
        bundle_dir: Annotated[
            Path | None, typer.Option("--bundle-dir", help="Write the bundle to this folder instead of installing it.")
        ] = None,
        name: Annotated[str, typer.Option(help="Of the bundle.")] = NAME,
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """Learn good parts from pictures, and set a threshold whose false rejects are stated with their confidence."""
        if find_spec("onnx") is None:
            raise EdgeAgentError("calibrating a camera needs onnx", hint="pip install 'edge-agent[calibrate]'")
        clock = SystemClock()
        began_ns = clock.mono_ns()
        state = state_of(config)
        if bundle_dir is None and state is None:
            raise EdgeAgentError("there is no config here to install it for", hint="write it with --bundle-dir")
        from models.train import shown  # noqa: PLC0415 - NumPy, only for who calibrates

        pictures = shown.read(good_dir)
        fit, made = _learn(pictures, name, state, good_dir.resolve().name, quiet=json_)
        kept = write_bundle(made.files, bundle_dir) if bundle_dir else _install(made, state, len(pictures.images))
        seconds = (clock.mono_ns() - began_ns) / 1e9
        _say(fit, made, pictures, kept, seconds, as_json=json_)
        return 0


def _learn(pictures: Shown, name: str, state: Path | None, source: str, *, quiet: bool) -> tuple[Fit, Made]:
    from models import keys  # noqa: PLC0415 - only who makes a bundle pays for it
    from models.train import camera, camera_bundle  # noqa: PLC0415 - as above

    def show(stage: str, done: int, of: int) -> None:
        if not quiet and sys.stderr.isatty():
            sys.stderr.write(f"\r{stage} {done + 1} of {of}   ")

    fit = camera.fit(pictures.images, show)
    before = library(state).in_use(name) if state else None
    version = int(before.newest.partition("-")[0]) + 1 if before else 1
    folder = key_folder(state)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        key = keys.device_key(folder)
    except OSError as error:
        raise EdgeAgentError(f"cannot make a key in {folder}: {error.strerror}") from error
    return fit, camera_bundle.make(fit, pictures.images, name, version, key, source=source)


def _install(made: Made, state: Path | None, count: int) -> str:
    """A person has just shown what is good: it takes over at once."""
    from models import bundle, keys, trial  # noqa: PLC0415 - as above

    if state is None:
        raise EdgeAgentError("there is no config here to install it for", hint="write it with --bundle-dir")
    found = bundle.verify(made.files, keys.trusted(state))
    library(state).install(found, trial.prove, who=who(), why=f"calibrate camera, {count} good parts")
    bundles_of_daemon(state, changed=True)
    return f"{found.card.name}@{found.card.version}"


def _say(fit: Fit, made: Made, pictures: Shown, kept: str, seconds: float, *, as_json: bool) -> None:
    card = made.bundle.card
    names = pictures.names
    left_out = [names[number] for number in fit.outliers]
    doubts = [*pictures.doubts, *fit.doubts]
    count = len(names) - len(left_out)
    about: dict[str, Any] = {
        "bundle": kept,
        "name": card.name,
        "version": card.version,
        "good": count,
        "left_out": left_out,
        "doubts": doubts,
        "false_rejects_at_most": round(fit.false_rejects, 4),
        "confidence": card.threshold.confidence if card.threshold else None,
        "limit": round(fit.memory.limit, 4),
        "scores": {name: round(float(score), 4) for name, score in zip(names, fit.scores, strict=True)},
        "seconds": round(seconds, 2),
    }
    if as_json:
        print_json(about)
        return
    console = screen()
    for each in left_out:
        console.print(f"[yellow]look: {plain(each)} is unlike the others, and was left out: is it good?[/]")
    for doubt in doubts:
        console.print(f"[yellow]look: {plain(doubt)}[/]")
    print(
        f"{count} good parts in {seconds:.1f} s. None of them was beyond the limit when judged by the others, so with"
        f" 95 % confidence at most {fit.false_rejects:.0%} of good parts are;\n"
        f"to promise 1 % somebody would have to show about 300."
    )
    console.print(f"[bold]{plain(kept)}[/]")
