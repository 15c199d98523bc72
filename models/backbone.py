"""What ``calibrate camera`` sees with: a small network that ships with the product and by itself decides nothing.

It learned from computed surfaces only (``models/train/recipes/backbone.yaml``), so it knows no real one in
particular; its output ``features`` has one vector per 8 × 8 pixels. It is as trustworthy as this file, which has its
hash.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from edge_agent.errors import BundleError

FILE: Final = Path(__file__).parent / "backbone.onnx"
SHA256: Final = "1bfb10999cd3faf1521e3458e906ffb5c4d2ca7a1e4efd2003596eff2ddfa592"
SCALING: Final = {"mean": [127.5], "std": [64.0]}
"""As a card says it."""
LEARNED_FROM: Final = "textures and blemishes computed by models/train/textures.py"


def read() -> bytes:
    """The network. Raises BundleError where it is missing or damaged."""
    try:
        data = FILE.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read {FILE}: {error.strerror}", hint="install edge-agent again") from error
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise BundleError(f"{FILE} is not the file that came with the product", hint="install edge-agent again")
    return data
