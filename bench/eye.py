"""What an eye costs with the shipped model of pitting: ``python -m bench.eye [--variant V] [PICTURE…]``.

Time: one JPEG of 1280 x 720 to its verdict (decode, gate, preprocessing, session, doubt, plan of evidence), over the
bare decode and the bare call of the runtime with ready numbers, in turns; processor time, lower quartile.
Twice: the whole picture, which must be resized for the model, and a region of just its size (`roi`).
Memory: a real eye process that judged so many pictures; its pages in memory (RSS), its share of them (PSS: what
it shares with others counts in parts), and what is its own (the rest are libraries, as the kernel has them in its
cache), beside an eye that asks only the rule.
"""

import argparse
import itertools
import json
import re
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import models.judge
from bench.sessions import bare_onnx, bare_tflite
from drivers import opencv
from edge_agent import catalogue
from edge_agent.clock import SystemClock
from edge_agent.contracts import Frame
from edge_agent.deciding import opened
from edge_agent.evidence import Keeper, Pencil
from edge_agent.evidence_folder import EvidenceFolder
from edge_agent.health import Health
from edge_agent.looking import Eye
from edge_agent.mark import Mark
from edge_agent.memory import be_thrifty
from edge_agent.roster import Asked
from edge_agent.stages.eye import Eye as Parent
from edge_agent.triggers import Occasion
from models import bundle, choice, keys
from models.preprocess import Preprocess
from models.releases import SHIPPED

SIZE = (1280, 720)
JUDGED = 40
ROUNDS = 120
PATIENCE_S = 120


def quartiles(*calls):
    """Processor seconds of this thread per call; they take turns, so that a busy machine hits all alike."""
    times = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, spent in zip(calls, times, strict=True):
            began = time.thread_time()
            call()
            spent.append(time.thread_time() - began)
    return [statistics.quantiles(spent, n=4)[0] for spent in times]


def pictures(paths):
    """JPEGs of the size, those that are given or some that no camera took."""
    if paths:
        return [opencv.encode_jpeg(opencv.resize(opencv.decode(path.read_bytes(), 10**8), *SIZE)) for path in paths]
    random = np.random.default_rng(1)
    coarse = [random.integers(60, 200, (45, 80, 3), np.uint8) for _ in range(8)]
    smooth = [opencv.resize(each, *SIZE) for each in coarse]
    return [opencv.encode_jpeg(each // 2 + random.integers(0, 60, each.shape, np.uint8)) for each in smooth]


def spec(name, state_dir):
    return {"kind": "model", "name": name, "release": None, "state_dir": state_dir, "judges": "picture"}


def settings(source, **more):
    wanted = {"kind": "folder", "source": source, "loop": True, "size": "1280x720", "every": "100ms", **more}
    return catalogue.load(catalogue.CAMERAS, "folder").Settings.model_validate(wanted)


def frame_to_verdict(name, jpegs, folder):
    """How much longer than decode and bare call one picture takes; and both in milliseconds."""
    clock = SystemClock()
    entry = {"spec": spec(name, folder), "who": 1, "out": False}
    order = {"model": name, "asked": [entry], "candidate": None, "judgements": 1}
    deciding = opened(order, "cam", Mark.fresh(), clock, 60.0)
    found = bundle.load(SHIPPED / name, keys.trusted(Path(folder)))
    judge = models.judge.load(found, choice.chosen(Path(folder), found).variant)
    bare = (bare_onnx if judge.file.format == "onnx" else bare_tflite)(found.files[judge.file.name])
    turn = itertools.cycle(jpegs)
    ready = Preprocess(judge.card.input, judge.file, judge.session.inputs[0])(opencv.decode(jpegs[0], 10**8))
    eyes = [eye(clock, deciding, settings(folder, **more)) for more in ({}, {"roi": region(judge.card.input.size)})]
    calls = [lambda each=each: each.look(Occasion(Frame(clock.stamp(), encoded=next(turn)))) for each in eyes]
    decode_s, bare_s, *whole_s = quartiles(lambda: opencv.decode(next(turn), 10**8), lambda: bare(ready), *calls)
    return {
        "variant": judge.file.variant,
        "decode_ms": round(decode_s * 1e3, 2),
        "bare_call_ms": round(bare_s * 1e3, 2),
        "frame_to_verdict_ms": [round(each * 1e3, 2) for each in whole_s],
        "ratio": [round(each / (decode_s + bare_s), 3) for each in whole_s],
    }


def region(size):
    """In the middle of the picture, as large as the model wants it where that fits."""
    wide, high = (min(own, of) for own, of in zip(size, SIZE, strict=True))
    return f"{wide}x{high}+{(SIZE[0] - wide) // 2}+{(SIZE[1] - high) // 2}"


def eye(clock, deciding, section):
    """Without its process, and without a place for evidence."""
    keeper = Keeper(
        "cam",
        section.evidence.model_copy(update={"labels": ()}),
        EvidenceFolder(Path("/dev/null"), section.evidence),
        Pencil(opencv.shrunk, opencv.encode_jpeg, opencv.mark, opencv.glow),
        clock,
        print,
        print,
    )
    return Eye("cam", section, [deciding], keeper, clock, print)


def memory(name, jpegs, folder):
    """RSS and PSS in megabytes (10^6) of a real eye process after it judged some pictures."""
    source = Path(folder) / "pictures"
    source.mkdir(exist_ok=True)
    for number, jpeg in enumerate(jpegs):
        (source / f"{number}.jpg").write_bytes(jpeg)
    clock, seen, stop = SystemClock(), [], threading.Event()
    models = [Asked(name, (spec(name, folder),))] if name else []
    parent = Parent(
        "cam",
        "folder",
        settings(str(source), evidence={"labels": [], "uncertain": {"margin": 0}}),
        Path(folder),
        clock,
        Health(clock),
        on_verdict=seen.append,
        on_evidence=print,
        models=lambda: models,
    )
    thread = threading.Thread(target=parent.body, args=(stop, lambda: None))
    thread.start()
    give_up = time.monotonic() + PATIENCE_S
    while len(seen) < JUDGED and time.monotonic() < give_up:
        time.sleep(0.1)
    (pid,) = Path(f"/proc/self/task/{thread.native_id}/children").read_text().split()
    said = Path(f"/proc/{pid}/smaps_rollup").read_text()
    sizes = {
        key: int(re.search(rf"^{key}:\s+(\d+) kB", said, re.MULTILINE)[1]) * 1.024e-3
        for key in ("Rss", "Pss", "Anonymous")
    }
    stop.set()
    thread.join()
    return {
        "decided_by": seen[-1].decided_by,
        "judged": len(seen),
        **{f"{key.lower()}_mb": round(value, 1) for key, value in sizes.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pitting")
    parser.add_argument("--variant", help="int8-onnx or int8-tflite; default: the card's first that runs here")
    parser.add_argument("pictures", nargs="*", type=Path)
    options = parser.parse_args()
    jpegs = pictures(options.pictures)
    be_thrifty()
    with tempfile.TemporaryDirectory() as folder:
        if options.variant:
            found = bundle.load(SHIPPED / options.model, keys.trusted(Path(folder)))
            choice.keep(Path(folder), options.model, choice.Choice(sha256=found.sha256, variant=options.variant))
        print(json.dumps({"memory": memory(options.model, jpegs, folder)}), flush=True)
        print(json.dumps({"memory of the rule": memory("", jpegs, folder)}), flush=True)
        print(json.dumps({"time": frame_to_verdict(options.model, jpegs, folder)}), flush=True)


if __name__ == "__main__":
    main()
