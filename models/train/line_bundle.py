"""From a fit to a signed bundle: networks in fp32 and int8, their parity, golden decisions, card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from edge_agent.errors import ModelError
from models import bundle, golden, judge, session
from models.bundle import Bundle
from models.line import LineJudge
from models.train.alignment import Aligned
from models.train.graphs import baseline, line_graph
from models.train.line import Fit
from models.train.line_tflite import line_tflite

if TYPE_CHECKING:
    import numpy.typing as npt
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

THRESHOLD: Final = 1.0  # rows are shares of their limits
_GOLDEN_CALM: Final = 150  # rows of the end of the calibration …
_GOLDEN_OFF: Final = 50  # … and after them as many that nobody could call normal
_OFF: Final = 20.0  # spreads
_PARITY: Final = 0.995


class Made(NamedTuple):
    """The signed files of a bundle. ``agreement``: share of rows that all variants decide alike; None: only one."""

    bundle: Bundle
    files: dict[str, bytes]
    agreement: float | None


LINE: Final = "line"
DETECTORS: Final = (LINE, "isolation-forest", "lof")


def make(
    fit: Fit,
    data: Aligned,
    name: str,
    version: int,
    key: Ed25519PrivateKey,
    *,
    source: str,
    false_alarms: str,
    detector: str = LINE,
) -> Made:
    """The bundle of a fit. ``source``: where the rows came from. Raises ModelError where int8 decides otherwise.

    ``detector``: one of ``DETECTORS``; the others than ``line`` are there to be compared with, in fp32 only.
    """
    threshold = THRESHOLD
    if detector == LINE:
        networks = _networks(fit, name)
    else:
        network, threshold = baseline(detector, fit.rows)
        networks = {f"{name}-fp32.onnx": network}
    card = _card(fit, data, name, version, source, false_alarms, threshold, networks)
    drafted = bundle.draft(card, networks)
    agreement = parity(drafted, fit.rows) if detector == LINE else None
    if agreement is not None and agreement < _PARITY:
        raise ModelError(f"{', '.join(networks)} agree in {agreement:.2%} of the rows only")
    card["metrics"] |= {} if agreement is None else {"int8_agrees": round(agreement, 5)}
    drafted = bundle.draft(card, networks)
    inputs, times = _samples(data)
    recorded = golden.record(judge.build(drafted), drafted.card, inputs, times)
    return Made(drafted, bundle.complete(drafted, recorded, key), agreement)


def parity(drafted: Bundle, rows: npt.NDArray[np.float32]) -> float:
    """Share of the rows, and of the same rows blown up until they are off, that all variants decide alike."""
    sessions = [judge.open_session(drafted, file) for file in drafted.card.files]
    given = np.concatenate([rows, rows * (1.5 / max(float(np.abs(rows).max()), 1e-9))])
    same = 0
    for row in given:
        decided = {bool(each.run({"rows": row[None]})["score"].reshape(-1)[0] >= THRESHOLD) for each in sessions}
        same += len(decided) == 1
    return same / len(given)


def _networks(fit: Fit, name: str) -> dict[str, bytes]:
    """File → bytes; in TFLite too, where its runtime is here to say whether both decide alike."""
    size = len(fit.quantities), len(fit.parameters["fast_s"])
    networks = {}
    for precision in ("int8", "fp32"):
        networks[f"{name}-{precision}.onnx"] = line_graph(*size, precision)
        if session.is_installed("tflite"):
            networks[f"{name}-{precision}.tflite"] = line_tflite(*size, precision)
    return networks


def _card(
    fit: Fit,
    data: Aligned,
    name: str,
    version: int,
    source: str,
    false_alarms: str,
    threshold: float,
    networks: Iterable[str],
) -> dict[str, Any]:
    confirmed = fit.report["confirmed_at_most_per_day_95"]
    return {
        "name": name,
        "version": version,
        "task": "anomaly",
        "description": f"Is the line as it was during {fit.report['minutes']:g} minutes of normal running?",
        "made": f"calibrate line, {source}"[:100],
        "input": {"kind": "rows", "quantities": list(fit.quantities), "every": f"{fit.every_s:g}s"},
        "threshold": {
            "value": threshold,
            "set_for": f"false alarms {false_alarms}; confirmed: at most {confirmed:g}/day",
            "samples": len(fit.rows),
            "confidence": 0.95,
        },
        "parameters": fit.parameters,
        "files": [
            {"name": each, "format": each.rpartition(".")[2], "precision": "int8" if "-int8." in each else "fp32"}
            for each in networks
        ],
        "data": [{"name": source, "licence": "own"}],
        "metrics": {**_plain(fit.report), LineJudge.UNTIL: float(data.times_s[-1])},
    }


def _plain(report: Mapping[str, float | str]) -> dict[str, float | str]:
    return {key: float(value) if not isinstance(value, str) else value for key, value in report.items()}


def _samples(data: Aligned) -> tuple[npt.NDArray[np.float64], list[float]]:
    """The end of the calibration as it was, then every quantity far off."""
    calm = data.values[-_GOLDEN_CALM:]
    with np.errstate(invalid="ignore", over="ignore"):
        spread = np.nanstd(data.values, axis=0)
    off = np.repeat(np.where(np.isnan(calm[-1:]), np.nanmedian(data.values, axis=0), calm[-1:]), _GOLDEN_OFF, axis=0)
    inputs = np.concatenate([calm, off + _OFF * np.where((spread > 0) & np.isfinite(spread), spread, 1.0)])
    return inputs, [float(index * data.every_s) for index in range(len(inputs))]
