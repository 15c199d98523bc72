"""Anomaly detectors against real data: ``python bench/anomaly.py skab|nab|motes|fit [--data FOLDER]``.

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
from math import exp
from pathlib import Path

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


def skab_fit(names, times, values, per_day):
    from models.train.alignment import align
    from models.train.line import fit_line

    series = {
        name: (times[:TRAINING_ROWS], [row[index] for row in values[:TRAINING_ROWS]])
        for index, name in enumerate(names)
    }
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
    print(
        f"SKAB, {len(files)} files, {len(truth)} judged rows, first {TRAINING_ROWS} rows of each are the calibration\n"
    )
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
    print(
        f"\nint8 and fp32 agree on {100 * agree:.2f} % of the rows; one judgement takes {each_us:.0f} µs of processor time"
    )
    return {"skab_f1": f1, "skab_far": far, "skab_mar": mar, "int8_agrees": agree, "judge_us": each_us}


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

    late, false = [], 0
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
        print(
            f"{name:24} {hours:6.1f} {f'{events[0]:.0f} s' if events else '-':>9} {f'{after:.0f} s' if after is not None else '-':>12} {wrong:13}"
        )
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
fit = fit_line(align(series))
networks = [line_graph(10, len(fit.parameters["fast_s"]), precision) for precision in ("fp32", "int8")]
print(json.dumps({{"fit_s": time.process_time() - begin, "fit_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}}))
"""


def fit(_):
    """Measured in a process of its own, so that the peak is its own."""
    text = FIT.format(root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True)
    told = json.loads(done.stdout)
    print("10 quantities, 1 h at 1 Hz, both networks, imports included")
    print(
        f"processor time {told['fit_s']:.2f} s, peak memory {told['fit_peak_mb']:.0f} MB (the interpreter and NumPy included)"
    )
    return told


COMMANDS = {"skab": skab, "nab": nab, "motes": motes, "fit": fit}


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
