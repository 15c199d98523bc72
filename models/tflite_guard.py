"""placeholder"""

from edge_agent.errors import BundleError


def check(data: bytes) -> None:
    if data[4:8] != b"TFL3":
        raise BundleError("is no TFLite model")
