"""Small line models, made here: a quantity is off when it leaves its own recent past by more than its limit."""

import numpy as np

from edge_agent.clock import ManualClock
from models import bundle, golden, judge, keys
from models.deviation import Deviations
from models.library import Library
from models.train.graphs import line_graph

ROWS = 60


def line_card(limits, *, version=1, name="line-normal", every="100ms", slow_s=0.5, **changes):
    """``limits``: quantity → the deviation that is too much."""
    count = len(limits)
    return {
        "name": name,
        "version": version,
        "task": "anomaly",
        "input": {"kind": "rows", "quantities": list(limits), "every": every},
        "threshold": {"value": 1.0, "set_for": "a test"},
        "parameters": {
            "hold_s": [2.0] * count,
            "fast_s": [0.15],
            "slow_s": [slow_s],
            "limits": [[list(limits.values()), [0.0] * count]],
            "explained": [np.zeros((count, count)).tolist()],
            "open_after_s": 0.3,
            "quiet_s": 0.3,
        },
        "files": [{"name": "int8.onnx", "format": "onnx", "precision": "int8"}],
        "data": [{"name": "none", "licence": "own"}],
        **changes,
    }


def calibrated(limits, levels, until_s, slow_s=60.0, **more):
    """What a card says besides, whose calibration ended at ``until_s`` with these levels: no warming up."""
    says = line_card(limits, slow_s=slow_s, **more)
    start = {name: [list(levels)] for name in Deviations(len(limits), [0.15], [slow_s]).snapshot()}
    start["seen_s"] = [[2 * slow_s] * len(limits)]
    return {"parameters": {**says["parameters"], "start": start}, "metrics": {"until_s": until_s}}


def line_files(limits, key, **how):
    """Signed files of a bundle that judges a line."""
    draft = bundle.draft(line_card(limits, **how), {"int8.onnx": line_graph(len(limits), 1, "int8")})
    calm = np.zeros((ROWS, len(limits)))
    calm[ROWS // 2 :] = 5.0 * np.array(list(limits.values()))
    times = np.arange(ROWS) * 0.1
    return bundle.complete(draft, golden.record(judge.build(draft), draft.card, calm, times), key)


def line_bundle(state, limits, **how):
    """Verified, signed by the machine's own key."""
    return bundle.verify(line_files(limits, keys.device_key(state), **how), keys.trusted(state))


def install(state, limits, *, clock=None, offer=False, **how):
    """Into the library of a state folder; ``offer``: beside the one that is in use."""
    state.mkdir(parents=True, exist_ok=True)
    library = Library(state, clock or ManualClock())
    change = library.offer if offer else library.install
    return change(line_bundle(state, limits, **how), lambda _: None, who="test", why="a test")
