"""What the verbs about model bundles share: where a bundle is, and whom to trust."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from edge_agent import control
from edge_agent.clock import SystemClock
from edge_agent.commands.options import print_json, state_dir, who
from edge_agent.config import find
from edge_agent.errors import BundleError, ConfigError, EdgeAgentError
from edge_agent.vocabulary import nearest

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.keys import Keys
    from models.library import Library

WORKSTATION: Final = Path("~/.local/share/edge-agent")
TrustUnsigned = Annotated[
    bool, typer.Option("--trust-unsigned", help="You vouch for a bundle that nobody trusted here has signed.")
]


def state_of(config: Path | None) -> Path | None:
    """The state folder, or None on a machine without a config: a workstation."""
    if config is None:
        try:
            find(None)
        except ConfigError:
            return None
    return state_dir(config)


def key_folder(state: Path | None) -> Path:
    """Whose key signs what is made here: the machine's, beside the state of the daemon, or at home on a workstation."""
    return state or WORKSTATION.expanduser()


def trusted_keys(state: Path | None) -> Keys:
    from models import keys  # noqa: PLC0415 - only who deals with bundles pays for it

    return keys.trusted(key_folder(state))


def bundles_of_daemon(state: Path, *, changed: bool = False) -> list[str]:
    """The bundles that the running daemon decides with; none where it does not run.

    ``changed``: it is to look again. Where there is none, it will when it starts.
    """
    try:
        return list(control.ask(control.socket_path(state), {"ask": "models", "changed": changed})["bundles"])
    except EdgeAgentError:
        return []


def library(state: Path) -> Library:
    from models.library import Library  # noqa: PLC0415 - as above

    return Library(state, SystemClock())


def load(path: Path, trusted: Keys, *, trust_unsigned: bool) -> Bundle:
    """The verified bundle in a folder or zip; raises BundleError that names it."""
    from models import bundle  # noqa: PLC0415 - as above

    try:
        return bundle.load(path, trusted, trust_unsigned=trust_unsigned)
    except BundleError as error:
        raise BundleError(f"{path}: {error.args[0]}", hint=error.hint) from error


def roll_back(state: Path | None, name: str, why: str, *, as_json: bool) -> int:
    """Back to the release that was in use before, and say which; the exit code. Raises EdgeAgentError."""
    if state is None:
        raise EdgeAgentError("there is no config here", hint="name it with --config")
    now = library(state).rollback(name, who=who(), why=why)
    bundles_of_daemon(state, changed=True)
    if as_json:
        print_json({"bundle": name, **now.model_dump()})
    else:
        print(f"{name}: {now.current} is in use again")
    return 0


def check_place(target: Path | None, state: Path | None) -> None:
    """Before long work begins: where its bundle will go, a folder or among the installed, it can. Raises if not."""
    from models.card import CARD  # noqa: PLC0415 - as above

    if target is None:
        if state is None:
            raise EdgeAgentError("there is no config here to install it for", hint="write it with --bundle-dir")
        with library(state).changing():
            return
    target = target.absolute()
    home = next((each for each in target.parents if each.exists()), target)
    if not home.is_dir():
        raise EdgeAgentError(f"cannot write {target}: {home} is no folder")
    if not os.access(home, os.W_OK | os.X_OK):
        raise EdgeAgentError(f"cannot write {target}: not allowed in {home}")
    if not target.exists():
        return
    if not target.is_dir() or not ((target / CARD).is_file() or not any(target.iterdir())):
        raise typer.BadParameter(f"{target} is there already, and is no bundle")


def write_bundle(files: dict[str, bytes], target: Path) -> str:
    """A folder that is whole or not there; one that holds a bundle already is replaced."""
    from models import archive  # noqa: PLC0415 - as above

    check_place(target, None)
    target = target.absolute()
    aside = target.with_name(f".{target.name}.before")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        if target.exists():
            target.rename(aside)
        archive.place(files, target)
    except OSError as error:
        if aside.exists() and not target.exists():
            aside.rename(target)
        raise EdgeAgentError(f"cannot write {target}: {error.strerror}") from error
    shutil.rmtree(aside, ignore_errors=True)
    return str(target)


def find_bundle(text: str, config: Path | None, *, trust_unsigned: bool) -> tuple[Bundle, bool]:
    """A bundle by its path or by its name, and whether it is installed or shipped. Raises EdgeAgentError."""
    from models.releases import SHIPPED  # noqa: PLC0415 - as above

    state = state_of(config)
    trusted = trusted_keys(state)
    path = Path(text)
    if path.exists():
        return load(path, trusted, trust_unsigned=trust_unsigned), False
    names = library(state).names() if state else []
    found = library(state).load(text, trusted) if state and text in names else None
    shipped = {each.name: each for each in SHIPPED.glob("*") if each.is_dir()}
    if found is None and text in shipped:
        return load(shipped[text], trusted, trust_unsigned=False), True
    names += shipped
    if found is None:
        raise EdgeAgentError(f"there is no bundle at {text}, and none of that name is installed{nearest(text, names)}")
    return found, True
