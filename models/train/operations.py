"""How much a network computes, so that a person can tell what it costs on another board."""

from __future__ import annotations

from math import prod


def multiplications(data: bytes) -> int:
    """Of one run: of every convolution and product of matrices in an ONNX file whose input has a fixed size."""
    import onnx  # noqa: PLC0415 - an extra that only those need who make models

    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(data), data_prop=True).graph
    shapes = {
        each.name: [size.dim_value for size in each.type.tensor_type.shape.dim]
        for each in (*graph.input, *graph.value_info, *graph.output)
    }
    shapes |= {each.name: list(each.dims) for each in graph.initializer}
    found = 0
    for node in graph.node:
        if node.op_type == "Conv":
            found += prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
        elif node.op_type == "MatMul":
            found += prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return found
