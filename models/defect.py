"""The task ``defect``: one picture in, good or defect out, by a network that classifies pictures.

The score is the share that the network gives to all classes that are not good; from the threshold on it is a
defect. A network with one output that rises with the suspicion (``sigmoid``) needs no labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge_agent.errors import BundleError, ModelError
from edge_agent.settings import Section
from edge_agent.vocabulary import DEFECT, GOOD, Judgement
from models.card import Card, ModelFile, Outputs, PictureInput
from models.preprocess import Preprocess
from models.session import Session, Tensor

if TYPE_CHECKING:
    import numpy.typing as npt

_TOLERANCE = 0.02  # an int8 softmax does not add up to exactly 1


class NoParameters(Section):
    """Everything stands in the card already."""


class PictureJudge:
    """See :class:`models.task.TaskJudge`. It remembers nothing."""

    Parameters = NoParameters

    def __init__(self, card: Card, file: ModelFile, parameters: NoParameters, session: Session) -> None:
        del parameters
        if not isinstance(card.input, PictureInput) or card.outputs is None or card.threshold is None:
            raise BundleError("a card for defects needs an input of the kind picture, outputs and a threshold")
        if len(session.inputs) != 1:
            raise BundleError(f"{file.name} has {len(session.inputs)} inputs; one picture is one input")
        self._outputs = card.outputs
        self._output = _output(card.outputs, file, session)
        self._is_good = np.array([label in card.outputs.good for label in card.outputs.labels], bool)
        self._input = session.inputs[0].name
        self._preprocess = Preprocess(card.input, file, session.inputs[0])
        self._threshold = card.threshold.value
        self._session = session

    def judge(self, given: Any) -> Judgement:
        numbers = self._session.run({self._input: self._preprocess(given)})[self._output].reshape(-1)
        shares = _shares(self._outputs, numbers)
        if len(shares) == 1:
            return self._judgement(float(shares[0]), {})
        name = self._outputs.labels[int(shares.argmax())]
        return self._judgement(float(shares[~self._is_good].sum()), {"class": name})

    def _judgement(self, score: float, details: dict[str, object]) -> Judgement:
        score = round(score, 4)  # before it is compared: a verdict must not contradict itself
        return Judgement(DEFECT if score >= self._threshold else GOOD, score, self._threshold, details)


def _output(outputs: Outputs, file: ModelFile, session: Session) -> str:
    """The name of the output to read; raises BundleError where there is no such, or of another size."""
    known: dict[str, Tensor] = {tensor.name: tensor for tensor in session.outputs}
    name = outputs.name or session.outputs[0].name
    if name not in known:
        raise BundleError(f"{file.name} has no output {name!r}; it has {', '.join(known)}")
    count = int(np.prod(known[name].shape))
    if count == 1 and outputs.activation != "softmax":
        return name
    if count != len(outputs.labels) or count < 2:
        raise BundleError(f"{file.name}: the output {name!r} has {count} numbers for {len(outputs.labels)} labels")
    if not outputs.good or len(outputs.good) == count:
        raise BundleError("the card must say which of its labels are good, and which are not")
    return name


def _shares(outputs: Outputs, numbers: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    numbers = numbers.astype(np.float64)
    if outputs.activation == "softmax":
        powers = np.exp(numbers - numbers.max())
        shares: npt.NDArray[np.float64] = powers / powers.sum()
        return shares
    if outputs.activation == "sigmoid":
        numbers = 0.5 + 0.5 * np.tanh(0.5 * numbers)
    if numbers.min() < -_TOLERANCE or numbers.max() > 1 + _TOLERANCE:
        raise ModelError("the model's output is no share from 0 to 1", hint="does the card name the right activation?")
    return numbers
