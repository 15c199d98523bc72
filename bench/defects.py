"""The defect networks on real pictures: whole parts held out, never single frames.

::

    python -m bench.defects prepare pitting|thermal OUT       lay a public set out for `train defects`
    python -m bench.defects pitting [--seeds 0,1,2]           every spot held out in turn (two at a time), int8
    python -m bench.defects thermal [--seeds 0]               twelve classes, copies grouped
    python -m bench.defects parity BUNDLE PICTURES            every variant, the same pictures, the same decisions?
    python -m bench.defects latency BUNDLE                    the bare session call, and the whole judgement

The sets stand in the folder that ``EDGE_AGENT_DATA`` names (default ``../shared/data``).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tarfile
import tempfile
import time
from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np

from drivers import opencv
from models import bundle, judge, keys
from models.train import defects, metrics
from models.train.prepared import prepare
from models.train.recipe import read_recipe

DATA = Path(os.environ.get("EDGE_AGENT_DATA", "../shared/data"))
SPOT = re.compile(r"01_(\d{12})_(\d+_\d+)_crop")
BEFORE = 6  # frames before the first annotation in which the same pit may already be seen
UNSURE = {  # spot: the first of its frames that nobody can be sure about
    "585000_090": 5,  # dark points come and go where frame 27 is annotated
    "477500_315": 55,  # a dark point comes, stays and grows; nobody annotated it
}
CONTRADICTED = {("585000_090", 27), ("585000_090", 28)}  # annotated; 29 to 43 show the same and are not
MARGIN_PX = 20
OTHER_CUT = 57


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
            if not shapes and spot != "other" and onset - BEFORE <= k < onset < min(len(paths), OTHER_CUT):
                size = labels[paths[onset].stem]
                label = {**size, "shapes": [_around(shape, size) for shape in pits[paths[onset].stem]]}
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


# --- what they reach


def scratch_set(what, folder):
    """The prepared set, decoded, under the recipe that ships."""
    {"pitting": prepare_pitting, "thermal": prepare_thermal}[what](folder / "set")
    recipe = read_recipe({"pitting": "pitting", "thermal": "thermal-modules"}[what])
    (folder / "scratch").mkdir()
    return prepare(folder / "set", recipe, folder / "scratch", say)


def say(name, done, of, live):
    if done == of or not live:
        print(f"# {name} {done}/{of} {live}", file=sys.stderr, flush=True)


@cache
def frame_numbers():
    """Picture → number of the frame in its spot's series, from 0; from 57 on the set has another cut-out."""
    series = defaultdict(list)
    for path in sorted((DATA / "bsdata_pitting" / "data").glob("*.jpg")):
        match = SPOT.match(path.name)
        if match:
            series[match[2]].append(path.name)
    return {name: number for names in series.values() for number, name in enumerate(names)}


def pitting_figures(names, scores, bad, groups, unsure):
    """Pooled over all spots, each judged by a model that never saw it; its threshold is chosen on the other ones."""
    frames = frame_numbers()
    early = np.array([frames[name] < OTHER_CUT for name in names])
    spots = np.array([SPOT.match(name)[2] for name in names])
    refused = refused_by_others(scores, bad, groups)
    by_spot = {}
    for spot in sorted(set(spots)):
        of = spots == spot
        by_spot[spot] = {
            "good": int((of & ~bad).sum()),
            "bad": int((of & bad).sum()),
            "auroc": round(metrics.auroc(scores[of], bad[of]), 4) if bad[of].any() else None,
            "false_rejects": int((refused & of & ~bad).sum()),
            "missed": int((~refused & of & bad).sum()),
            "first_found": first_found(frames, names, of & bad, refused),
        }
    parts_ = {"": np.ones_like(bad), "_frames_below_57": early, "_without_unsure": ~unsure}
    found = {"good": int((~bad).sum()), "bad": int(bad.sum()), "unsure": int(unsure.sum())}
    for name, of in parts_.items():
        one = metrics.at(metrics.threshold_for(scores[of], bad[of], 0.01), scores[of], bad[of])
        found[f"auroc{name}"] = round(metrics.auroc(scores[of], bad[of]), 4)
        found[f"recall_at_1_percent{name}"] = round(one.recall, 4)
        found[f"false_rejects_threshold_of_others{name}"] = round(float(refused[of & ~bad].mean()), 4)
        found[f"recall_threshold_of_others{name}"] = round(float(refused[of & bad].mean()), 4)
    return found | {"spots": by_spot}


def refused_by_others(scores, bad, groups):
    """Each part under the threshold that refuses 1 % of the good pictures of all the other parts."""
    refused = np.zeros(len(scores), bool)
    for group in sorted(set(groups)):
        of = np.array([each == group for each in groups])
        refused[of] = scores[of] >= metrics.threshold_for(scores[~of], bad[~of], 0.01)
    return refused


def first_found(frames, names, bad, refused):
    """Frames from the first annotated one to the first that is found."""
    annotated = [frames[names[k]] for k in np.flatnonzero(bad)]
    found = [frames[names[k]] for k in np.flatnonzero(bad & refused)]
    return min(found) - min(annotated) if found else None


def is_unsure(sample):
    """Good, and a pit may be there already; or annotated where the frames after it look the same and are not."""
    spot, frame = SPOT.match(sample.path.name)[2], frame_numbers()[sample.path.name]
    if sample.label == "good":
        return bool(sample.regions) or frame >= UNSURE.get(spot, len(frame_numbers()))
    return (spot, frame) in CONTRADICTED


def pitting(seeds):
    with tempfile.TemporaryDirectory() as place:
        prepared = scratch_set("pitting", Path(place))
        for seed in seeds:
            one = prepared._replace(recipe=prepared.recipe.model_copy(update={"seed": seed}))
            held, said = defects.held_out(one, *one.sides(), say)
            samples = [one.samples[k] for k in held]
            unsure = np.array([is_unsure(sample) for sample in samples])
            groups = [one.groups[k] for k in held]
            names = [sample.path.name for sample in samples]
            figures = pitting_figures(names, said.scores, one.bad[held], groups, unsure)
            print(json.dumps({"bench": "pitting", "seed": seed, "int8": "onnx", **figures}), flush=True)


def thermal(seeds):
    with tempfile.TemporaryDirectory() as place:
        prepared = scratch_set("thermal", Path(place))
        for seed in seeds:
            made = defects.make(prepared._replace(recipe=prepared.recipe.model_copy(update={"seed": seed})), say)
            matrix = made.result.matrix
            recalls = {
                label: round(each.recall, 3)
                for label, each in zip(made.result.labels, metrics.per_class(matrix), strict=True)
            }
            line = {"bench": "thermal", "seed": seed, **made.result.numbers(), "recall_by_class": recalls}
            print(json.dumps({**line, "parity": made.parity._asdict()}), flush=True)


def latency(bundle_path, rounds=30):
    """Milliseconds of a bare session call and of a whole judgement, one thread, of each variant in a bundle."""
    found = bundle.load(bundle_path, keys.trusted(), trust_unsigned=True)
    width, height = found.card.input.size
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    for file in found.card.files:
        one = judge.build(found, file.variant)
        feeds = {t.name: np.zeros(t.shape, t.dtype) for t in one.session.inputs}
        bare = min(timed(lambda one=one, feeds=feeds: one.session.run(feeds)) for _ in range(rounds))
        whole = min(timed(lambda one=one: one.judge(image)) for _ in range(rounds))
        print(json.dumps({"bench": "latency", "variant": file.variant, "bare_ms": bare, "judge_ms": whole}))


def timed(call):
    start = time.perf_counter_ns()
    call()
    return round((time.perf_counter_ns() - start) / 1e6, 3)


def parity(bundle_path, pictures):
    """The int8 variants of a shipped bundle on real pictures: do ONNX and TFLite decide the same?"""
    found = bundle.load(bundle_path, keys.trusted(), trust_unsigned=True)
    judges = {file.variant: judge.build(found, file.variant) for file in found.card.files}
    said = defaultdict(list)
    paths = sorted(p for p in pictures.rglob("*") if p.suffix in (".jpg", ".png"))
    for path in paths:
        image = opencv.decode(path.read_bytes(), 64_000_000)
        for name, one in judges.items():
            answer = one.judge(image)
            said[name].append((answer.label, answer.details.get("class")))
    first, *others = said
    same = {name: float(np.mean([a == b for a, b in zip(said[first], said[name], strict=True)])) for name in others}
    print(json.dumps({"bench": "parity", "pictures": len(paths), "as": first, "same": same}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("prepare")
    one.add_argument("what", choices=("pitting", "thermal"))
    one.add_argument("out", type=Path)
    for name in ("pitting", "thermal"):
        verbs.add_parser(name).add_argument("--seeds", default="0")
    one = verbs.add_parser("parity")
    one.add_argument("bundle", type=Path)
    one.add_argument("pictures", type=Path)
    verbs.add_parser("latency").add_argument("bundle", type=Path)
    chosen = parser.parse_args()
    if chosen.verb == "prepare":
        {"pitting": prepare_pitting, "thermal": prepare_thermal}[chosen.what](chosen.out)
    elif chosen.verb == "parity":
        parity(chosen.bundle, chosen.pictures)
    elif chosen.verb == "latency":
        latency(chosen.bundle)
    else:
        {"pitting": pitting, "thermal": thermal}[chosen.verb]([int(seed) for seed in chosen.seeds.split(",")])


if __name__ == "__main__":
    main()
