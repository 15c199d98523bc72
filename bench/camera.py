"""``calibrate camera``: how soon is a defect seen, and how often is a good part refused?

::

    python -m bench.camera bsdata            each spot of the public run-to-failure set by itself: its first 20 frames
                                             are the good parts, the others are judged in their order
    python -m bench.camera surfaces          computed surfaces of many kinds with planted blemishes
    python -m bench.camera cookie            a few photos with normal and cracked parts: does it work at all?
    python -m bench.camera thermal           thermal pictures, each of another module: only the kind is the same
    python -m bench.camera scene             moved, and lit otherwise: is that said before good parts are refused?
    python -m bench.camera time [PICTURES]   how long 20 pictures take, and one judgement

The backbone has seen none of these pictures: it learned from computed surfaces (other ones than `surfaces`). The sets
stand in the folder that ``EDGE_AGENT_DATA`` names (default ``../shared/data``).

Frames from the 57th on of the public set are cut to another size: a calibrated camera does not inspect them, so they
are judged by nobody and appear in a column of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tarfile
import time
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from drivers import opencv
from models import judge
from models.train import camera, camera_bundle, metrics, textures

DATA = Path(os.environ.get("EDGE_AGENT_DATA", "../shared/data"))
SPOT = re.compile(r"01_\d{12}_(\d+_\d+)_crop")
SHOWN = 20
SIZES = ((512, 384), (640, 360))


def calibrated(images):
    """A judge that was calibrated with these pictures, its fit and the seconds that took."""
    began = time.perf_counter()
    fit = camera.fit(images, lambda *_: None)
    made = camera_bundle.make(fit, images, "bench", 1, Ed25519PrivateKey.generate(), source="bench")
    seconds = time.perf_counter() - began
    return judge.load(_complete(made)), fit, seconds


def _complete(made):
    """The bundle with its golden samples."""
    from models.bundle import GOLDEN, Bundle  # noqa: PLC0415 - here only

    return Bundle(made.bundle.card, {**made.bundle.files, GOLDEN: made.files[GOLDEN]}, made.bundle.sha256)


def read(path):
    """The pixels of a file."""
    return opencv.decode(path.read_bytes(), 40_000_000)


def _spots():
    """Spot → its pictures, in their order."""
    spots = defaultdict(list)
    for path in sorted((DATA / "bsdata_pitting" / "data").glob("01_*")):
        if found := SPOT.match(path.name):
            spots[found[1]].append(path)
    return spots


def bsdata():
    """Each spot by itself, and all of them together: by each frame, and by two in a row, as an alarm may wait."""
    each, twice = Found(), Found()
    for spot, paths in _spots().items():
        model, fit, seconds = calibrated([read(path) for path in paths[:SHOWN]])
        marked = [(path.parents[1] / "label" / f"{path.stem}.json").exists() for path in paths]
        onset = marked.index(True) if True in marked else len(paths)
        said = [model.judge(read(path)) for path in paths[SHOWN:]]
        labels = [one.label for one in said]
        bad = [label == "defect" for label in labels]
        inspected = [label != "not-inspected" for label in labels]
        delay, wrong = each.count(bad, onset - SHOWN, inspected)
        twice.count([one and other for one, other in pairwise([False, *bad])], onset - SHOWN, inspected)
        first = next((SHOWN + number for number, is_bad in enumerate(bad[: onset - SHOWN]) if is_bad), None)
        print(
            f"{spot}  onset {onset if onset < len(paths) else 'none':>4}  delay {'-' if delay is None else delay}"
            f"  false {wrong} (first at {first})  not inspected before 57:"
            f" {labels[: 57 - SHOWN].count('not-inspected')}  left out {sorted(fit.outliers)}  {seconds:.1f} s",
            flush=True,
        )
        if os.environ.get("BENCH_SCORES"):
            print([f"{one.score:.2f}" for one in said])
    print(f"each frame: {each}")
    print(f"two frames in a row: {twice}")


class Found:
    """Onsets and false alarms of several series."""

    def __init__(self):
        self.delays, self.missed, self.false, self.good = [], 0, 0, 0

    def count(self, bad, onset, inspected):
        """``bad``, ``inspected``: of each frame of one series. Returns the delay (None: never) and the false alarms."""
        wrong = sum(bad[:onset])
        delay = bad.index(True, onset) - onset if True in bad[onset:] else None
        self.false += wrong
        self.good += sum(inspected[:onset])
        if delay is not None:
            self.delays.append(delay)
        elif onset < len(bad):
            self.missed += 1
        return delay, wrong

    def __str__(self):
        return (
            f"onsets found {len(self.delays)} of {len(self.delays) + self.missed}; delay median"
            f" {np.median(self.delays):g}, worst {max(self.delays)}; false alarms {self.false} of {self.good} good"
            f" frames, {self.false / self.good:.1%}"
        )


def surfaces(count, seed):
    """Kinds of surfaces, each with its own 20 good parts, then 20 good ones and 20 with a planted blemish."""
    rows = []
    for number in range(count):
        random = np.random.default_rng([seed, number, 7])
        size = SIZES[number % len(SIZES)]
        plate = textures.surface(random, (size[1] + 16, size[0] + 16))
        marked = _marked(random, plate)
        parts = [_seen(random, marked, size) for _ in range(2 * SHOWN)]
        bad = [_seen(random, _blemished(random, marked), size) for _ in range(SHOWN)]
        model, _, _ = calibrated(parts[:SHOWN])
        good = [model.judge(each) for each in parts[SHOWN:]]
        off = [model.judge(each) for each in bad]
        said = [each for each in (*good, *off) if each.label != "not-inspected"]
        truth = np.array([each in off for each in said])
        area = metrics.auroc(np.array([each.score for each in said]), truth) if 0 < truth.sum() < len(truth) else None
        row = {
            "false": sum(each.label == "defect" for each in good),
            "found": sum(each.label == "defect" for each in off),
            "not_inspected": sum(each.label == "not-inspected" for each in (*good, *off)),
        }
        rows.append(row)
        print(number, size, row, "auroc", area and round(area, 3), flush=True)
    total = {key: sum(row[key] for row in rows) for key in rows[0]}
    print(f"{total} of {SHOWN * count} good and {SHOWN * count} blemished")


def _marked(random, plate):
    """Parts have features: a ring and a bar, which are always there."""
    rows, columns = np.indices(plate.shape[:2])
    row, column = random.uniform(0.3, 0.7, 2) * plate.shape[:2]
    far = np.hypot(rows - row, columns - column)
    marked = plate.copy()
    marked[(far > 40) & (far < 52)] += 50
    marked[(np.abs(rows - row * 0.6) < 8) & (columns > column)] -= 40
    return marked


def _blemished(random, plate):
    changed, _ = textures.blemish(random, plate)
    return changed


def _seen(random, plate, size):
    """As a camera sees it: up to two pixels aside, a few per cent brighter or darker, with noise."""
    down, across = random.integers(6, 11, 2)
    seen = plate[down : down + size[1], across : across + size[0]] * random.uniform(0.96, 1.04)
    return np.clip(seen + random.normal(0, 1.5, seen.shape), 0, 255).astype(np.uint8)


def cookie():
    """Twenty normal ones are shown, the others judged."""
    folder = DATA / "aws_cookie"
    normal = sorted(folder.glob("t*-images/*normal-*.jpg"))
    cracked = sorted(folder.glob("t*-images/*anomaly-*.jpg"))
    model, fit, seconds = calibrated([read(path) for path in normal[:SHOWN]])
    good = [model.judge(read(path)) for path in normal[SHOWN:]]
    off = [model.judge(read(path)) for path in cracked]
    scores = np.array([each.score for each in (*good, *off)])
    print(
        json.dumps(
            {
                "good": [sum(each.label == label for each in good) for label in ("good", "defect", "not-inspected")],
                "cracked": [sum(each.label == label for each in off) for label in ("good", "defect", "not-inspected")],
                "auroc": round(metrics.auroc(scores, np.arange(len(scores)) >= len(good)), 4),
                "doubts": fit.doubts,
                "seconds": round(seconds, 1),
            }
        )
    )


def thermal():
    """Modules without anomaly are shown; others without, and with one, are judged. Six times as large."""
    folder = DATA / "ir_solar_modules"
    kinds = json.loads((folder / "module_metadata.json").read_text())
    random = np.random.default_rng(0)
    with tarfile.open(folder / "images.tar.gz") as archive:
        members = {Path(each.name).name: each for each in archive.getmembers() if each.isfile()}
        names = [(Path(each["image_filepath"]).name, each["anomaly_class"] == "No-Anomaly") for each in kinds.values()]
        random.shuffle(names)
        firsts = {
            good: [name for name, is_good in names if is_good == good and name in members][:60]
            for good in (True, False)
        }
        # In the order of the archive: going back in it means reading it anew.
        wanted = sorted({*firsts[True], *firsts[False]}, key=lambda name: members[name].offset)
        images = {name: _enlarged(archive, members[name]) for name in wanted}
    parts = {good: [images[name] for name in names_of] for good, names_of in firsts.items()}
    model, fit, _ = calibrated(parts[True][:SHOWN])
    said = {
        good: [model.judge(each) for each in each_of]
        for good, each_of in ((True, parts[True][SHOWN:]), (False, parts[False]))
    }
    print(
        json.dumps(
            {str(good): Counter(each.label for each in judged) for good, judged in said.items()}
            | {"doubts": fit.doubts}
        )
    )


def _enlarged(archive, member):
    image = opencv.decode(archive.extractfile(member).read(), 10_000)
    return np.repeat(np.repeat(image, 6, axis=0), 6, axis=1)


def scene():
    """Three series and the photos: how far, how dark, how tinted, until somebody says so, and what was said before."""
    sets = {spot: [read(path) for path in paths[: SHOWN + 4]] for spot, paths in list(_spots().items())[:3]}
    photos = sorted((DATA / "aws_cookie").glob("t*-images/*normal-*.jpg"))[: SHOWN + 4]
    for name, images in {**sets, "cookie": [read(path) for path in photos]}.items():
        model, _, _ = calibrated(images[:SHOWN])
        for what, changed in CHANGES.items():
            said = {
                step: Counter(
                    judged.details.get("reason", judged.label)
                    for each in images[SHOWN:]
                    for judged in [model.judge(changed(each, step))]
                )
                for step in STEPS[what]
            }
            print(name, what, {step: dict(count) for step, count in said.items()}, flush=True)


STEPS = {
    "moved px": (0, 2, 5, 10, 20, 30, 40, 60, 80),
    "light x": (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 1.1, 1.2, 1.4),
    "red x": (1.0, 0.9, 0.8, 0.7, 0.6, 0.5),
}
CHANGES = {
    "moved px": lambda image, step: np.roll(image, (step // 2, step), axis=(0, 1)),
    "light x": lambda image, step: np.clip(image * step, 0, 255).astype(np.uint8),
    "red x": lambda image, step: np.clip(image * np.array([1, 1, step]), 0, 255).astype(np.uint8),
}


def how_long(folder):
    """Of 20 pictures from the folder, or of noise at 1280x720."""
    random = np.random.default_rng(0)
    plate = _marked(random, textures.surface(random, (736, 1296)))
    paths = sorted(Path(folder).iterdir())[:SHOWN] if folder else []
    images = [read(path) for path in paths] or [_seen(random, plate, (1280, 720)) for _ in range(SHOWN)]
    began = time.process_time()
    model, fit, seconds = calibrated(images)
    spent = time.process_time() - began
    times = []
    for image in images:
        start = time.perf_counter()
        model.judge(image)
        times.append(time.perf_counter() - start)
    print(
        f"{len(images)} pictures {images[0].shape[1]}x{images[0].shape[0]}, model {fit.size}: {seconds:.1f} s,"
        f" {spent:.1f} s of one core; one judgement {1000 * float(np.median(times)):.0f} ms (median)"
    )


def main(arguments=None):
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("bsdata", "surfaces", "cookie", "thermal", "scene", "time"))
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    if chosen.what == "surfaces":
        surfaces(chosen.count, chosen.seed)
    elif chosen.what == "time":
        how_long(chosen.folder)
    else:
        {"bsdata": bsdata, "cookie": cookie, "thermal": thermal, "scene": scene}[chosen.what]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
