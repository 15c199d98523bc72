"""``edge-agent calibrate camera``: what do good parts look like, and from where on is one not good?"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from pydantic import TypeAdapter, ValidationError

from edge_agent import logs
from edge_agent.clock import Clock, SystemClock
from edge_agent.commands.bundles import (
    bundles_of_daemon,
    check_place,
    key_folder,
    library,
    roll_back,
    state_of,
    write_bundle,
)
from edge_agent.commands.options import ConfigFile, Json, plain, print_json, screen, who
from edge_agent.commissioning import shots
from edge_agent.commissioning.light import Light, lock
from edge_agent.config import find, load
from edge_agent.errors import EdgeAgentError
from edge_agent.plan import Config, KindPlan
from edge_agent.settings import Region
from edge_agent.vocabulary import nearest

if TYPE_CHECKING:
    from models.train.camera import Fit
    from models.train.camera_bundle import Made
    from models.train.shown import Shown

NAME: Final = "good-parts"
_MOST_PIXELS: Final = 40_000_000
_PATIENCE_S: Final = 30.0  # until a camera has opened


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: edge-agent calibrate camera --good-dir ./good --bundle-dir ./bundle")
    def camera(
        name: Annotated[
            str | None, typer.Argument(metavar="[NAME]", help="A camera of the config, to look live.")
        ] = None,
        good_dir: Annotated[
            Path | None, typer.Option("--good-dir", help="A folder with 10 to 50 pictures of good parts instead.")
        ] = None,
        bundle_dir: Annotated[
            Path | None, typer.Option("--bundle-dir", help="Write the bundle to this folder instead of installing it.")
        ] = None,
        frames: Annotated[int, typer.Option(min=10, max=50, help="How many good parts to take live.")] = 20,
        bundle: Annotated[
            str | None, typer.Option("--name", help="Of the bundle; default: the one that the config names.")
        ] = None,
        roi: Annotated[
            str | None, typer.Option(metavar="WxH+X+Y", help="Judge only this part of the picture; default: all of it.")
        ] = None,
        undo: Annotated[bool, typer.Option("--undo", help="Back to the calibration before.")] = False,
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """Learn good parts from pictures, and set a threshold whose false rejects are stated with their confidence."""
        clock = SystemClock()
        region = _region(roi)
        logs.configure(clock, level="critical")  # what is wrong is said here, in words
        _check_name(bundle)
        state = state_of(config)
        plan, chosen = _camera(config, name, is_needed=state is not None and bundle_dir is None)
        called = bundle or (_bundle_of(plan, chosen) if plan and chosen else NAME)
        if undo:
            return roll_back(state, called, "calibrate camera --undo", as_json=json_)
        if find_spec("onnx") is None:
            raise EdgeAgentError("calibrating a camera needs onnx", hint="pip install 'edge-agent[calibrate]'")
        if good_dir is None and chosen is None:
            raise typer.BadParameter("name a camera of the config, or a folder of pictures with --good-dir")
        check_place(bundle_dir, state)
        light = None
        if good_dir is None and chosen is not None:
            chosen, light = lock(chosen, clock)
        pictures = _look(good_dir, plan, chosen, frames, clock, quiet=json_)
        began_ns = clock.mono_ns()
        source = good_dir.resolve().name if good_dir else f"camera {chosen.name if chosen else name}"
        fit, made = _learn(pictures, region, called, state, source, quiet=json_)
        kept = write_bundle(made.files, bundle_dir) if bundle_dir else _install(made, state, len(pictures.images))
        seconds = (clock.mono_ns() - began_ns) / 1e9
        _say(fit, made, pictures, kept, seconds, light, as_json=json_)
        return 0


def _camera(config: Path | None, name: str | None, *, is_needed: bool) -> tuple[Config | None, KindPlan | None]:
    """The config and the camera of that name; without a name the only one there is, where one is needed."""
    if name is None and not is_needed:
        return None, None
    plan = load(find(config))
    if name is None and len(plan.cameras) != 1:
        return plan, None
    name = name or next(iter(plan.cameras))
    if name not in plan.cameras:
        raise typer.BadParameter(f"{name!r} is no camera of the config{nearest(name, plan.cameras)}")
    return plan, plan.cameras[name]


def _bundle_of(plan: Config, camera: KindPlan) -> str:
    """The bundle of the camera's model, if there is just one."""
    bundles = [plan.models[model].bundle for model in camera.settings.model]
    if len(bundles) > 1:
        raise typer.BadParameter(f"{camera.name} has several models; choose with --name: {', '.join(bundles)}")
    return bundles[0] if bundles else f"{camera.name}-good"


def _look(
    good_dir: Path | None, plan: Config | None, camera: KindPlan | None, frames: int, clock: Clock, *, quiet: bool
) -> Shown:
    """The good parts, cut to the region that the camera's config names."""
    from models.train import shown  # noqa: PLC0415 - NumPy, only for who calibrates

    region = camera.settings.roi if camera else None
    if good_dir is not None:
        return shown.read(good_dir, region)
    if plan is None or camera is None:
        raise typer.BadParameter("name a camera")

    with tempfile.TemporaryDirectory() as folder:
        within_s = _PATIENCE_S + 3 * frames * camera.settings.every
        return shown.read(
            shots.take(camera, frames, Path(folder), plan.folder, within_s, clock, _feedback(frames, quiet=quiet)),
            region,
        )


def _feedback(frames: int, *, quiet: bool) -> shots.Show:
    """A line for every picture: is it sharp, well lit, and does the part lie where the one before lay?"""
    before: Any = None

    def show(count: int, newest: Path | None, why: str) -> None:
        nonlocal before
        if newest is None:
            sys.stderr.write(f"{count} of {frames}: {why}\n")
            return
        from drivers import opencv  # noqa: PLC0415 - only where there are pictures
        from models.scene import impression  # noqa: PLC0415 - as above

        image = opencv.decode(newest.read_bytes(), _MOST_PIXELS)
        felt = impression(image, before)
        before = image
        sys.stderr.write(
            f"{count} of {frames}: sharpness {felt.sharpness:.0f}, light {felt.level:.0f} of 255,"
            f" {felt.white:.1%} white, moved {felt.moved_px:.1f} px\n"
        )

    return (lambda _count, _newest, _why: None) if quiet else show


def _region(text: str | None) -> tuple[int, int, int, int] | None:
    """What a person wrote, as the config would understand it."""
    if text is None:
        return None
    try:
        return TypeAdapter(Region).validate_python(text)
    except ValidationError as error:
        raise typer.BadParameter(f"{text!r} must look like 640x480+100+50 (width x height + left + top)") from error


def _check_name(name: str | None) -> None:
    """Before anybody shows parts to a camera."""
    from models.card import Name  # noqa: PLC0415 - only who makes a bundle pays for it

    try:
        TypeAdapter(Name | None).validate_python(name)
    except ValidationError as error:
        raise typer.BadParameter(f"--name must be made of letters, digits, _ and -; not {name!r}") from error


def _learn(
    pictures: Shown, region: Region | None, name: str, state: Path | None, source: str, *, quiet: bool
) -> tuple[Fit, Made]:
    from models import keys  # noqa: PLC0415 - only who makes a bundle pays for it
    from models.train import camera, camera_bundle  # noqa: PLC0415 - as above

    def show(stage: str, done: int, of: int) -> None:
        if not quiet and sys.stderr.isatty():
            sys.stderr.write(f"\r{stage} {done + 1} of {of}   ")

    try:
        fit = camera.fit(pictures.images, show, region)
    finally:
        if not quiet and sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")  # what comes next begins a line
    version = library(state).next_version(name) if state else 1
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


def _say(
    fit: Fit, made: Made, pictures: Shown, kept: str, seconds: float, light: Light | None, *, as_json: bool
) -> None:
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
        "beyond": fit.beyond,
        "doubts": doubts,
        "false_rejects_at_most": round(fit.false_rejects, 4) if fit.false_rejects is not None else None,
        "confidence": card.threshold.confidence if card.threshold else None,
        "scores": {name: round(float(score), 4) for name, score in zip(names, fit.scores, strict=True)},
        "seconds": round(seconds, 2),
        "multiplications": card.metrics["multiplications"],
        **({"locked": light.locked, "not_locked": light.automatic} if light else {}),
    }
    if as_json:
        print_json(about)
        return
    console = screen()
    for each in left_out:
        console.print(f"[yellow]look: {plain(each)} is unlike the others, and was left out: is it good?[/]")
    for doubt in doubts:
        console.print(f"[yellow]look: {plain(doubt)}[/]")
    if light is not None:
        _say_light(light)
    promise = ""
    if fit.false_rejects is not None:
        promise = (
            f" With 95 % confidence at most {fit.false_rejects:.0%} of good parts are;\n"
            "to promise 1 % somebody would have to show about 300."
        )
    print(
        f"{count} good parts in {seconds:.1f} s. {fit.beyond or 'None'} of them was beyond the limit when judged by the"
        f" others.{promise} One judgement takes"
        f" {float(card.metrics['multiplications']) / 1e6:.0f} million multiplications."
    )
    console.print(f"[bold]{plain(kept)}[/]")


def _say_light(light: Light) -> None:
    """What the daemon must hold as it was; the machine does not write into the config."""
    if light.locked:
        print(
            "locked; write it below the camera in the config, or its automatic comes back when it is plugged in again:"
        )
        for name, value in light.locked.items():
            print(f"    {name}: {json.dumps(value)}")
    if light.automatic:
        what = ", ".join(light.automatic).replace("_", " ")
        screen().print(f"[yellow]look: {what} cannot be locked from here: set it in the camera itself, if it can be[/]")
