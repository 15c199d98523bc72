"""The defect networks on real pictures: whole parts held out, never single frames.

::

    python -m bench.defects prepare pitting|thermal OUT       lay a public set out for `train defects`
    python -m bench.defects pitting [--seeds 0,1,2]           every spot held out in turn, int8
    python -m bench.defects thermal [--seeds 0]               twelve classes, copies grouped
    python -m bench.defects parity BUNDLE PICTURES            four variants, the same pictures, the same decisions?

The sets stand in the folder that ``EDGE_AGENT_DATA`` names (default ``../shared/data``).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tarfile
from collections import defaultdict
from pathlib import Path

DATA = Path(os.environ.get("EDGE_AGENT_DATA", "../shared/data"))
SPOT = re.compile(r"01_(\d{12})_(\d+_\d+)_crop")
UNSURE = 6  # frames before the first annotation in which the same pit may already be seen
MARGIN_PX = 20


def prepare_thermal(out):
    """One folder per class, from the set's own table."""
    source = DATA / "ir_solar_modules"
    table = json.loads((source / "module_metadata.json").read_text())
    classes = {row["image_filepath"]: row["anomaly_class"] for row in table.values()}
    with tarfile.open(source / "images.tar.gz") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if name in classes:
                path = out / classes[name] / Path(name).name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.extractfile(member).read())


def prepare_pitting(out):
    """Pictures with polygons. Left out: frames without annotation after the first pitting of their spot.

    In the last frames before it, the place where the pit will be annotated is marked `ignore`: it may be there already.
    """
    source = DATA / "bsdata_pitting"
    out.mkdir(parents=True, exist_ok=True)
    series = defaultdict(list)
    for path in sorted((source / "data").glob("*.jpg")):
        match = SPOT.match(path.name)
        series[match[2] if match else "other"].append(path)
    labels = {path.stem: json.loads(path.read_text()) for path in (source / "label").glob("*.json")}
    pits = {stem: [s for s in label["shapes"] if s["label"] == "Pitting"] for stem, label in labels.items()}
    for spot, paths in series.items():
        onset = next((k for k, path in enumerate(paths) if pits.get(path.stem)), len(paths))
        for k, path in enumerate(paths):
            shapes = pits.get(path.stem, [])
            if not shapes and (spot == "other" or k > onset):
                continue
            (out / path.name).symlink_to(path.resolve())
            if not shapes and spot != "other" and onset - UNSURE <= k < onset < len(paths):
                size = labels[paths[onset].stem]
                shapes = [_around(shape, size) for shape in pits[paths[onset].stem]]
                if size["imageWidth"] != 1130 or k >= 57:
                    continue
                label = {**size, "shapes": shapes}
            elif shapes:
                label = {**labels[path.stem], "shapes": shapes}
            else:
                continue
            (out / f"{path.stem}.json").write_text(json.dumps(label))


def _around(shape, size):
    x, y = zip(*shape["points"], strict=True)
    left, right = max(0, min(x) - MARGIN_PX), min(size["imageWidth"], max(x) + MARGIN_PX)
    top, bottom = max(0, min(y) - MARGIN_PX), min(size["imageHeight"], max(y) + MARGIN_PX)
    return {"label": "ignore", "shape_type": "rectangle", "points": [[left, top], [right, bottom]]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    prepare = verbs.add_parser("prepare")
    prepare.add_argument("what", choices=("pitting", "thermal"))
    prepare.add_argument("out", type=Path)
    chosen = parser.parse_args()
    {"pitting": prepare_pitting, "thermal": prepare_thermal}[chosen.what](chosen.out)


if __name__ == "__main__":
    main()
