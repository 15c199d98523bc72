"""Pictures from a folder: those that are there, and those that another program puts there later."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from drivers.cameras.stream import RecordedPictureSection
from edge_agent.camera_settings import CameraSection
from edge_agent.clock import Clock
from edge_agent.contracts import Frame
from edge_agent.errors import CameraError, PictureError
from edge_agent.vocabulary import NOTHING_THERE, PERMISSION, TOO_LARGE

_LARGEST = 64 * 2**20  # bytes of one file


class FolderSettings(CameraSection):
    """Pictures from a folder."""

    source: Path = Field(description="The folder; whoever writes into it writes elsewhere first and renames.")
    loop: bool = Field(default=False, description="Begin again after the last picture.")
    picture: RecordedPictureSection = Field(
        default=RecordedPictureSection(), description="What a picture must be to be judged."
    )


class Folder:
    """Every file once, in the order of their names; a new file is looked at when its turn comes.

    Hidden files are skipped: they are the unfinished ones. A file that is no picture is an error of that
    file alone.
    """

    Settings = FolderSettings
    streams = False

    def __init__(self, name: str, settings: FolderSettings, clock: Clock, since_ns: int) -> None:
        del name, since_ns
        self._settings = settings
        self._clock = clock
        self._waiting: list[str] = []  # last name first
        self._seen: set[str] = set()

    def open(self) -> None:
        self._look()

    def _look(self) -> None:
        """Find what is new; what is gone is forgotten, so that memory follows the folder."""
        try:
            with os.scandir(self._settings.source) as entries:
                there = {entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file()}
        except OSError as error:
            reason = PERMISSION if isinstance(error, PermissionError) else NOTHING_THERE
            raise CameraError(reason, f"{self._settings.source}: {error.strerror}") from error
        self._waiting = sorted(there - self._seen, reverse=True)
        self._seen &= there

    def grab(self) -> Frame | None:
        if not self._waiting:
            self._look()
        if not self._waiting and self._settings.loop:
            self._seen.clear()
            self._look()
        if not self._waiting:
            return None
        name = self._waiting.pop()
        self._seen.add(name)
        return Frame(self._clock.stamp(), encoded=self._read(name), name=name)

    def _read(self, name: str) -> bytes:
        try:
            with (self._settings.source / name).open("rb") as file:
                data = file.read(_LARGEST + 1)
        except OSError as error:
            raise PictureError(NOTHING_THERE, f"{name}: {error.strerror}") from error
        if len(data) > _LARGEST:
            raise PictureError(TOO_LARGE, f"{name} has more than {_LARGEST} bytes")
        return data

    def remarks(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        """Nothing is held; what was seen stays seen."""
