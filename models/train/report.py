"""One HTML file for people: what the model gets right, what it gets wrong, and the choice of a threshold.

Self-contained: no script, no other file, works from a stick.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge_agent import catalogue
from models.train import metrics
from models.train.examine import Parity, Result, picture
from models.train.pictures import Sample
from models.train.pixels import Pixels

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

_MISTAKES: Final = 24
_THUMB_PX: Final = (260, 200)  # width and height of what a picture of the contact sheet fits into
_CLOSE_PX: Final = 88  # width of what a close-up shows, of a larger picture
_SIDE: Final = 300
_STYLE: Final = """
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#1c2126}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse}
td,th{padding:.25em .7em;text-align:right;border-bottom:1px solid #d8dde2}th:first-child,td:first-child{text-align:left}
.sheet{display:flex;flex-wrap:wrap;gap:.8em}.sheet figure{margin:0;width:260px}
.sheet img{display:block;margin-bottom:3px}
figcaption{font-size:.85em;overflow-wrap:anywhere}.plots{display:flex;flex-wrap:wrap;gap:2em}
.bad{color:#a3160b}.note{color:#5a646e}svg text{font:11px system-ui,sans-serif;fill:#5a646e}
"""


def render(
    title: str,
    result: Result,
    parity: Parity,
    samples: Sequence[Sample],
    pixels: Pixels,
    facts: Iterable[tuple[str, str]],
    remarks: Sequence[str],
) -> str:
    """The whole page."""
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        _rows((), [(key, value) for key, value in facts]),
        "<h2>Pictures that it never saw</h2>",
        _rows((), [(key.replace("_", " "), _number(value)) for key, value in result.numbers().items()]),
        "<h2>The choice of a threshold</h2>",
        _thresholds(result),
        '<div class="plots">',
        _plot("recall over false rejects (ROC)", *metrics.roc(result.said.scores, result.bad)),
        _plot("precision over recall", *metrics.precision_recall(result.said.scores, result.bad)),
        _histogram(result),
        "</div>",
        "<h2>What was taken for what</h2>",
        _confusion(result),
        "<h2>Classes</h2>",
        _classes(result),
        "<h2>The same decisions everywhere</h2>",
        _parity(parity),
        "<h2>Worst mistakes</h2>",
        _sheet(result, samples, pixels),
    ]
    if remarks:
        parts += [
            "<h2>Remarks on the pictures</h2><ul>",
            *(f"<li>{html.escape(each)}</li>" for each in remarks),
            "</ul>",
        ]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _number(value: object) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _rows(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    top = f"<tr>{''.join(f'<th>{html.escape(each)}</th>' for each in heads)}</tr>" if heads else ""
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(_number(each))}</td>' for each in row)}</tr>" for row in rows)
    return f"<table>{top}{body}</table>"


def _thresholds(result: Result) -> str:
    heads = ("threshold", "good parts refused", "at most (95 % sure)", "defects found", "")
    rows = [(*map(float, each), "") for each in metrics.table(result.said.scores, result.bad)]
    rows.append((*map(float, result.row), "← set"))
    shown = [(f"{t:.4f}", f"{fr:.2%}", f"{most:.2%}", f"{recall:.2%}", note) for t, fr, most, recall, note in rows]
    good = int((~result.bad).sum())
    note = f'<p class="note">{good} good pictures: fewer than {math.ceil(3 / 0.01)} cannot prove 1 %.</p>'
    return _rows(heads, shown) + (note if good < 300 else "")


def _plot(title: str, x: Array, y: Array) -> str:
    chosen = np.unique(np.linspace(0, len(x) - 1, 400).astype(int))
    points = " ".join(f"{30 + _SIDE * x[k]:.1f},{10 + _SIDE * (1 - y[k]):.1f}" for k in chosen)
    lines = "".join(
        f'<path d="M{30 + _SIDE * k / 4} 10v{_SIDE}M30 {10 + _SIDE * k / 4}h{_SIDE}" stroke="#e4e8ec"/>'
        f'<text x="{22 + _SIDE * k / 4}" y="{_SIDE + 25}">{k / 4:g}</text>'
        f'<text x="2" y="{14 + _SIDE * (1 - k / 4)}">{k / 4:g}</text>'
        for k in range(5)
    )
    line = f'<polyline points="{points}" fill="none" stroke="#0b62a3" stroke-width="2"/>'
    return _figure(lines + line, title)


def _histogram(result: Result) -> str:
    """Scores of good (blue) and bad (red), each kind as shares of its own."""
    edges = np.linspace(0, 1, 41)
    bars = []
    for chosen, colour in ((~result.bad, "#0b62a3"), (result.bad, "#a3160b")):
        counts, _ = np.histogram(np.clip(result.said.scores[chosen], 0, 1), edges)
        heights = np.sqrt(counts / max(1, counts.max()))
        bars += [
            f'<rect x="{30 + _SIDE * k / 40:.1f}" y="{10 + _SIDE * (1 - h):.1f}" width="{_SIDE / 40:.1f}" '
            f'height="{_SIDE * h:.1f}" fill="{colour}" fill-opacity=".45"/>'
            for k, h in enumerate(heights)
        ]
    at = 30 + _SIDE * min(1.0, max(0.0, result.threshold))
    bars.append(f'<path d="M{at:.1f} 10v{_SIDE}" stroke="#1c2126" stroke-dasharray="4"/>')
    words = "scores of good (blue) and bad (red) pictures, heights as square roots; dashed: the threshold"
    return _figure("".join(bars), words)


def _figure(drawn: str, words: str) -> str:
    drawing = f'<svg width="{_SIDE + 50}" height="{_SIDE + 32}">{drawn}</svg>'
    return f"<figure>{drawing}<figcaption>{words}</figcaption></figure>"


def _confusion(result: Result) -> str:
    labels, matrix = result.matrix_labels, result.matrix
    rows = []
    for label, counts in zip(labels, matrix, strict=True):
        cells = "".join(
            f'<td style="background:rgba(11,98,163,{0.55 * count / max(1, counts.sum()):.2f})">{count or ""}</td>'
            for count in counts
        )
        rows.append(f"<tr><td>{html.escape(label)}</td>{cells}</tr>")
    heads = "".join(f"<th>{html.escape(label)}</th>" for label in ("is ↓ said →", *labels))
    return f"<table><tr>{heads}</tr>{''.join(rows)}</table>"


def _classes(result: Result) -> str:
    found = metrics.per_class(result.matrix)
    rows = [
        (label, each.pictures, each.precision, each.recall, each.f1)
        for label, each in zip(result.matrix_labels, found, strict=True)
    ]
    return _rows(("class", "pictures", "precision", "recall", "F1"), rows)


def _parity(parity: Parity) -> str:
    rows = [
        ("int8 as fp32, ONNX", f"{parity.quantised_onnx:.2%}"),
        ("int8 as fp32, TFLite", f"{parity.quantised_tflite:.2%}"),
        ("ONNX as TFLite, fp32", f"{parity.runtimes_fp32:.2%}"),
        ("ONNX as TFLite, int8", f"{parity.runtimes_int8:.2%}"),
        ("pictures", parity.pictures),
    ]
    return _rows((), rows)


def worst(result: Result, most: int = _MISTAKES) -> list[int]:
    """Numbers in the result of the pictures that it got most wrong, by how far the score is on the wrong side."""
    scores = result.said.scores
    off = np.where(result.bad, result.threshold - scores, scores - result.threshold)
    order = np.argsort(-off, kind="stable")
    wrong = [int(each) for each in order if off[each] > 0 or (not result.bad[each] and off[each] == 0)]
    return wrong[:most]


def _sheet(result: Result, samples: Sequence[Sample], pixels: Pixels) -> str:
    figures = []
    for number in worst(result):
        index = int(result.chosen[number])
        image = _outlined(picture(pixels, index), pixels.masks.get(index))
        views = [image]
        if (place := _place(result, number, pixels.masks.get(index))) and image.shape[1] > 3 * _CLOSE_PX:
            views.append(_close(picture(pixels, index), place))
        said = int(result.said.classes[number])
        word = (
            result.labels[said]
            if said >= 0
            else ("defect" if result.said.scores[number] >= result.threshold else "good")
        )
        caption = (
            f"{samples[index].path.name}: is {samples[index].label}, said {word} ({result.said.scores[number]:.3f})"
        )
        shown = "".join(f'<img src="{_source(view)}" alt="">' for view in views)
        figures.append(f"<figure>{shown}<figcaption>{html.escape(caption)}</figcaption></figure>")
    if not figures:
        return "<p>None.</p>"
    return f'<div class="sheet">{"".join(figures)}</div>'


def _source(image: Array) -> str:
    """As large as fits; small pictures in whole pixels, since it is the pixels that one wants to see."""
    encode: Callable[..., bytes] = catalogue.load(catalogue.PICTURES, "encode")
    resize: Callable[..., Any] = catalogue.load(catalogue.PICTURES, "resize")
    fits = min(_THUMB_PX[0] / image.shape[1], _THUMB_PX[1] / image.shape[0])
    if fits >= 1:
        image = image.repeat(int(fits), axis=0).repeat(int(fits), axis=1)
    else:
        image = resize(image, max(1, round(image.shape[1] * fits)), max(1, round(image.shape[0] * fits)))
    return f"data:image/jpeg;base64,{base64.b64encode(encode(image, 80)).decode()}"


def _place(result: Result, number: int, mask: Array | None) -> tuple[int, int] | None:
    """Column and row of what was missed, or of what was found where nothing is; None where nobody knows."""
    if result.bad[number]:
        rows, columns = np.nonzero(mask == 1) if mask is not None else ((), ())
        return (round(float(np.mean(columns))), round(float(np.mean(rows)))) if len(rows) else None
    column, row = result.said.places[number].tolist() if result.said.places is not None else (-1, -1)
    return (column, row) if column >= 0 else None


def _close(image: Array, place: tuple[int, int]) -> Array:
    """What is around this place, as the model gets it."""
    width, height = _CLOSE_PX, _CLOSE_PX * 2 // 3
    left = int(np.clip(place[0] - width // 2, 0, image.shape[1] - width))
    top = int(np.clip(place[1] - height // 2, 0, max(0, image.shape[0] - height)))
    return image[top : top + height, left : left + width]


def _outlined(image: Array, mask: Array | None) -> Array:
    """With a red border around what the label says."""
    if mask is None:
        return image
    inside = mask == 1
    core = inside.copy()
    core[1:-1, 1:-1] = inside[1:-1, 1:-1] & inside[2:, 1:-1] & inside[:-2, 1:-1] & inside[1:-1, 2:] & inside[1:-1, :-2]
    image = image.copy()
    image[inside & ~core] = (0, 0, 255)
    return image
