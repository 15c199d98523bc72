"""``edge-agent models list|verify|pack|install|rollback``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from edge_agent import readable
from edge_agent.commands import pack
from edge_agent.commands.bundles import (
    TrustUnsigned,
    bundles_of_daemon,
    library,
    load,
    roll_back,
    state_of,
    trusted_keys,
)
from edge_agent.commands.options import ConfigFile, Json, columns, print_json, screen, state_dir, who
from edge_agent.errors import EdgeAgentError, ModelError
from edge_agent.vocabulary import nearest

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.library import Library

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle: a folder or its zip.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for the record.")]


_ANEW: Final = "get it anew, or another one from who made it"


def register(app: typer.Typer) -> None:
    models = typer.Typer(no_args_is_help=True, help="The model bundles of this machine.")
    app.add_typer(models, name="models", epilog="Example: edge-agent models install pitting.zip")

    @models.command("list", epilog="Example: edge-agent models list")
    def list_(config: ConfigFile = None, json_: Json = False) -> int:
        """What is installed, and what is in use. Exit code 1: something could not be used."""
        found = _installed(state_dir(config))
        if json_:
            print_json({"models": found})
        elif found:
            _show_installed(found)
        else:
            print("no models are installed")
        return 1 if any("wrong" in each for each in found) else 0

    @models.command(epilog="Example: edge-agent models verify pitting.zip")
    def verify(
        bundle: BundlePath, trust_unsigned: TrustUnsigned = False, config: ConfigFile = None, json_: Json = False
    ) -> int:
        """Signature, hashes, model files, golden decisions; nothing is changed. Exit code 1: it is refused."""
        try:
            found = load(_there(bundle), trusted_keys(state_of(config)), trust_unsigned=trust_unsigned)
            proofs = _prove(found)
        except ModelError as error:
            return _refused(bundle, error, json_=json_)
        if json_:
            print_json({"bundle": str(bundle), "good": True, **_about(found), "variants": proofs})
        else:
            _show_proofs(found, proofs, "is good")
        return 0

    pack.register(models)
    _register_changes(models)


def _register_changes(models: typer.Typer) -> None:
    @models.command(epilog="Example: edge-agent models install pitting.zip --why 'trained on the new tool'")
    def install(
        bundle: BundlePath,
        why: Why = "by hand",
        now: Annotated[bool, typer.Option("--now", help="Do not try it beside the one that decides.")] = False,
        trust_unsigned: TrustUnsigned = False,
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """Verify it, prove it in a process of its own, and install it; the last ones are kept.

        Where the running daemon decides with such a bundle, both are asked for a while, then the new one takes over
        or goes again, by itself. Exit code 1: it is refused.
        """
        state = state_dir(config)
        shelf = library(state)
        proofs: list[dict[str, Any]] = []
        try:
            found = _load_to_install(state, shelf, _there(bundle), trust_unsigned=trust_unsigned)
            change = shelf.offer if not now and found.card.name in bundles_of_daemon(state) else shelf.install
            fresh = change(found, lambda new: proofs.extend(_prove(new)), who=who(), why=why)
        except ModelError as error:
            return _refused(bundle, error, json_=json_)
        bundles_of_daemon(state, changed=True)
        is_tried = fresh.candidate is not None
        if json_:
            done = {"installed": not is_tried, "tried": is_tried}
            print_json({"bundle": str(bundle), **done, **_about(found), "variants": proofs})
        else:
            _show_proofs(found, proofs, f"is tried beside {fresh.current}" if is_tried else "is installed")
        return 0

    @models.command(epilog="Example: edge-agent models rollback pitting --why 'false alarms since the update'")
    def rollback(
        name: Annotated[str, typer.Argument(help="The bundle, by its name.")],
        why: Why = "by hand",
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """Back to the release that was in use before."""
        state = state_dir(config)
        shelf = library(state)
        if name not in shelf.names():
            raise typer.BadParameter(f"no bundle {name!r} is installed{nearest(name, shelf.names())}")
        return roll_back(state, name, why, as_json=json_)


def _there(path: Path) -> Path:
    if not path.exists():
        raise EdgeAgentError(f"there is no bundle at {path}")
    return path


def _load_to_install(state: Path, shelf: Library, path: Path, *, trust_unsigned: bool) -> Bundle:
    """The bundle, signed by this machine where a person vouches for it. A refusal goes on record."""
    from models import bundle, keys  # noqa: PLC0415 - only who deals with bundles pays for it

    try:
        found = load(path, trusted_keys(state), trust_unsigned=trust_unsigned)
        if found.signed_by is None:
            files = bundle.sign(found.files, keys.device_key(state))
            found = bundle.verify(files, trusted_keys(state))
    except ModelError as error:
        with shelf.changing():
            shelf.note("install refused", path.name, who=who(), why=str(error))
        raise
    except OSError as error:
        raise EdgeAgentError(f"cannot make this machine's key: {error}") from error
    return found


def _prove(found: Bundle) -> list[dict[str, Any]]:
    """Every variant that can run here; raises ModelError for the first that decides wrongly, and where none can."""
    from models import session, trial  # noqa: PLC0415 - as above

    proofs = []
    for file in found.card.files:
        if session.is_installed(file.format):
            proof = trial.prove(found, file.variant)
            proofs.append({"variant": file.variant, **{key: getattr(proof, key) for key in proof.__slots__}})
    if not proofs:
        raise ModelError(f"{found.card.name} has no variant whose runtime is installed here")
    return proofs


def _installed(state: Path) -> list[dict[str, Any]]:
    shelf, trusted = library(state), trusted_keys(state)
    found = []
    for name in shelf.names():
        line: dict[str, Any] = {"name": name, "kept": shelf.releases(name)}
        try:
            now = shelf.in_use(name)
            line |= now.model_dump() if now else {}
            bundle = shelf.load(name, trusted)
            line |= {**_about(bundle), "task": bundle.card.task} if bundle else {}
        except ModelError as error:
            line["wrong"] = str(error)
        found.append(line)
    return found


def _about(found: Bundle) -> dict[str, Any]:
    return {
        "name": found.card.name,
        "version": found.card.version,
        "signed_by": found.signed_by,
        "sha256": found.sha256,
    }


def _refused(path: Path, error: ModelError, *, json_: bool) -> int:
    """Why, and what to do about it."""
    why = str(error.args[0]).removeprefix(f"{path}: ")
    hint = error.hint or _ANEW
    if json_:
        print_json({"bundle": str(path), "good": False, "why": why, "hint": hint})
    else:
        print(f"{path} is refused: {why}\n→ {hint}; what is in use stays in use")
    return 1


def _show_installed(found: list[dict[str, Any]]) -> None:
    table = columns("bundle", "version", "task", "signed by", "since", "why", "before")
    for line in found:
        if "wrong" in line:
            table.add_row(line["name"], "[red]cannot be used[/]", "", "", "", line["wrong"].replace("[", "\\["), "")
        else:
            row = (line["name"], line["version"], line["task"], line["signed_by"], line["at"], line["why"])
            table.add_row(*(str(each).replace("[", "\\[") for each in row), (line["previous"] or "–").partition("-")[0])
            if line["candidate"]:
                table.add_row("", line["candidate"].partition("-")[0], "", "", "", "[yellow]is tried beside it[/]", "")
    screen().print(table)


def _show_proofs(found: Bundle, proofs: list[dict[str, Any]], what: str) -> None:
    console = screen()
    signer = f"signed by {found.signed_by}" if found.signed_by else "[yellow]not signed: you vouch for it[/]"
    console.print(f"[bold]{found.card.name}@{found.card.version}[/] {what}, {signer}")
    table = columns("variant", "golden decisions", "load", "one judgement", "memory")
    for proof in proofs:
        table.add_row(
            proof["variant"],
            f"{proof['samples']} as they should be",
            f"{proof['load_ms']:.0f} ms",
            f"{proof['judge_ms']:.2f} ms",
            readable.size(proof["rss_bytes"]),
        )
    console.print(table)
