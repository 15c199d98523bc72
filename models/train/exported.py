"""One trained network as four files: ONNX and TFLite, each with real numbers (fp32) and with 8-bit ones (int8).

int8 is static: the ranges are the smallest and largest that real pictures led to (never a moving average: it forgets
the rare large ones, which are the defects), weights per channel. The trunk alone is quantised: what is made of it costs
next to nothing, and real numbers there are what makes int8 decide as fp32 does. Inputs have the card's scaling on both
sides, so one pixel becomes the same number in all four.

The converters are heavy and for workstations; nobody else imports them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import nn

from models.train.networks import Shipped

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

INPUT: Final = "picture"
OPSET: Final = 18


def preferred(shipped: Shipped, pictures: Array) -> dict[str, bytes]:
    """``int8.onnx`` alone, for whoever only examines; as :func:`variants`."""
    shipped = shipped.to(memory_format=torch.contiguous_format).eval()
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        onnx = _onnx(shipped, pictures[:1], Path(folder))
        return {"int8.onnx": _int8_onnx(onnx, pictures, Path(folder))}


def variants(shipped: Shipped, pictures: Array) -> dict[str, bytes]:
    """``fp32.onnx``, ``int8.onnx``, ``fp32.tflite``, ``int8.tflite``.

    ``pictures``: n × c × h × w, scaled as the card says: real ones of all kinds, to find the ranges with.
    """
    shipped = shipped.to(memory_format=torch.contiguous_format).eval()
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        onnx = _onnx(shipped, pictures[:1], Path(folder))
        tflite = _tflite(shipped, pictures[:1])
        return {
            "fp32.onnx": onnx,
            "int8.onnx": _int8_onnx(onnx, pictures, Path(folder)),
            "fp32.tflite": tflite,
            "int8.tflite": _named(_int8_tflite(tflite, pictures), shipped.names),
        }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The converters tell a lot about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


# --- ONNX


def _onnx(shipped: Shipped, picture: Array, folder: Path) -> bytes:
    path = folder / "fp32.onnx"
    torch.onnx.export(
        shipped,
        (torch.from_numpy(picture),),
        str(path),
        input_names=[INPUT],
        output_names=list(shipped.names),
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    return path.read_bytes()


class _Feed:
    """Pictures, one by one, as ONNX Runtime's calibration asks for them."""

    def __init__(self, pictures: Array) -> None:
        self._left = iter(pictures)

    def get_next(self) -> dict[str, Array] | None:
        picture = next(self._left, None)
        return None if picture is None else {INPUT: picture[None]}


def _int8_onnx(onnx: bytes, pictures: Array, folder: Path) -> bytes:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static  # noqa: PLC0415
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    prepared, path = folder / "prepared.onnx", folder / "int8.onnx"
    (folder / "fp32.onnx").write_bytes(onnx)
    quant_pre_process(str(folder / "fp32.onnx"), str(prepared))
    quantize_static(
        str(prepared),
        str(path),
        _Feed(pictures),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        nodes_to_exclude=_outside(onnx),
    )
    return path.read_bytes()


def _outside(onnx: bytes) -> list[str]:
    """The nodes that are not part of the trunk; the exporter notes which module each came from."""
    from onnx import load_from_string  # noqa: PLC0415

    names = []
    for node in load_from_string(onnx).graph.node:
        scopes = next((each.value for each in node.metadata_props if each.key.endswith("name_scopes")), "")
        if "trunk" not in scopes:
            names.append(node.name)
    return names


# --- TFLite


class _LastChannels(nn.Module):
    """TFLite has the channels last, on both sides."""

    def __init__(self, shipped: Shipped) -> None:
        super().__init__()
        self.shipped = shipped

    def forward(self, x: Any) -> Any:
        said = self.shipped(x.permute(0, 3, 1, 2))
        said = said if isinstance(said, tuple) else (said,)
        return tuple(each.permute(0, 2, 3, 1) if each.ndim == 4 else each for each in said)


def _tflite(shipped: Shipped, picture: Array) -> bytes:
    import litert_torch  # noqa: PLC0415

    sample = torch.from_numpy(np.ascontiguousarray(picture.transpose(0, 2, 3, 1)))
    model = litert_torch.convert(_LastChannels(shipped).eval(), (sample,))
    with tempfile.TemporaryDirectory() as folder:
        model.export(f"{folder}/model.tflite")
        return _named(Path(folder, "model.tflite").read_bytes(), shipped.names)


def _named(data: bytes, names: tuple[str, ...]) -> bytes:
    """The same model, whose input and outputs have the names that the card says."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils  # noqa: PLC0415

    model = tfl_flatbuffer_utils.read_model(bytearray(data))
    graph = model.subgraphs[0]
    for index, name in zip([*graph.inputs, *graph.outputs], (INPUT, *names), strict=True):
        graph.tensors[index].name = name.encode()
    return bytes(_packed(model))


def _packed(model: Any) -> bytes:
    import flatbuffers  # noqa: PLC0415

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _int8_tflite(tflite: bytes, pictures: Array) -> bytes:
    from ai_edge_quantizer import calibrator, quantizer, recipe  # noqa: PLC0415
    from ai_edge_quantizer.utils import qsv_utils, tfl_flatbuffer_utils  # noqa: PLC0415

    rule = recipe.static_wi8_ai8()[0]
    trunk = [rule | {"regex": ".*(Sequential_|_Residual_).*"}, rule | {"operation": "INPUT"}]
    maker = quantizer.Quantizer(bytearray(tflite), trunk)
    measure = calibrator.Calibrator(bytearray(tflite), num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    signature = tfl_flatbuffer_utils.read_model(bytearray(tflite)).signatureDefs[0]
    key, name = signature.signatureKey.decode(), signature.inputs[0].name.decode()
    feed = [{name: np.ascontiguousarray(picture.transpose(1, 2, 0))[None]} for picture in pictures]
    measure.calibrate({key: feed}, maker._recipe_manager)  # noqa: SLF001 - calibrate() itself is a moving average
    return bytes(maker.quantize(measure.get_model_qsvs(), enable_progress_report=False).quantized_model)
