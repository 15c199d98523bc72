"""What a task is to the machinery: a class that turns what comes in, through a session, into a judgement.

Each task of a card has one such class, named in :data:`models.judge.TASKS`. It knows nothing of files, signatures
or runtimes; the machinery knows nothing of pictures or machines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from edge_agent.settings import Section
from edge_agent.vocabulary import Judgement
from models.card import Card, ModelFile
from models.session import Session


class Row(NamedTuple):
    """Readings at one instant. ``time_s``: seconds on any clock that does not step; what is absent is not there."""

    time_s: float
    values: Mapping[str, float]


class TaskJudge(Protocol):
    """One life of a judge: it may remember what it saw. Called from one thread only."""

    Parameters: type[Section]
    """What ``parameters`` of the card may say for this task."""

    def __init__(self, card: Card, file: ModelFile, parameters: Any, session: Session) -> None:
        """Raises BundleError where card, parameters and the session's tensors do not fit together. No I/O.

        ``file``: the variant that the session runs. ``parameters``: a checked ``Parameters``.
        """
        ...

    def judge(self, given: Any) -> Judgement:
        """Decide about what the card's input says: a picture (``Frame.image``), or the next :class:`Row`.

        Label ``unknown``: it has not seen enough yet, which is no fault; the score then means nothing. Raises
        ModelError where it cannot decide; whoever asks then asks somebody else. Never a NaN.
        """
        ...

    def memory(self) -> Mapping[str, Any] | None:
        """What it learnt from what it saw, fit for JSON, so that another life can go on from here; None: nothing."""
        ...

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on from there; before the first judgement. Raises ValueError, KeyError or TypeError: it does not fit."""
        ...


class Decider(Protocol):
    """Who can be asked, and stands behind the answer: a loaded model or a named rule."""

    @property
    def decided_by(self) -> str:
        """With its version: ``pitting@3/int8-onnx``, ``rule/dark-spot@1``."""
        ...

    @property
    def model_sha256(self) -> str | None: ...

    def judge(self, given: Any) -> Judgement:
        """As :meth:`TaskJudge.judge`."""
        ...
