"""``golden.npz``: inputs with the decisions that they must lead to, so that a model shows on this board what it can.

Decisions are compared, not numbers: two runtimes may differ in the last steps of an int8 output and both be right.

==============  =========================  ====================================================================
``inputs``      n x …                      pictures (uint8, n x height x width x 3, BGR), or rows (float, n x quantities
                                           in the card's order, NaN: absent)
``times``       n, float64                 seconds; rows only
``labels``      n, text                    what must be decided; empty: any (too close to call)
==============  =========================  ====================================================================
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from edge_agent.errors import BundleError, ModelError
from edge_agent.vocabulary import UNKNOWN
from models.archive import unzip
from models.card import Card, RowsInput
from models.task import Decider, Row

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

LARGEST_BYTES: Final = 64 << 20
MOST_CASES: Final = 10_000
CLOSE: Final = 0.05
"""How near to the threshold, as a share of it, a score is too close to call."""

_MAGIC: Final = b"\x93NUMPY"
_HEADER: Final = re.compile(
    rb"\{'descr': '([<|][a-zA-Z]\d{1,5})', 'fortran_order': False, 'shape': \(((?:\d{1,9}, ?)*\d{0,9},?)\), \} *\n"
)
_TYPES: Final = re.compile(r"\|u1|<f4|<f8|<U(?:\d|[1-5]\d|6[0-4])")


class Golden(NamedTuple):
    """See the head of this file; ``times`` is None for pictures."""

    inputs: Array
    times: Array | None
    labels: Array


def read(data: bytes) -> Golden:
    """Raises BundleError. No pickles, no sizes that are not there, never more than ``LARGEST_BYTES``."""
    arrays = {name.removesuffix(".npy"): _array(name, content) for name, content in unzip(data, LARGEST_BYTES).items()}
    strange = sorted(set(arrays) - {"inputs", "times", "labels"})
    if strange or not {"inputs", "labels"} <= set(arrays):
        raise BundleError(
            f"golden.npz must have inputs and labels, and times for rows, not {', '.join(sorted(arrays))}"
        )
    golden = Golden(arrays["inputs"], arrays.get("times"), arrays["labels"])
    count = len(golden.labels) if golden.labels.ndim else 0
    fits = all(array.ndim and len(array) == count for array in arrays.values())
    if not fits or not 0 < count <= MOST_CASES or golden.labels.ndim != 1 or golden.labels.dtype.kind != "U":
        raise BundleError(f"golden.npz needs the same number of inputs and labels, from 1 to {MOST_CASES}")
    if not (golden.labels != "").any():
        raise BundleError("golden.npz demands no decision at all")
    return golden


def _array(name: str, data: bytes) -> Array:
    """One ``.npy``, format 1.0 as NumPy writes it."""
    if data[:8] != _MAGIC + b"\1\0" or len(data) < 10:
        raise BundleError(f"golden.npz: {name} is no array")
    start = 10 + int.from_bytes(data[8:10], "little")
    header = _HEADER.fullmatch(data[10:start])
    if header is None or not _TYPES.fullmatch(header[1].decode()):
        raise BundleError(f"golden.npz: {name} has a type or header that is not allowed")
    dtype = np.dtype(header[1].decode())
    shape = tuple(int(size) for size in header[2].decode().split(",") if size.strip())
    if dtype.itemsize == 0 or prod(shape) * dtype.itemsize != len(data) - start:
        raise BundleError(f"golden.npz: {name} has another size than it says")
    try:
        array: Array = np.frombuffer(data, dtype, offset=start).reshape(shape)
        if dtype.kind == "U":
            array.astype(str).tolist()  # code points that are none
    except (ValueError, UnicodeError) as error:
        raise BundleError(f"golden.npz: {name} is no array: {error}") from error
    return array


def check(judge: Decider, card: Card, golden: Golden) -> None:
    """Let the judge, which has seen nothing yet, decide about all of them; raises ModelError for the first mistake."""
    for number, (given, expected) in enumerate(
        zip(cases(card, golden.inputs, golden.times), golden.labels, strict=True)
    ):
        said = judge.judge(given)
        if expected and said.label != expected:
            raise ModelError(
                f"{judge.decided_by} decides wrongly: golden sample {number + 1} of {len(golden.labels)}"
                f" is {expected}, it says {said.label} (score {said.score:.4g})",
                hint="the model or this board's runtime is not what the bundle was made with",
            )


def agreement(judge: Decider, card: Card, golden: Golden) -> float:
    """Share of the samples that demand a decision and get it from a judge that has seen nothing yet."""
    given = cases(card, golden.inputs, golden.times)
    said = [judge.judge(each).label for each in given]  # all of them: rows belong together
    demanded = [(label, expected) for label, expected in zip(said, golden.labels, strict=True) if expected]
    return sum(bool(label == expected) for label, expected in demanded) / len(demanded)


def record(judge: Decider, card: Card, inputs: Array, times: Sequence[float] | None = None) -> bytes:
    """Make ``golden.npz`` of what a judge, which has seen nothing yet, decides about these inputs.

    ``inputs``, ``times``: as in the head of this file. Scores that are too close to call demand nothing.
    """
    labels = []
    for given in cases(card, inputs, times):
        said = judge.judge(given)
        clear = said.label == UNKNOWN or abs(said.score - said.threshold) > CLOSE * abs(said.threshold)
        labels.append(said.label if clear else "")
    arrays: dict[str, Any] = {"inputs": inputs, "labels": np.array(labels, dtype="<U16")}
    if times is not None:
        arrays["times"] = np.asarray(times, dtype="<f8")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    data = buffer.getvalue()
    read(data)
    return data


def cases(card: Card, inputs: Array, times: Sequence[float] | Array | None) -> Iterator[Any]:
    """What a judge of this card is given, one after the other; raises BundleError where the inputs do not fit it."""
    if isinstance(card.input, RowsInput):
        names = card.input.quantities
        if times is None or inputs.ndim != 2 or inputs.shape[1] != len(names) or inputs.dtype.kind != "f":
            raise BundleError(f"golden rows need times and {len(names)} columns, as the card's quantities")
        if not np.isfinite(np.asarray(times)).all() or np.isinf(inputs).any():
            raise BundleError("golden rows have a time or a reading that is no number")
        return (Row(float(at), _present(names, row)) for at, row in zip(times, inputs, strict=True))
    if times is not None or inputs.ndim != 4 or inputs.shape[3] != 3 or inputs.dtype != np.uint8 or 0 in inputs.shape:
        raise BundleError("golden pictures must be uint8, n x height x width x 3")
    return iter(inputs)


def _present(names: Sequence[str], row: Array) -> Mapping[str, float]:
    return {name: float(number) for name, number in zip(names, row, strict=True) if not np.isnan(number)}
