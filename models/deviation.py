"""How far each quantity is from where it should be, carried from one moment to the next.

For every quantity and every scale (a pair of time constants):

    fast   exponential mean over a few samples: the noise goes, the change stays; a single reading pulls it by no more
           than its ``reach``, unless others after it say the same
    slow   the baseline: an exponential mean of ``fast``, which learns only while the quantity is not suspect
    long   the same, ten times as slow: what was normal before the recent past
    own    = fast − slow: against its own recent past
    rest   = own − what the own deviations of the other quantities explain: against the others

Both count as the smaller of their deviations from ``slow`` and from ``long``: a quantity that comes back to where it
has been for long is not off, though its recent past was elsewhere.

A load that rises raises power and current together: ``own`` sees that, ``rest`` does not. Each is divided by its
limit, the deviation that calibration says is too much, so that 1 is the limit for all of them; above 1 it is
written as 1 + ln, so that eight bits hold both the limit and large deviations. The subtraction of correlated
quantities is done here in floating point: in eight bits its result would be mostly rounding.

Nothing looks ahead: a row depends on readings up to its own moment only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]
    Mask = npt.NDArray[np.bool_]

OWN: Final = 0
REST: Final = 1
MEMORY: Final = 10.0  # long is so many times as slow as slow
_SETTLED: Final = 0.75  # of what a fast mean is made of must be readings that came
_YOUNG: Final = 2.0  # fast time constants: a mean that takes everything as it comes
_NEARLY_ALWAYS: Final = 0.95
_MEANS: Final = ("fast", "slow", "long")
LARGEST: Final = 1.0 + log(8.0)  # a row is cut here: eight times the limit


class Holding:
    """Readings of different rates, as a row per moment: the last value of each, unless it is too old.

    ``hold_s``: per quantity, how old its last value may be.
    """

    def __init__(self, hold_s: Sequence[float]) -> None:
        self._hold_s = np.asarray(hold_s, float)
        self._values = np.full(len(hold_s), np.nan)
        self._taken_s = np.full(len(hold_s), -np.inf)

    def see(self, index: int, value: float, at_s: float) -> None:
        """A reading came. NaN: it came and had no value, so the last one is not believed any more either."""
        if at_s >= self._taken_s[index]:  # one that was overtaken tells nothing of now
            self._values[index] = value
            self._taken_s[index] = at_s

    def memory(self) -> dict[str, Any]:
        """As plain numbers, None where there is none; ``recall`` takes it back."""
        return {"values": _plain(self._values), "taken_s": _plain(self._taken_s)}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Raises ValueError, KeyError or TypeError for what does not fit, and then nothing has changed."""
        values, taken_s = _array(memory["values"], self._values), _array(memory["taken_s"], self._taken_s)
        self._values, self._taken_s = values, np.where(np.isfinite(taken_s), taken_s, -np.inf)

    def at(self, now_s: float) -> Array:
        """Shape (Q,): the value of each quantity now, NaN where there is none."""
        row: Array = np.where(now_s - self._taken_s <= self._hold_s, self._values, np.nan)
        return row


class Deviations:
    """The state described above. K scales, Q quantities; ``fast_s``, ``slow_s``: time constants of each scale.

    ``reach``: shape (K, Q); how far from its mean a single reading may pull, 0 or None: however far it is.
    """

    def __init__(
        self, count: int, fast_s: Sequence[float], slow_s: Sequence[float], reach: npt.ArrayLike | None = None
    ) -> None:
        self._fast_s = np.asarray(fast_s, float)[:, None]
        self._slow_s = np.asarray(slow_s, float)[:, None]
        shape = (len(fast_s), count)
        given = np.zeros(shape) if reach is None else np.asarray(reach, float)
        self._reach = np.where(given > 0, given, np.inf)
        self.fast = np.zeros(shape)
        self.slow = np.zeros(shape)
        self.long = np.zeros(shape)
        self.surprise = np.zeros(shape)  # how far the last value was from ``fast``
        self._beyond_s = np.zeros(shape)  # for how long it has been out of reach
        self.seen_s = np.zeros(shape)  # for how long its baseline has been forming
        self._coverage = np.zeros(shape)  # in which share of the time that the baseline remembers it was there
        self._present_s = np.full(count, -np.inf)
        self._last_s: float | None = None
        self._there = np.zeros(shape)  # in which share of the time that ``fast`` remembers it was there
        self._elapsed_s = np.zeros(count)  # since it was last there: the value stands for all of that time
        self._present = np.zeros(count, bool)

    def advance(self, values: Array, now_s: float) -> Array:
        """Take the values of this moment (shape (Q,), NaN: absent); returns ``own``, shape (K, Q), NaN where unknown.

        Unknown: absent now, or its baseline has not formed yet.
        """
        step_s = max(now_s - self._last_s, 0.0) if self._last_s is not None else 0.0
        away_s = now_s - self._present_s
        self._last_s = now_s
        self._present = np.isfinite(values)
        anew = self._present & ~(away_s <= self._slow_s)  # away for longer than the baseline reaches
        self._elapsed_s = np.where(self._present & np.isfinite(away_s), np.maximum(away_s, 0.0), 0.0)
        value = np.where(self._present, values, 0.0)
        for name in _MEANS:
            setattr(self, name, np.where(anew, value, getattr(self, name)))
        self.seen_s = np.where(anew, 0.0, self.seen_s + np.where(self._present, step_s, 0.0))
        there = 1.0 - np.exp(-step_s / self._slow_s)
        self._coverage = np.where(anew, 0.0, self._coverage + there * (self._present - self._coverage))
        self._present_s = np.where(self._present, now_s, self._present_s)
        self._there = self._there + (1.0 - np.exp(-step_s / self._fast_s)) * (self._present - self._there)
        self.fast = self.fast + self._gain(self._fast_s) * self._within_reach(value)
        return np.where(
            self._present & (self._there >= _SETTLED) & (self.seen_s >= self._slow_s), self.fast - self.slow, np.nan
        )

    def _within_reach(self, value: Array) -> Array:
        self.surprise = np.where(self._present, value - self.fast, 0.0)
        far = np.abs(self.surprise) > self._reach
        self._beyond_s = np.where(far, self._beyond_s + self._elapsed_s, 0.0)
        believed = (self._beyond_s > self._fast_s) | (self.seen_s < _YOUNG * self._fast_s)
        reach = np.where(believed, np.inf, self._reach)
        near: Array = np.clip(self.surprise, -reach, reach)
        return near

    @property
    def away(self) -> Array:
        """Shape (K, Q): how far each is from where it has been for long. It is known wherever ``own`` is."""
        return self.fast - self.long

    @property
    def whole(self) -> Mask:
        """Shape (K, Q): which have nearly all of their past, so that they can be held against each other."""
        whole: Mask = self._coverage >= _NEARLY_ALWAYS
        return whole

    def learn(self, may: Mask | bool = True) -> None:
        """Let the baselines follow, once per ``advance``. ``may``, shape (Q,): which ones, the unsuspected."""
        forming = self.seen_s < self._slow_s
        follow = np.where(may | forming, self._gain(self._slow_s), 0.0)
        self.slow = self.slow + follow * (self.fast - self.slow)
        follow = np.where(may | forming, self._gain(MEMORY * self._slow_s), 0.0)
        self.long = self.long + follow * (self.fast - self.long)

    def accept(self) -> None:
        """What is now is normal: the baselines go there at once."""
        self.slow = self.fast.copy()
        self.long = self.fast.copy()

    def _gain(self, constant_s: Array) -> Array:
        # While it is young a mean is a plain mean: its first value must not weigh for a whole time constant.
        young = self._elapsed_s / np.maximum(self.seen_s, 1e-9)
        gain: Array = np.maximum(1.0 - np.exp(-self._elapsed_s / constant_s), np.minimum(young, 1.0))
        return np.where(self._present, gain, 0.0)

    def snapshot(self) -> dict[str, Any]:
        """The state as plain lists, for the card; ``restore`` takes it back."""
        return {name: getattr(self, name).tolist() for name in (*_MEANS, "seen_s")}

    def memory(self) -> dict[str, Any]:
        """All of it, to go on from exactly here; None for what never was. ``recall`` takes it back."""
        per_scale = (self.fast, self.slow, self.long, self.seen_s, self._coverage, self._beyond_s, self._there)
        arrays = (*per_scale, self._present_s)
        return {"arrays": [_plain(array) for array in arrays], "last_s": self._last_s}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Raises ValueError, KeyError or TypeError for what does not fit, and then nothing has changed."""
        like = (*[self.fast] * 7, self._present_s)
        *known, present_s = (_array(each, form) for each, form in zip(memory["arrays"], like, strict=True))
        last_s = None if memory["last_s"] is None else float(memory["last_s"])
        if not all(np.isfinite(each).all() for each in known):
            raise ValueError("a mean is no number")
        self.fast, self.slow, self.long, self.seen_s, self._coverage, self._beyond_s, self._there = known
        self._present_s = np.where(np.isfinite(present_s), present_s, -np.inf)
        self._last_s = last_s

    def restore(self, state: dict[str, Any], now_s: float) -> None:
        """Go on as if the last ``advance`` had been at ``now_s``."""
        for name in (*_MEANS, "seen_s"):
            array = np.asarray(state[name], float)
            if array.shape != self.fast.shape or not np.isfinite(array).all():
                raise ValueError(f"{name} has the shape {array.shape}, not {self.fast.shape}")
            setattr(self, name, array)
        self._present_s[:] = now_s
        self._there[:] = 1.0
        self._coverage[:] = 1.0
        self._last_s = now_s


def _plain(array: Array) -> list[Any]:
    plain: list[Any] = np.where(np.isfinite(array), array.astype(object), np.array(None)).tolist()
    return plain


def _array(plain: Any, like: Array) -> Array:
    """Undoes ``_plain``, NaN for None. Raises ValueError or TypeError."""
    array = np.array(plain, float)
    if array.shape != like.shape:
        raise ValueError(f"shape {array.shape}, not {like.shape}")
    return array


def rest(own: Array, explained: Array, whole: Mask | bool = True) -> Array:
    """``own`` less what the others explain, shape (K, Q); NaN where any that is needed is unknown or not ``whole``.

    ``explained``, shape (K, Q, Q): row q has the weights of the others; all zero: nothing explains q.
    """
    known = np.isfinite(own) & whole
    missing = (explained != 0) & ~known[:, None, :]
    blind = missing.any(axis=2) | ~known
    others = np.einsum("kij,kj->ki", explained, np.where(known, own, 0.0))
    return np.where(blind, np.nan, own - others)


def rows(
    own: Array, explained: Array, limits: Array, whole: Mask | bool = True, away: Array | None = None
) -> npt.NDArray[np.float32]:
    """The numbers that the network gets: shape (K · 2 · Q,), scale by scale, own before rest.

    ``limits``, shape (K, 2, Q): 0 leaves a row out. What is left out or unknown is 0: it says nothing.
    ``away``: as of :class:`Deviations`; None: only the recent past counts.
    """
    both = _both(own, explained, whole)
    if away is not None:
        both = _smaller(both, _both(np.where(np.isfinite(own), away, np.nan), explained, whole))
    share = np.where((limits > 0) & np.isfinite(both), both, 0.0) / np.where(limits > 0, limits, 1.0)
    size = np.abs(share)
    written = np.where(size > 1.0, 1.0 + np.log(np.maximum(size, 1.0)), size)
    return (np.sign(share) * np.minimum(written, LARGEST)).astype(np.float32).ravel()


def _both(own: Array, explained: Array, whole: Mask | bool) -> Array:
    return np.stack([own, rest(own, explained, whole)], axis=1)


def _smaller(one: Array, other: Array) -> Array:
    """The smaller of two deviations of one quantity; none where it is above the one and below the other."""
    smaller: Array = np.where(one * other > 0, np.sign(one) * np.minimum(np.abs(one), np.abs(other)), 0.0)
    return smaller
