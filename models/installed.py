"""A bundle of this machine as a judge that a process can be told to ask: ``kind: model`` of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from edge_agent.errors import BundleError
from edge_agent.settings import Section
from edge_agent.vocabulary import Judgement
from models.card import Card, RowsInput
from models.releases import SHIPPED, home, version


class InstalledSection(Section):
    """Which bundle: not written by people, but by who looked what is in use."""

    kind: str = Field(default="model", description="What it is.")
    name: str = Field(description="The bundle.")
    release: str | None = Field(default=None, description="Its installed release; without one, what the product ships.")
    state_dir: Path = Field(description="The state folder.")
    judges: Literal["picture", "rows"] = Field(default="picture", description="What it is given.")
    measured: str = Field(default="", description="When this board last measured it.")
    wrong: str = Field(default="", description="Why nobody knows which release is in use.")


class InstalledModel:
    """Verified, measured, loaded and shown to decide as it should when it is opened."""

    Settings = InstalledSection

    def __init__(self, settings: InstalledSection) -> None:
        self._settings = settings
        self._judge: Any = None

    @property
    def decided_by(self) -> str:
        if self._judge is not None:
            return str(self._judge.decided_by)
        which = self._settings.release
        return f"{self._settings.name}@{version(which)}" if which else self._settings.name

    @property
    def model_sha256(self) -> str | None:
        return self._judge.model_sha256 if self._judge is not None else None

    @property
    def card(self) -> Card:
        """Of the open model."""
        card: Card = self._judge.card
        return card

    @property
    def period_s(self) -> float | None:
        """How often a model of rows wants one."""
        wanted = self.card.input
        return wanted.every if isinstance(wanted, RowsInput) else None

    @property
    def quantities(self) -> tuple[str, ...]:
        """What a model of rows wants to know."""
        wanted = self.card.input
        return wanted.quantities if isinstance(wanted, RowsInput) else ()

    def open(self) -> None:
        """Raises BundleError and ModelError."""
        from models import bundle, judge, keys  # noqa: PLC0415 - signatures and runtimes, only for who decides
        from models.choice import chosen  # noqa: PLC0415 - as above

        settings = self._settings
        if settings.wrong:
            raise BundleError(settings.wrong)
        path = self._path()
        if not path.is_dir():
            does = "edge-agent calibrate line" if settings.judges == "rows" else "edge-agent models install"
            raise BundleError(f"no bundle {settings.name!r} is installed", hint=does)
        found = bundle.load(path, keys.trusted(settings.state_dir))
        if found.card.name != settings.name:
            raise BundleError(f"{path} holds another bundle: {found.card.name}")
        if found.card.input.kind != settings.judges:
            what = {"picture": "pictures", "rows": "readings"}
            raise BundleError(f"{settings.name} judges {what[found.card.input.kind]}, not {what[settings.judges]}")
        choice = chosen(settings.state_dir, found)
        self._judge = judge.load(found, choice.variant, choice.threads)

    def judge(self, given: Any) -> Judgement:
        said: Judgement = self._judge.judge(given)
        return said

    def memory(self) -> Mapping[str, Any] | None:
        """What the open model learnt."""
        memory: Mapping[str, Any] | None = self._judge.memory()
        return memory

    def recall(self, memory: Mapping[str, Any]) -> None:
        """As :meth:`models.task.TaskJudge.recall`."""
        self._judge.recall(memory)

    def _path(self) -> Path:
        settings = self._settings
        if settings.release is None:
            return SHIPPED / settings.name
        return home(settings.state_dir, settings.name) / settings.release
