"""The pictures that a person says are good: read, and looked at together before anybody learns from them."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from edge_agent import catalogue
from edge_agent.errors import ConfigError, PictureError, Problem
from models.golden import LARGEST_BYTES
from models.preprocess import grey
from models.train.camera import FEWEST, MOST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.preprocess import Pixels

ENDINGS: Final = (".jpg", ".jpeg", ".png")
_MOST_PIXELS: Final = 40_000_000
_LARGEST: Final = 64 << 20  # bytes of one file
_LARGEST_SHOWN: Final = LARGEST_BYTES // 2 - 4096  # the bundle keeps two pictures of this size, and says what they are
_LEAST_SIDE: Final = 64  # pixels
_DARK: Final = 12  # grey levels
_GREY: Final = 3.0  # levels between the channels of a picture without colour


class Shown(NamedTuple):
    """``doubts``: in words, what is odd and does not stop anybody."""

    images: list[Pixels]
    names: list[str]
    doubts: list[str]


def read(folder: Path, region: tuple[int, int, int, int] | None = None, most: int = MOST) -> Shown:
    """Every picture in the folder. Raises ConfigError that names everything that is wrong with any of them."""
    if not folder.is_dir():
        raise ConfigError([Problem(0, "--good-dir", f"{folder} is no folder")])
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.name[0] != ".")
    problems = []
    images, names = [], []
    for path in paths[:most]:
        try:
            if path.stat().st_size > _LARGEST:
                problems.append(Problem(0, path.name, f"is larger than {_LARGEST >> 20} MiB"))
                continue
            images.append(catalogue.load(catalogue.PICTURES, "decode")(path.read_bytes(), _MOST_PIXELS))
            names.append(path.name)
        except PictureError as error:
            problems.append(Problem(0, path.name, f"is no picture that can be used: {error.reason}, {error}"))
        except OSError as error:
            problems.append(Problem(0, path.name, f"cannot be read: {error.strerror}"))
    doubts = [f"only the first {most} of {len(paths)} pictures are used"] if len(paths) > most else []
    return checked(images, names, doubts, problems, region)


def checked(
    images: Sequence[Pixels],
    names: Sequence[str],
    doubts: Sequence[str],
    problems: Sequence[Problem] = (),
    region: tuple[int, int, int, int] | None = None,
) -> Shown:
    """The same pictures, cut to the region (width, height, left, top). Raises ConfigError, as :func:`read`."""
    found = [*problems]
    usual = Counter(image.shape[1::-1] for image in images).most_common(1)
    seen: dict[str, str] = {}
    kept: list[Pixels] = []
    kept_names: list[str] = []
    has_colour = [_has_colour(image) for image in images]
    for image, name, coloured in zip(images, names, has_colour, strict=True):
        wrong = _wrong(image, usual[0][0], coloured=coloured, all_coloured=sum(has_colour) * 2 > len(images))
        if wrong:
            found.append(Problem(0, name, wrong))
        digest = hashlib.sha256(image.tobytes()).hexdigest()
        if digest in seen:
            doubts = [*doubts, f"{name} is {seen[digest]} again: it counts once"]
            continue
        seen[digest] = name
        cut = image if region is None else _cut(image, region)
        if cut is None:
            found.append(Problem(0, name, "is smaller than the region"))
            continue
        if cut.nbytes > _LARGEST_SHOWN:
            most = _LARGEST_SHOWN // 3_000_000
            found.append(Problem(0, name, f"is {cut.shape[1]}x{cut.shape[0]}: take at most {most} megapixels"))
        kept.append(cut)
        kept_names.append(name)
    if len(kept) < FEWEST:
        found.append(Problem(0, "", f"{len(kept)} different pictures; at least {FEWEST} good parts are needed"))
    if found:
        raise ConfigError(found)
    return Shown(kept, kept_names, list(doubts))


def _wrong(image: Pixels, usual: tuple[int, int], *, coloured: bool, all_coloured: bool) -> str:
    """What is wrong with one picture beside the others, or nothing."""
    width, height = image.shape[1::-1]
    if (width, height) != usual:
        return f"is {width}x{height}, most are {usual[0]}x{usual[1]}"
    if min(width, height) < _LEAST_SIDE:
        return f"is only {width}x{height}"
    if (grey(image) < _DARK).mean() > 0.99:  # but for a few hot pixels
        return "is almost black"
    if coloured != all_coloured:
        return "is grey, most have colour" if all_coloured else "has colour, most are grey"
    return ""


def _has_colour(image: Pixels) -> bool:
    small = image[::8, ::8].astype("int16")
    return float((small.max(axis=2) - small.min(axis=2)).mean()) > _GREY


def _cut(image: Pixels, region: tuple[int, int, int, int]) -> Pixels | None:
    width, height, left, top = region
    cut = image[top : top + height, left : left + width]
    return cut if cut.shape[1::-1] == (width, height) else None
