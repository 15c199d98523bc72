"""The bundles that are installed on this machine, and which release of each is in use.

::

    state_dir/bundles/pitting/
        3-77aa…/ 4-1f0c…/   releases as they were verified, complete or not there
        in-use.json         {"current": "4-1f0c…", "previous": "3-77aa…", …}: decides, and is replaced as a whole
    state_dir/audit/models.jsonl    what was installed, refused or rolled back, by whom and why, line by line

Whenever the power goes, the old or the new version is in use, never half of one, and why is on record: the reason is
written first. A bundle that comes with the product is put beside the first other release of its name, so that it can be
compared with it and gone back to.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_agent.clock import Clock, iso
from edge_agent.errors import BundleError, EdgeAgentError, ModelError
from models import archive, releases
from models.releases import IN_USE, RELEASE, InUse, version

if TYPE_CHECKING:
    from models import keys
    from models.bundle import Bundle

KEEP: Final = 3
"""Releases that stay on the disk, the current and the previous among them."""


def release(of: Bundle) -> str:
    """``4-1f0c…``: version and content, the name of its folder."""
    return f"{of.card.version}-{of.sha256[:12]}"


class Library:
    """Safe for several processes: whoever changes something holds a lock. Changes raise EdgeAgentError.

    An EdgeAgentError that is no ModelError: the disk or a permission, not the bundle.
    """

    def __init__(self, state_dir: Path, clock: Clock, keep: int = KEEP) -> None:
        self._state_dir = state_dir
        self._folder = state_dir / "bundles"
        self._clock = clock
        self._keep = keep

    # --- what there is

    def names(self) -> list[str]:
        """Every bundle that is installed."""
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if (path / IN_USE).is_file())

    def in_use(self, name: str) -> InUse | None:
        """None where no such bundle is installed. Raises BundleError where its record is damaged."""
        return releases.in_use(self._state_dir, name)

    def releases(self, name: str) -> list[str]:
        """On the disk, newest first."""
        home = self._home(name)
        if not home.is_dir():
            return []
        found = (path.name for path in home.iterdir() if RELEASE.fullmatch(path.name))
        return sorted(found, key=version, reverse=True)

    def next_version(self, name: str) -> int:
        """Of a bundle that is made here: newer than all that were in use. Raises BundleError."""
        found = self.in_use(name)
        shipped = _shipped(name) if found is None else None
        return (shipped.card.version if shipped else version(found.newest if found else None)) + 1

    def path(self, name: str, which: str) -> Path:
        """The folder of a release."""
        return self._home(name) / which

    def load(self, name: str, trusted: keys.Keys, *, previous: bool = False) -> Bundle | None:
        """The verified bundle that is in use (or the one before); None where there is none. Raises BundleError."""
        from models import bundle  # noqa: PLC0415 - cryptography, only for who verifies

        found = self.in_use(name)
        which = found.previous if found and previous else found and found.current
        if not isinstance(which, str):
            return None
        loaded = bundle.load(self.path(name, which), trusted)
        if loaded.card.name != name or release(loaded) != which:
            raise BundleError(f"{self.path(name, which)} holds another bundle: {loaded.card.name}, {release(loaded)}")
        return loaded

    # --- changes

    def install(self, new: Bundle, prove: Callable[[Bundle], object], *, who: str, why: str) -> InUse:
        """Prove it, place it, switch to it. A refusal is on record too.

        ``prove``: :func:`models.trial.prove`, or what else must hold before it may decide; raises ModelError.
        """
        with self.changing():
            before = self._prove_and_place(new, prove, who)
            return self._lead(new.card.name, release(new), before, why, "install", **_about(new), who=who)

    def offer(self, new: Bundle, prove: Callable[[Bundle], object], *, who: str, why: str) -> InUse:
        """The same, but it stands beside the current one until the daemon has compared them; the first one leads."""
        name = new.card.name
        with self.changing():
            before = self._prove_and_place(new, prove, who)
            if before is None or before.current == release(new):
                return self._lead(name, release(new), before, why, "install", **_about(new), who=who)
            fresh = before.model_copy(update={"candidate": release(new)})
            self._switch(name, fresh, "offer", **_about(new), candidate=release(new), who=who, why=why)
        return fresh

    def settle(self, name: str, which: str, *, good: bool, why: str, **found: object) -> InUse | None:
        """The candidate leads from here on, or goes; ``found``: what was seen of it. None: it is no candidate."""
        with self.changing():
            before = self.in_use(name)
            if before is None or before.candidate != which:
                return None
            if good:
                return self._lead(name, which, before, why, "promote", **found)
            fresh = before.model_copy(update={"candidate": None})
            self._switch(name, fresh, "reject", candidate=which, current=before.current, why=why, **found)
            self._forget_old(name, fresh)
        return fresh

    def _prove_and_place(self, new: Bundle, prove: Callable[[Bundle], object], who: str) -> InUse | None:
        """What was in use before."""
        before, newest = self._before(new.card.name)
        shipped = _shipped(new.card.name) if newest is None else None
        try:
            _check_newer(new, release(shipped) if shipped else newest)
            prove(new)
        except ModelError as error:
            self.note("install refused", new.card.name, **_about(new), who=who, why=str(error))
            raise
        if shipped is not None and release(shipped) != release(new):
            self._place(shipped)
            before = self._lead(new.card.name, release(shipped), None, "it comes with the product", "adopt")
        self._place(new)
        return before

    def _lead(self, name: str, which: str, before: InUse | None, why: str, what: str, **more: object) -> InUse:
        was = before.current if before else None
        again = was == which
        fresh = InUse(
            current=which,
            previous=before.previous if before and again else was,
            newest=which,
            at=self._now(),
            why=why,
        )
        self._switch(name, fresh, what, **more, current=which, before=was, why=why)
        self._forget_old(name, fresh)
        return fresh

    def rollback(self, name: str, *, who: str, why: str) -> InUse:
        """Back to the previous release; the one that is left stays on the disk but decides nothing more."""
        with self.changing():
            before = self.in_use(name)
            if before is None or before.previous is None:
                raise BundleError(f"{name} has no previous release" if before else f"no bundle {name!r} is installed")
            older = [each for each in self.releases(name) if version(each) < version(before.previous)]
            fresh = InUse(
                current=before.previous,
                previous=older[0] if older else None,
                newest=before.newest,
                at=self._now(),
                why=why,
            )
            self._switch(name, fresh, "rollback", who=who, before=before.current, current=fresh.current, why=why)
        return fresh

    def note(self, what: str, name: str, **more: object) -> None:
        """A line of the audit record. Raises OSError."""
        folder = self._state_dir / "audit"
        self._make(folder)
        line = json.dumps({"at": self._now(), "what": what, "bundle": name, **more}, ensure_ascii=False)
        path = folder / "models.jsonl"
        number = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        with os.fdopen(number, "r+b", buffering=0) as file:
            archive.give(path, folder.stat())
            size = os.fstat(number).st_size
            torn = bool(size) and os.pread(number, 1, size - 1) != b"\n"  # a line that the power cut off
            file.write((b"\n" if torn else b"") + line.encode() + b"\n")
            os.fsync(number)

    # --- inside

    def _home(self, name: str) -> Path:
        return releases.home(self._state_dir, name)

    def _before(self, name: str) -> tuple[InUse | None, str | None]:
        """What is in use, and the newest that ever was. A damaged record is mended by installing again."""
        try:
            found = self.in_use(name)
        except BundleError:
            return None, next(iter(self.releases(name)), None)
        return found, found.newest if found else None

    def _place(self, new: Bundle) -> None:
        home, path = self._home(new.card.name), self.path(new.card.name, release(new))
        self._make(home)
        for left in home.glob(".*"):  # by an install that was interrupted
            if left.is_dir():
                archive.discard(left)
            else:
                left.unlink()
        if path.exists():
            if _is_whole(path, new):
                return
            self._remove(path)
        archive.place(new.files, path)

    def _switch(self, name: str, fresh: InUse, what: str, **record: object) -> None:
        """The one moment at which something else is in use. What it is and why is on record before it happens."""
        self.note(what, name, **record)
        try:
            archive.replace(self._home(name) / IN_USE, fresh.model_dump_json(indent=1).encode() + b"\n")
        except OSError as error:
            with contextlib.suppress(OSError):
                self.note(f"{what} failed", name, why=error.strerror)
            raise

    def _forget_old(self, name: str, now: InUse) -> None:
        wanted = {now.current, now.previous, now.candidate} - {None}
        spare = [each for each in self.releases(name) if each not in wanted]
        for which in spare[max(0, self._keep - len(wanted)) :]:
            self._remove(self.path(name, which))

    def _remove(self, path: Path) -> None:
        gone = path.with_name(f".{path.name}.gone")
        archive.discard(gone)
        path.rename(gone)  # first out of sight: a half of it must never be found
        archive.discard(gone)

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock; OSErrors become EdgeAgentErrors."""
        try:
            self._make(self._folder)
            path = self._folder / ".lock"
            with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640), "r+b", buffering=0) as file:
                archive.give(path, self._folder.stat())
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        except OSError as error:
            what = f"cannot change {error.filename or self._folder}: {error.strerror}"
            raise EdgeAgentError(what, hint="as root, or as the user that the daemon runs as") from error

    def _make(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make(folder.parent)
            with contextlib.suppress(FileExistsError):  # another process was faster
                folder.mkdir(mode=0o750)
            archive.give(folder, folder.parent.stat())
            archive.sync_folder(folder.parent)

    def _now(self) -> str:
        return iso(self._clock.stamp().wall_ms)


def _about(new: Bundle) -> dict[str, object]:
    return {"version": new.card.version, "sha256": new.sha256, "key": new.signed_by}


def _shipped(name: str) -> Bundle | None:
    from models import bundle  # noqa: PLC0415 - cryptography, only for who verifies

    return bundle.shipped(name)


def _check_newer(new: Bundle, newest: str | None) -> None:
    card = new.card
    if new.signed_by is None:
        raise BundleError(f"{card.name} is not signed by anybody who is trusted here")
    if card.version < version(newest):
        raise BundleError(
            f"{card.name}@{card.version} is older than version {version(newest)}, which was in use before",
            hint=f"`edge-agent models rollback {card.name}` goes back on purpose",
        )
    if card.version == version(newest) and release(new) != newest:
        raise BundleError(f"another {card.name}@{card.version} was in use before", hint="a change needs a new version")


def _is_whole(path: Path, new: Bundle) -> bool:
    try:
        return archive.read(path) == new.files
    except BundleError:
        return False
