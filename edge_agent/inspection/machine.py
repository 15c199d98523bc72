"""The computer itself: disk, clock, secret files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from edge_agent import readable
from edge_agent.clock import NS
from edge_agent.inspection.finding import FAIL, OK, WARN, Finding, Scene, Step

_SLOW_S: Final = 1.0
_SECRETS: Final = ("password_file", "key_file")
_FILES: Final = (*_SECRETS, "ca_file", "cert_file")


def steps(scene: Scene) -> Iterator[Step]:
    """Disk, clock and the files that the config names."""
    yield Step("disk: writing and forcing it out", partial(disk, scene))
    yield Step("clock", partial(clock, scene))
    yield Step("secret files", partial(secrets, scene))


def disk(scene: Scene) -> Iterator[Finding]:
    """Whether the state folder takes what it is given, durably, and has room for the limit."""
    folder = scene.config.state_dir
    place = next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))  # noqa: PTH110 - or so we see
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".check-") as file:
            began_ns = scene.clock.mono_ns()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            took_s = (scene.clock.mono_ns() - began_ns) / NS
    except PermissionError:
        yield Finding(
            FAIL, "disk", f"{place}: not allowed", "check as who runs it: sudo -u edge-agent edge-agent check"
        )
        return
    except OSError as error:
        hint = "mount it for writing, or give it to the user of the service: chown edge-agent"
        yield Finding(FAIL, "disk", f"{place}: {error.strerror}", hint)
        return
    kind = _filesystem(place)
    if kind in {"tmpfs", "ramfs", "overlay"} and scene.config.spool.durability == "power-cut":
        hint = "put state_dir on a card or disk, or say durability: crash"
        yield Finding(WARN, "disk", f"{place} is {kind}: nothing of it survives a power cut", hint)
    slow = took_s > _SLOW_S
    detail = f"{folder} takes a durable write in {took_s * 1000:.0f} ms"
    yield Finding(WARN if slow else OK, "disk", detail, "a worn card? commit_every should be longer" if slow else "")
    yield _room(scene, place)


def _room(scene: Scene, place: Path) -> Finding:
    stat = os.statvfs(place)
    free = stat.f_bavail * stat.f_frsize
    kept = [camera.settings.evidence for camera in scene.config.cameras.values()]
    evidence = sum(each.quota + each.uncertain.quota for each in kept)
    wanted = scene.config.spool.limit + evidence + scene.config.spool.free_floor
    used = sum(path.stat().st_size for path in scene.config.state_dir.glob("spool.db*"))
    text = f"{readable.size(free)} free, the limits ask for {readable.size(wanted)}"
    if free + used >= wanted:
        return Finding(OK, "disk space", text)
    if free < scene.config.spool.free_floor:
        return Finding(FAIL, "disk space", text, "free some space: below spool.free_floor the oldest rows go")
    return Finding(WARN, "disk space", text, "lower spool.limit, or the buffer ends before its limit")


def _filesystem(place: Path) -> str:
    """The kind of file system that a folder is on."""
    best = ("", "")
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, mount, kind, *_ = line.split(" ")
        if str(place.resolve()).startswith(mount) and len(mount) >= len(best[0]):
            best = (mount, kind)
    return best[1]


def clock(scene: Scene) -> Iterator[Finding]:
    """Whether UTC is known to be right."""
    if scene.clock.synced():
        yield Finding(OK, "clock", "synchronised")
    else:
        hint = "timedatectl set-ntp true; is the time server (UDP 123) reachable?"
        yield Finding(WARN, "clock", "not synchronised: rows are marked until it is", hint)


def secrets(scene: Scene) -> Iterator[Finding]:
    """Whether the files that the config names can be read, and by whom else."""
    found = [("mqtt", scene.config.mqtt)] if scene.config.mqtt else []
    sections: list[tuple[str, object]] = [
        *found,
        *((f"camera {c.name}", c.settings) for c in scene.config.cameras.values()),
    ]
    for title, section in sections:
        for name in _FILES:
            path = getattr(section, name, None)
            if path is not None:
                yield _secret(f"{title} {name}", scene.config.folder / path, is_secret=name in _SECRETS)


def _secret(what: str, path: Path, *, is_secret: bool) -> Finding:
    try:
        with path.open("rb") as file:
            content = file.read(1)
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        return Finding(FAIL, what, f"{path}: {error.strerror}", "the user of the service must be able to read it")
    if not content:
        return Finding(FAIL, what, f"{path} is empty", "write the secret into its first line")
    if is_secret and mode & 0o007:
        return Finding(FAIL, what, f"everybody may read {path}", f"chmod 640 {path}; chgrp edge-agent {path}")
    return Finding(OK, what, f"{path} can be read")
