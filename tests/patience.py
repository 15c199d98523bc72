"""How long tests wait, and which deadlines they set for the product, on a machine that is slower than most."""

import os

SLOWNESS = float(os.environ.get("TESTS_SLOWNESS", "1"))
"""So many times as slow as the machines on which the tests are written: an emulated one, a small or a busy one."""


def lasting(seconds: float) -> str:
    """A duration of a config, in which as much can be done here as elsewhere in ``seconds``."""
    return f"{round(seconds * SLOWNESS * 1000)}ms"
