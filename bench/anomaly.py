"""Anomaly detectors against real data: ``python bench/anomaly.py skab|free|nab|motes|fit [--data FOLDER]``.

``skab``: every labelled file that is there, all detectors, all networks, the curve over stated false alarms.
``free``: the run of the same rig without anomalies: what the stated false alarms are worth, and faults planted in it.


Each command prints a table and, last, one line of JSON. The data are not part of the project: they are looked for in
``EDGE_AGENT_DATA``, default ``../shared/data`` beside the repository.
"""

# ruff: noqa: PLC0415, E501 - each command imports what it measures; tables are wide
import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from itertools import pairwise
from math import exp, pi, sin
from pathlib import Path
from random import Random

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def seconds(text):
    return datetime.fromisoformat(text).timestamp()


# --- SKAB ------------------------------------------------------------------------------------------------------------

TRAINING_ROWS = 400


def skab_files(data):
    for path in sorted(
        (data / "skab" / "data").glob("*/*.csv"),
        key=lambda path: (path.parent.name, int(path.stem) if path.stem.isdigit() else 0),
    ):
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


def skab_fit(names, times, values, per_day, rows=TRAINING_ROWS):
    from models.train.alignment import align
    from models.train.line import fit_line

    series = {name: (times[:rows], [row[index] for row in values[:rows]]) for index, name in enumerate(names)}
    return fit_line(align(series, 1.0), per_day)


def sessions(fit):
    """Name → session, threshold."""
    from models.onnx_session import OnnxSession
    from models.tflite_session import TfliteSession
    from models.train.graphs import baseline, line_graph
    from models.train.line_tflite import line_tflite

    size = len(fit.quantities), len(fit.parameters["fast_s"])
    for precision in ("int8", "fp32"):
        yield f"line, {precision} ONNX", OnnxSession(line_graph(*size, precision)), 1.0
        yield f"line, {precision} TFLite", TfliteSession(line_tflite(*size, precision)), 1.0
    for kind in ("isolation-forest", "lof"):
        network, threshold = baseline(kind, fit.rows)
        yield kind, OnnxSession(network), threshold


def replay(fit, session, threshold, times, values, rows=TRAINING_ROWS):
    """The judgements after the calibration, which ended just before them."""
    from models.anomaly import LineDetector

    detector = LineDetector(fit.quantities, fit.parameters, threshold, session)
    detector.resume(0.0, times[rows - 1])
    for at_s, row in zip(times[rows:], values[rows:], strict=True):
        for name, value in zip(fit.quantities, row, strict=True):
            detector.see(name, value, at_s)
        yield detector.judge(at_s)


def labels_of(*how):
    return [said.label == "anomaly" for said in replay(*how)]


def score_of(said, truth):
    """F1, false alarm rate, missing alarm rate; rows as they are, no point adjustment."""
    pairs = list(zip(said, truth, strict=True))
    tp, fp = pairs.count((True, True)), pairs.count((True, False))
    fn, tn = pairs.count((False, True)), pairs.count((False, False))
    return 2 * tp / max(2 * tp + fp + fn, 1), fp / max(fp + tn, 1), fn / max(fn + tp, 1)


def line_of(name, said, truth):
    f1, far, mar = score_of(said, truth)
    return f"{name:24} {f1:6.3f} {100 * far:7.2f} {100 * mar:7.2f}"


def agreement(one, other):
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


INT8 = "line, int8 ONNX"


def skab(arguments):
    files = list(skab_files(arguments.data))
    if not files:
        sys.exit(f"no labelled files under {arguments.data / 'skab' / 'data'}")
    truths = [labels[TRAINING_ROWS:] for *_, labels in files]
    truth = [label for labels in truths for label in labels]
    by_file, said, spent, curve = [], {}, 0.0, {}
    for _, names, times, values, _ in files:
        fit = skab_fit(names, times, values, arguments.per_day)
        for name, session, threshold in sessions(fit):
            begin = time.process_time()
            labels = labels_of(fit, session, threshold, times, values)
            spent += (time.process_time() - begin) * (name == INT8)
            said.setdefault(name, []).extend(labels)
            if name == INT8:
                by_file.append(labels)
        for per_day in (0.01, 0.1, 0.3, 1, 3, 10, 30, 100, 1000):
            other = skab_fit(names, times, values, per_day)
            _, session, threshold = next(sessions(other))
            curve.setdefault(per_day, []).extend(labels_of(other, session, threshold, times, values))
    print(
        f"SKAB, {len(files)} files, {len(truth)} judged rows, first {TRAINING_ROWS} rows of each are the calibration\n"
    )
    print(f"{'detector':24} {'F1':>6} {'FAR %':>7} {'MAR %':>7}")
    for name, labels in said.items():
        print(line_of(name, labels, truth))
    print(f"\n{'file, ' + INT8:24} {'F1':>6} {'FAR %':>7} {'MAR %':>7}")
    for (name, *_), labels, right in zip(files, by_file, truths, strict=True):
        print(line_of(name, labels, right))
    print(f"\n{'stated false alarms/day':24} {'F1':>6} {'FAR %':>7} {'MAR %':>7}   ({INT8})")
    for per_day, labels in curve.items():
        print(line_of(f"{per_day:g}", labels, truth))
    f1, far, mar = score_of(said[INT8], truth)
    each_us = 1e6 * spent / len(truth)
    int8 = agreement(said[INT8], said["line, fp32 ONNX"])
    tflite = agreement(said[INT8], said["line, int8 TFLite"])
    print(
        f"\nint8 and fp32 agree on {100 * int8:.2f} % of the rows, ONNX and TFLite on {100 * tflite:.2f} %; "
        f"one judgement takes {each_us:.0f} µs of processor time, at 1 Hz {each_us / 1e4:.3f} % of a core"
    )
    found = {"skab_f1": f1, "skab_far": far, "skab_mar": mar, "int8_agrees": int8, "tflite_agrees": tflite}
    return found | {"judge_us": each_us, "core_share_at_1_hz": each_us / 1e6}


# --- the run without anomalies ---------------------------------------------------------------------------------------

SHAPES = {  # of a planted fault, from its first to its last row: 0 to 1
    "step": lambda share: float(share >= 0.0),
    "ramp": lambda share: min(1.0, 4.0 * share),
    "creep": lambda share: share,
    "hump": lambda share: sin(pi * share),
}
FAULT = range(575, 975)


def free_run(data):
    header, *lines = (
        line.split(";")
        for line in (data / "skab" / "data" / "anomaly-free" / "anomaly-free.csv").read_text().splitlines()
    )
    return header[1:], [seconds(line[0]) for line in lines], [[float(cell) for cell in line[1:]] for line in lines]


def planted(values, random):
    """One to three quantities leave, by 8, 15 or 30 standard deviations of their means over ten rows."""
    from statistics import fmean

    changed = [list(row) for row in values]
    shape = SHAPES[random.choice(sorted(SHAPES))]
    for column in random.sample(range(len(values[0])), random.randint(1, 3)):
        means = [fmean(row[column] for row in values[at : at + 10]) for at in range(0, TRAINING_ROWS, 10)]
        size = fmean((after - before) ** 2 / 2 for before, after in pairwise(means)) ** 0.5
        size *= random.choice((-1, 1)) * random.choice((8, 15, 30))
        for at in FAULT:
            changed[at][column] += size * shape((at - FAULT.start) / len(FAULT))
    return changed


def free(arguments):
    names, times, values = free_run(arguments.data)
    told = {}
    print(f"{'calibrated on':>13} {'hours judged':>12} {'cases':>6} {'per day':>8} {'% of time':>9} {'longest s':>9}")
    for rows, starts, judged in ((400, range(0, 8400, 700), 4000), (3600, range(0, 5000, 1000), 3400)):
        hours = cases = open_rows = longest = 0
        for start in starts:
            part = times[start : start + rows + judged], values[start : start + rows + judged]
            fit = skab_fit(names, *part, arguments.per_day, rows)
            _, session, threshold = next(sessions(fit))
            since = None
            for at_s, said in zip(part[0][rows:], replay(fit, session, threshold, *part, rows), strict=True):
                cases += said.details.get("case") == "opened"
                open_rows += said.label == "anomaly"
                since = (at_s if since is None else since) if said.label == "anomaly" else None
                longest = max(longest, at_s - since if since is not None else 0)
            hours += (part[0][-1] - part[0][rows]) / 3600
        share = open_rows / (hours * 3600)
        print(f"{rows:8} rows {hours:12.1f} {cases:6} {24 * cases / hours:8.1f} {100 * share:9.2f} {longest:9.0f}")
        told |= {f"free_{rows}_cases_per_day": 24 * cases / hours, f"free_{rows}_open": share}
    random, said, truth = Random(1), [], []
    for start in range(0, 8200, 100):
        part = times[start : start + 1150], planted(values[start : start + 1150], random)
        fit = skab_fit(names, *part, arguments.per_day)
        _, session, threshold = next(sessions(fit))
        said += labels_of(fit, session, threshold, *part)
        truth += [row in FAULT for row in range(TRAINING_ROWS, 1150)]
    f1, far, mar = score_of(said, truth)
    print(f"\n82 planted faults of 400 rows: F1 {f1:.3f}, FAR {100 * far:.2f} %, MAR {100 * mar:.2f} %")
    return told | {"planted_f1": f1, "planted_far": far}


# --- NAB -------------------------------------------------------------------------------------------------------------
# Scoring as the benchmark defines it (Lavin and Ahmad 2015; Ahmad et al. 2017): the first 15 % of a file (at most 750
# rows) are probation; of each window the earliest detection counts, sigmoid of its place, later ones in it are free;
# every detection outside costs, less so just behind a window. 0: no detections at all, 100: every window at its start.

PROFILES = {"standard": (0.11, 1.0), "reward low FP": (0.22, 1.0), "reward low FN": (0.11, 2.0)}


def sigmoid(place):
    return 2.0 / (1.0 + exp(5.0 * place)) - 1.0 if place <= 3.0 else -1.0


def nab_files(data):
    windows = json.loads((data / "nab" / "labels" / "combined_windows.json").read_text())
    for path in sorted((data / "nab" / "data").glob("*/*.csv")):
        lines = [line.split(",") for line in path.read_text().splitlines()[1:]]
        times = [datetime.fromisoformat(line[0]).replace(tzinfo=UTC).timestamp() for line in lines]
        spans = []
        for begin, end in windows[f"{path.parent.name}/{path.name}"]:
            edges = [datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() for text in (begin, end)]
            inside = [row for row, at_s in enumerate(times) if edges[0] <= at_s <= edges[1]]
            spans.append((inside[0], inside[-1]))
        yield f"{path.parent.name}/{path.stem}", times, [float(line[1]) for line in lines], spans


def worth(rows, spans):
    """Per row: what a detection there earns (in a window, 1 at most) or costs (outside, -1 at most), and its window."""
    found, window = [], None
    for row in range(rows):
        inside = next((number for number, (begin, end) in enumerate(spans) if begin <= row <= end), None)
        if inside is not None:
            begin, end = spans[inside]
            found.append((sigmoid(-(end - row + 1) / (end - begin + 1)) / sigmoid(-1.0), inside))
            window = inside
        elif window is None:
            found.append((-1.0, None))
        else:
            begin, end = spans[window]
            found.append((sigmoid((row - end) / max(end - begin, 1)), None))
    return found


def nab_score(files, profile):
    """Normalised score, windows found, false detections; ``files``: rows detected, worth of each row, windows."""
    false_cost, miss_cost = PROFILES[profile]
    total = count = hits = false = 0
    for detected, values, spans in files:
        earned = {}
        for row in detected:
            value, window = values[row]
            if window is None:
                total += false_cost * value
                false += 1
            else:
                earned.setdefault(window, value)
        total += sum(earned.values()) - miss_cost * (len(spans) - len(earned))
        count += len(spans)
        hits += len(earned)
    return 100.0 * (total + miss_cost * count) / (count * (1.0 + miss_cost)), hits, false


def nab(arguments):
    from models.novelty import THRESHOLD, Novelty

    files = [(times, values, worth(len(times), spans), spans) for _, times, values, spans in nab_files(arguments.data)]
    if not files:
        sys.exit(f"no files under {arguments.data / 'nab' / 'data'}")
    rows = sum(len(times) for times, *_ in files)
    print(f"NAB, {len(files)} files, {rows} rows, {sum(len(spans) for *_, spans in files)} windows\n")
    print(f"{'threshold':>9} " + " ".join(f"{name:>14}" for name in PROFILES) + f" {'found':>6} {'false':>6}")
    table = {}
    for threshold in sorted({1.2, 1.25, THRESHOLD, 1.35, 1.4, 1.5, 2.0}):
        begin, judged = time.process_time(), []
        for times, values, worths, spans in files:
            detector = Novelty(threshold)
            news = [
                row
                for row, (value, at_s) in enumerate(zip(values, times, strict=True))
                if detector.step(value, at_s).news
            ]
            probation = min(int(0.15 * len(times)), 750)
            judged.append(([row for row in news if row >= probation], worths, spans))
        each_us = 1e6 * (time.process_time() - begin) / rows
        table[threshold] = {name: nab_score(judged, name)[0] for name in PROFILES}
        _, hits, false = nab_score(judged, "standard")
        mark = "  <- the detector's own" if threshold == THRESHOLD else ""
        scores = " ".join(f"{score:14.1f}" for score in table[threshold].values())
        print(f"{threshold:9g} {scores} {hits:6} {false:6}{mark}")
    print(f"\none value takes {each_us:.0f} µs of processor time")
    return {"nab_standard": table[THRESHOLD]["standard"], "nab": table[THRESHOLD], "value_us": each_us}


# --- climate motes ---------------------------------------------------------------------------------------------------


def mote_series(data):
    """Name → rows of seconds, temperature, relative humidity, event."""
    series = {}
    for line in (data / "wsn_temp_humidity" / "single_hop" / "data.csv").read_text().splitlines()[1:]:
        _, mote, _, humidity, temperature, event = line.split(",")
        rows = series.setdefault(f"mote {mote}", [])
        rows.append((5.0 * len(rows), float(temperature), float(humidity), event == "1"))
    return series


def occupancy_series(data):
    series = {}
    for path in sorted((data / "occupancy_temp_humidity").glob("*.txt")):
        lines = [line.replace('"', "").split(",") for line in path.read_text().splitlines()[1:]]
        series[f"office, {path.stem}"] = [(seconds(line[1]), float(line[2]), float(line[3]), False) for line in lines]
    return series


def motes(arguments):
    from models.sanity import Sanity

    late, false, days = [], 0, 0.0
    print(f"{'series':24} {'hours':>6} {'event at':>9} {'found after':>12} {'false alarms':>13}")
    for name, rows in {**mote_series(arguments.data), **occupancy_series(arguments.data)}.items():
        sanity = Sanity(("temperature", "relative_humidity"))
        events = [at_s for at_s, *_, event in rows if event]
        began = []
        for at_s, temperature, humidity, _ in rows:
            values = {"temperature": temperature, "relative_humidity": humidity}
            began += [at_s for change in sanity.step(values, at_s, at_s) if change.began]
        in_time = [at_s for at_s in began if events and events[0] <= at_s <= events[-1] + 60]
        wrong = len(began) - len(in_time)
        false += wrong
        after = in_time[0] - events[0] if in_time else None
        if events:
            late.append(after)
        hours = (rows[-1][0] - rows[0][0]) / 3600
        days += hours / 24 * name.startswith("office")
        print(
            f"{name:24} {hours:6.1f} {f'{events[0]:.0f} s' if events else '-':>9} {f'{after:.0f} s' if after is not None else '-':>12} {wrong:13}"
        )
    print(f"\n{days:.1f} days of office")
    return {"motes_found_after_s": late, "motes_false_alarms": false}


# --- cost of a fit ---------------------------------------------------------------------------------------------------

FIT = """
import json, resource, sys, time
sys.path.insert(0, {root!r})
import numpy as np
random = np.random.default_rng(7)
load = np.repeat(random.uniform(0.5, 1.0, 60), 60)
times = np.arange(3600.0)
series = {{f"q{{index}}": (times, load * (10 + index) + random.normal(0, 0.1, 3600)) for index in range(10)}}
begin = time.process_time()
from models.train.alignment import align
from models.train.graphs import line_graph
from models.train.line import fit_line
from models.train.line_tflite import line_tflite
fit = fit_line(align(series))
make = (line_graph, line_tflite)
networks = [each(10, len(fit.parameters["fast_s"]), precision) for each in make for precision in ("fp32", "int8")]
print(json.dumps({{"fit_s": time.process_time() - begin, "fit_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}}))
"""


def fit(_):
    """Measured in a process of its own, so that the peak is its own."""
    text = FIT.format(root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True)
    told = json.loads(done.stdout)
    print("10 quantities, 1 h at 1 Hz, all four networks, imports included")
    print(
        f"processor time {told['fit_s']:.2f} s, peak memory {told['fit_peak_mb']:.0f} MB (the interpreter and NumPy included)"
    )
    return told


COMMANDS = {"skab": skab, "free": free, "nab": nab, "motes": motes, "fit": fit}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("EDGE_AGENT_DATA", ROOT.parent / "shared" / "data"))
    )
    parser.add_argument("--per-day", type=float, default=1.0, help="false alarms per day that the limits are set for")
    arguments = parser.parse_args()
    print(json.dumps(COMMANDS[arguments.command](arguments)))


if __name__ == "__main__":
    main()
