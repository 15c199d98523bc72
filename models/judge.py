"""From a verified bundle to somebody who may decide.

::

    Bundle ─▶ guard ─▶ session ─▶ task ─▶ golden decisions ─▶ Judge
              no external data    what the card says fits the model

The first time that this happens to a bundle it happens in a process of its own (:mod:`models.trial`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edge_agent import catalogue
from edge_agent.document import Document, validate
from edge_agent.errors import BundleError, ModelError
from edge_agent.vocabulary import Judgement
from models import golden, onnx_guard, session, tflite_guard
from models.bundle import Bundle
from models.card import CARD, Card, ModelFile
from models.session import Session
from models.task import TaskJudge

TASKS: Final = {
    "defect": "models.defect:PictureJudge",
    "anomaly": "models.line:LineJudge",
}
"""Task of a card → its :class:`models.task.TaskJudge`."""

_GUARDS: Final = {"onnx": onnx_guard.check, "tflite": tflite_guard.check}


class Judge:
    """A model that may decide; a :class:`models.task.Decider`. Called from one thread only."""

    def __init__(self, card: Card, file: ModelFile, kind: type[TaskJudge], parameters: Any, session: Session) -> None:
        self.card = card
        self.file = file
        self.session = session
        self._kind = kind
        self._parameters = parameters
        self._task = kind(card, file, parameters, session)

    @property
    def decided_by(self) -> str:
        return self.card.decided_by(self.file)

    @property
    def model_sha256(self) -> str | None:
        return self.file.sha256

    def judge(self, given: Any) -> Judgement:
        """As :meth:`models.task.TaskJudge.judge`."""
        return self._task.judge(given)

    def memory(self) -> Mapping[str, Any] | None:
        """As :meth:`models.task.TaskJudge.memory`."""
        return self._task.memory()

    def recall(self, memory: Mapping[str, Any]) -> None:
        """As :meth:`models.task.TaskJudge.recall`; what does not fit leaves nothing behind."""
        try:
            self._task.recall(memory)
        except (ValueError, KeyError, TypeError):
            self.forget()
            raise

    def forget(self) -> None:
        """As if nothing had been seen yet."""
        self._task = self._kind(self.card, self.file, self._parameters, self.session)


def load(bundle: Bundle, variant: str | None = None, threads: int = 1) -> Judge:
    """Whoever is returned has shown that it decides as it should. Raises BundleError and ModelError.

    ``variant``: ``int8-onnx``; None: the card's first whose runtime is installed.
    """
    judge = build(bundle, variant, threads)
    golden.check(judge, judge.card, golden.read(bundle.golden))
    judge.forget()
    return judge


def build(bundle: Bundle, variant: str | None = None, threads: int = 1) -> Judge:
    """The same without the golden decisions: for whoever records them."""
    card = bundle.card
    if card.task not in TASKS:
        raise BundleError(f"{card.name} is for the task {card.task!r}, which this version does not know")
    kind: type[TaskJudge] = catalogue.load(TASKS, card.task)
    document = Document(CARD, {"parameters": card.parameters})
    parameters = validate(document, kind.Parameters, ("parameters",))
    if parameters is None:
        raise BundleError("\n".join(str(problem) for problem in document.problems))
    usable = [file for file in card.files if session.is_installed(file.format)]
    file = usable[0] if variant is None and usable else card.file(variant)
    return Judge(card, file, kind, parameters, open_session(bundle, file, threads))


def open_session(bundle: Bundle, file: ModelFile, threads: int = 1) -> Session:
    """The guarded session of one variant, for whoever measures the bare model."""
    data = bundle.files[file.name]
    try:
        _GUARDS[file.format](data)
        return session.load(file.format, data, threads)
    except ModelError as error:  # neither knows the file's name
        raise type(error)(f"{file.name}: {error.args[0]}", hint=error.hint) from error
