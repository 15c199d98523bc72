"""What an eye says of one picture: decode it, see whether it may be judged, ask every model, say what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from drivers import opencv
from drivers.pictures import Gate
from edge_agent.camera_settings import CameraSection
from edge_agent.clock import NS, Clock, Stamp, iso
from edge_agent.contracts import Frame
from edge_agent.deciding import Deciding
from edge_agent.errors import PictureError
from edge_agent.evidence import Job, Keeper
from edge_agent.eye_link import Trial
from edge_agent.triggers import Motion, Occasion
from edge_agent.vocabulary import ANOMALY, DEFECT, FROZEN, GOOD, NOT_INSPECTED, UNKNOWN, Verdict

Looked = tuple[Verdict, list[Job]]
Tell = Callable[..., None]
"""Sends a message to the agent."""

_GRAVEST: Final = {DEFECT: 0, GOOD: 2}  # everything else is between them


class Eye:
    """Looks at the pictures of one camera, in their order."""

    def __init__(
        self, name: str, settings: CameraSection, models: list[Deciding], keeper: Keeper, clock: Clock, tell: Tell
    ) -> None:
        self.settings = settings
        self.clock = clock
        self._name = name
        self._models = models
        self._keeper = keeper
        self._tell = tell
        self._gate = Gate(settings.picture, settings.size, settings.roi)
        self._motion = Motion(settings.trigger) if settings.trigger.kind == "motion" else None
        self._blind: tuple[str | None, int] = (None, 0)  # why nothing moved that could be seen, when that was said (ns)
        self._frozen_since_ns: int | None = None

    def look(self, occasion: Occasion) -> Looked | None:
        """The verdict about one picture, and what to keep as evidence for it; None: there is nothing to judge now."""
        shot, part = occasion
        details: dict[str, object] = {"part": iso(part.wall_ms)} if part is not None else {}
        if isinstance(shot, PictureError):
            return self._refused(shot.reason, str(shot), self.clock.stamp(), details)
        details |= {"file": shot.name} if shot.name else {}
        try:
            image = (
                shot.image if shot.encoded is None else opencv.decode(shot.encoded, self.settings.picture.max_pixels)
            )
        except PictureError as error:
            return self._refused(error.reason, str(error), shot.at, details)
        reason = self._gate.refuse(image)
        self._notice_frozen(reason)
        if reason is not None:
            refused = self._refused(reason, "", shot.at, details)
            return (refused[0], self._plan(shot, image, refused[0])) if refused else None
        if self._motion is not None and not self._is_new(shot.at, details):
            return None
        verdict = self._decide(shot, image, details)
        return verdict, self._plan(shot, image, verdict)

    def _is_new(self, at: Stamp, details: dict[str, object]) -> bool:
        """Whether what moved is still now; the agent knows of the part before anything can go wrong with it."""
        self._blind = (None, 0)
        grey = self._gate.grey
        if self._motion is None or grey is None or not self._motion.step(grey, self.clock.mono_ns()):
            return False
        details["part"] = iso(at.wall_ms)
        self._tell("part", at=list(at))
        return True

    def _plan(self, shot: Frame, image: Any, verdict: Verdict) -> list[Job]:
        verdict.latency_ms = round((self.clock.mono_ns() - shot.at.mono_ns) / 1e6, 2)
        wide, high, left, top = self.settings.roi or (*image.shape[1::-1], 0, 0)
        heat: Any = verdict.details.pop("heat", ())  # for the eye, and too much for the broker
        return self._keeper.plan(shot, image, verdict, (left, top, wide, high), heat)

    def _decide(self, shot: Frame, image: Any, details: dict[str, object]) -> Verdict:
        region = self._gate.region(image)
        verdicts = {model.model: model.decide(region, shot.at) for model in self._models}
        # Of several models, the one that has something against it speaks; never "good" while one does not know.
        verdict = min(verdicts.values(), key=lambda each: _GRAVEST.get(each.label, 1))
        if len(verdicts) > 1:
            details["models"] = {
                name: {"label": each.label, "score": each.score, "decided_by": each.decided_by}
                for name, each in verdicts.items()
            }
        if why := doubt(list(verdicts.values()), self.settings.evidence.uncertain.margin):
            details["uncertain"] = why
        verdict.details = {**details, **verdict.details}
        return verdict

    def obey(self, message: Mapping[str, Any]) -> None:
        """A candidate is to be tried, or none any more."""
        for model in self._models:
            if message["say"] == "candidate" and message["model"] == model.model:
                self._tell("opening")
                model.try_beside(message["candidate"], message["judgements"])

    def trials(self) -> Iterator[Trial]:
        """What became of candidates, once."""
        for model in self._models:
            if model.trial is not None:
                yield model.trial
                model.trial = None

    def _refused(self, reason: str, why: str, at: Stamp, details: dict[str, object]) -> Looked | None:
        """Not inspected. Who waits for motion and sees nothing says so at once, and again after each deadline."""
        if self._motion is not None:
            said, said_ns = self._blind
            if said == reason and at.mono_ns - said_ns <= self.settings.deadline * NS:
                return None
            self._blind = (reason, at.mono_ns)
        details |= {"why": why} if why else {}
        return Verdict(self._name, at, NOT_INSPECTED, "gate", reason=reason, details=details), []

    def _notice_frozen(self, reason: str | None) -> None:
        now_ns = self.clock.mono_ns()
        self._frozen_since_ns = (self._frozen_since_ns or now_ns) if reason == FROZEN else None

    def is_stuck(self) -> bool:
        """The same picture for longer than the deadline: opening the camera again may help."""
        since_ns = self._frozen_since_ns
        stuck = since_ns is not None and self.clock.mono_ns() - since_ns > self.settings.deadline * NS
        if stuck:
            self._frozen_since_ns = None
        return stuck


def doubt(verdicts: list[Verdict], margin: float) -> str | None:
    """Why a person should look at it: the models disagree, or one was near its threshold; None: nothing of that."""
    if margin == 0:
        return None
    sides = {verdict.label in (DEFECT, ANOMALY) for verdict in verdicts if verdict.label in (GOOD, DEFECT, ANOMALY)}
    if len(sides) > 1:
        return "models-disagree"
    near = (
        abs(verdict.score - verdict.threshold) <= margin * abs(verdict.threshold)
        for verdict in verdicts
        if verdict.label not in (NOT_INSPECTED, UNKNOWN) and verdict.score is not None and verdict.threshold is not None
    )
    return "near-threshold" if any(near) else None
