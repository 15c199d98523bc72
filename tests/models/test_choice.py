"""Which variant decides on a board: measured, and said with its reason."""

import pytest

from edge_agent.errors import ModelError
from models.choice import Measured, choose


def measured(variant, p50_ms, *, threads=1, p95_ms=None, **more):
    return Measured(
        variant=variant, threads=threads, p50_ms=p50_ms, p95_ms=p95_ms or p50_ms * 1.2, rss_bytes=1, same=1.0, **more
    )


def absent(variant):
    return Measured(variant=variant, threads=1, p50_ms=0, p95_ms=0, rss_bytes=0, same=0, wrong="no runtime")


@pytest.mark.parametrize(
    ("table", "chosen", "why"),
    [
        ([("int8-onnx", 1.0), ("fp32-onnx", 2.0)], "int8-onnx", "1 ms on 1 thread"),
        ([("int8-onnx", 3.0), ("fp32-onnx", 2.0)], "fp32-onnx", "2 ms on 1 thread; int8 is not faster here (3 ms)"),
        ([("int8-onnx", 2.1), ("fp32-onnx", 2.0)], "int8-onnx", "2.1 ms on 1 thread"),
        ([("fp32-onnx", 2.0)], "fp32-onnx", "2 ms on 1 thread"),
    ],
)
def test_the_fastest_decides_and_why_is_said(table, chosen, why):
    """What is nearly as fast and preferred by the card counts as fast; int8 that is slower is said to be."""
    choice = choose([measured(*row) for row in table])

    assert (choice.variant, choice.why) == (chosen, why)


def test_fewer_threads_are_better_where_more_hardly_help():
    """The other cores belong to metering."""
    table = [measured("int8-onnx", 1.0), measured("int8-onnx", 0.95, threads=2), measured("int8-tflite", 5.0)]

    assert (choose(table).variant, choose(table).threads) == ("int8-onnx", 1)
    assert choose([measured("int8-onnx", 2.0), measured("int8-onnx", 1.0, threads=2)]).threads == 2


def test_who_decides_wrongly_or_has_no_runtime_is_not_chosen_and_not_compared_with():
    """However fast it is."""
    wrong = measured("int8-onnx", 0.1).model_copy(update={"same": 0.9, "wrong": "decides 10.0% wrongly"})

    assert choose([wrong, measured("fp32-onnx", 2.0)]).why == "2 ms on 1 thread; int8 cannot be used here"
    slow = [absent("int8-tflite"), measured("int8-onnx", 4.0), measured("fp32-onnx", 2.0)]
    assert choose(slow).why == "2 ms on 1 thread; int8 is not faster here (4 ms)"
    with pytest.raises(ModelError, match=r"no variant decides as it should.*10.0% wrongly"):
        choose([wrong])


def test_a_busy_board_is_told_of():
    """Times that vary say more of what else ran than of the models."""
    choice = choose([measured("int8-onnx", 1.0, p95_ms=9.0), measured("int8-tflite", 1.0, p95_ms=8.0)])

    assert "measure again" in choice.why
