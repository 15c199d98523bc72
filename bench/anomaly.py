"""Anomaly detectors against real data: ``python bench/anomaly.py skab|nab|motes|fit [--data FOLDER]``.

Each command prints a table and, last, one line of JSON. The data are not part of the project: they are looked for in
``EDGE_AGENT_DATA``, default ``../shared/data`` beside the repository.
"""

import argparse
import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def seconds(text):
    return datetime.fromisoformat(text).timestamp()


# --- SKAB ------------------------------------------------------------------------------------------------------------

TRAINING_ROWS = 400


def skab_files(data):
    for path in sorted((data / "skab" / "data").glob("*/*.csv"), key=lambda path: (path.parent.name, int(path.stem) if path.stem.isdigit() else 0)):
        header, *lines = (line.split(";") for line in path.read_text().splitlines())
        if "anomaly" not in header:
            continue
        last = header.index("anomaly")
        yield (
            f"{path.parent.name}/{path.stem}",
            header[1:last],
            [seconds(line[0]) for line in lines],
            [[float(cell) for cell in line[1:last]] for line in lines],
            [float(line[last]) > 0 for line in lines],
        )


def skab_fit(names, times, values, per_day):
    from models.train.alignment import align
    from models.train.line import fit_line

    series = {name: (times[:TRAINING_ROWS], [row[index] for row in values[:TRAINING_ROWS]]) for index, name in enumerate(names)}
    return fit_line(align(series, 1.0), per_day)


def networks(fit):
    """Name → bytes of the network, threshold."""
    from models.train.graphs import baseline, line_graph

    count, scales = len(fit.quantities), len(fit.parameters["fast_s"])
    yield "line, int8", line_graph(count, scales, "int8"), 1.0
    yield "line, fp32", line_graph(count, scales, "fp32"), 1.0
    for kind in ("isolation-forest", "lof"):
        yield kind, *baseline(kind, fit.rows)


def skab_judge(fit, network, threshold, times, values):
    from models.anomaly import LineDetector
    from models.onnx_session import OnnxSession

    detector = LineDetector(fit.quantities, fit.parameters, threshold, OnnxSession(network))
    detector.resume(0.0, times[TRAINING_ROWS - 1])
    said = []
    for at_s, row in zip(times[TRAINING_ROWS:], values[TRAINING_ROWS:], strict=True):
        for name, value in zip(fit.quantities, row, strict=True):
            detector.see(name, value, at_s)
        said.append(detector.judge(at_s).label == "anomaly")
    return said


def score_of(said, truth):
    """F1, false alarm rate, missing alarm rate; rows as they are, no point adjustment."""
    pairs = list(zip(said, truth, strict=True))
    tp, fp = pairs.count((True, True)), pairs.count((True, False))
    fn, tn = pairs.count((False, True)), pairs.count((False, False))
    return 2 * tp / (2 * tp + fp + fn), fp / (fp + tn), fn / (fn + tp)


def skab(arguments):
    files = list(skab_files(arguments.data))
    if not files:
        sys.exit(f"no labelled files under {arguments.data / 'skab' / 'data'}")
    truth = [label for *_, labels in files for label in labels[TRAINING_ROWS:]]
    said, spent = {}, 0.0
    curve = {}
    for _, names, times, values, _ in files:
        fit = skab_fit(names, times, values, arguments.per_day)
        for name, network, threshold in networks(fit):
            begin = time.process_time()
            said.setdefault(name, []).extend(skab_judge(fit, network, threshold, times, values))
            spent += (time.process_time() - begin) * (name == "line, int8")
        for per_day in (0.01, 0.1, 0.3, 1, 3, 10, 30, 100, 1000):
            other = skab_fit(names, times, values, per_day)
            network = next(networks(other))
            curve.setdefault(per_day, []).extend(skab_judge(other, *network[1:], times, values))
    print(f"SKAB, {len(files)} files, {len(truth)} judged rows, first {TRAINING_ROWS} rows of each are the calibration\n")
    print(f"{'detector':24} {'F1':>6} {'FAR %':>7} {'MAR %':>7}")
    for name, labels in said.items():
        f1, far, mar = score_of(labels, truth)
        print(f"{name:24} {f1:6.3f} {100 * far:7.2f} {100 * mar:7.2f}")
    print(f"\n{'stated false alarms/day':24} {'F1':>6} {'FAR %':>7} {'MAR %':>7}   (line, int8)")
    for per_day, labels in curve.items():
        f1, far, mar = score_of(labels, truth)
        print(f"{per_day:24g} {f1:6.3f} {100 * far:7.2f} {100 * mar:7.2f}")
    agree = sum(a == b for a, b in zip(said["line, int8"], said["line, fp32"], strict=True)) / len(truth)
    f1, far, mar = score_of(said["line, int8"], truth)
    each_us = 1e6 * spent / len(truth)
    print(f"\nint8 and fp32 agree on {100 * agree:.2f} % of the rows; one judgement takes {each_us:.0f} µs of processor time")
    return {"skab_f1": f1, "skab_far": far, "skab_mar": mar, "int8_agrees": agree, "judge_us": each_us}

COMMANDS = {"skab": skab}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EDGE_AGENT_DATA", ROOT.parent / "shared" / "data")))
    parser.add_argument("--per-day", type=float, default=1.0, help="false alarms per day that the limits are set for")
    arguments = parser.parse_args()
    print(json.dumps(COMMANDS[arguments.command](arguments)))


if __name__ == "__main__":
    main()
