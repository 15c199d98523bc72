"""Which release of a bundle is in use on this machine: read without verifying anything, so it costs next to nothing.

Who decides with a release verifies it first (:mod:`models.library`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, ValidationError

from edge_agent.errors import BundleError
from edge_agent.settings import Section

SHIPPED: Final = Path(__file__).parent / "shipped"
"""The bundles that come with the product."""
IN_USE: Final = "in-use.json"
RELEASE: Final = re.compile(r"([1-9]\d{0,15})-[0-9a-f]{12}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_LARGEST: Final = 64 << 10

Release = Annotated[str, Field(pattern=f"^{RELEASE.pattern}$")]


class InUse(Section):
    """Which release decides. ``newest``: the highest that ever did; an older one never comes in by itself."""

    current: Release = Field(description="The release that decides.")
    previous: Release | None = Field(description="The one that decides when the current one cannot.")
    newest: Release = Field(description="The highest version that was ever in use.")
    candidate: Release | None = Field(default=None, description="The one that is tried beside the current one.")
    at: str = Field(description="Since when, UTC.")
    why: str = Field(description="Why it is in use.")


def home(state_dir: Path, name: str) -> Path:
    """The folder of a bundle's releases. Raises BundleError for what is no name."""
    if not _NAME.fullmatch(name):
        raise BundleError(f"{name!r} is no name of a bundle")
    return state_dir / "bundles" / name


def in_use(state_dir: Path, name: str) -> InUse | None:
    """None where no such bundle is installed. Raises BundleError where its record is damaged."""
    path = home(state_dir, name) / IN_USE
    try:
        with path.open("rb") as file:
            return InUse.model_validate_json(file.read(_LARGEST))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        why = getattr(error, "strerror", None) or "it is damaged"
        raise BundleError(f"{path} cannot be read: {why}", hint=f"install {name} again") from error


def version(of: str | None) -> int:
    """Of a release; 0 for none."""
    return int(of.partition("-")[0]) if of else 0
