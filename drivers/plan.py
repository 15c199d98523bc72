"""Which requests to send: values that stand near each other share one, because turnaround is dear.

A hole between two values is read too when its registers cost less on the wire than another request:
a hole of 7 registers costs 14 bytes on RTU, about what a request, a reply's head and two silences do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from drivers.decode import Register

Cut = tuple[int, int]
"""Function code and address: values before and from this address never share a request."""


@dataclass(frozen=True, slots=True)
class Block:
    """One request: ``count`` registers from ``start``, and the values in them, in order of address."""

    fc: int
    start: int
    count: int
    registers: tuple[Register, ...]


def plan(
    registers: Iterable[Register],
    *,
    max_registers: int = 125,
    hole: int = 7,
    barriers: Collection[int] = (),
    cuts: Collection[Cut] = (),
) -> tuple[Block, ...]:
    """The fewest requests that read every register once.

    ``hole``: the widest run of registers nobody asked for that a request may span. ``barriers``: addresses
    that no request may cross, under any function code; ``cuts``: the same for one, learned from the device.
    A register needs at most ``max_registers`` (with its scale register) and no barrier inside.
    """
    edges = sorted({*cuts, *((fc, barrier) for barrier in barriers for fc in (3, 4))})
    blocks: list[Block] = []
    members: list[Register] = []
    end = 0
    for register in sorted(registers, key=lambda row: (row.fc, row.first, row.end)):
        if members:
            head, last = members[0], members[-1]
            apart = (
                register.fc != head.fc
                or register.first - end > hole
                or max(end, register.end) - head.first > max_registers
                or any((last.fc, last.first) < edge <= (register.fc, register.first) for edge in edges)
            )
            if apart:
                blocks.append(_block(members, end))
                members = []
        end = max(end, register.end) if members else register.end
        members.append(register)
    if members:
        blocks.append(_block(members, end))
    return tuple(blocks)


def _block(members: list[Register], end: int) -> Block:
    start = members[0].first
    return Block(members[0].fc, start, end - start, tuple(members))


def cut(block: Block) -> Cut | None:
    """Where to divide a request that the device refused: at its widest hole, else in the middle.

    None when nothing is left to divide.
    """
    widest, middle, end = (0, 0), 0, block.start
    firsts = sorted({register.first for register in block.registers})
    if len(firsts) < 2:
        return None
    for register in block.registers:
        widest = max(widest, (register.first - end, register.first))
        end = max(end, register.end)
    middle = firsts[len(firsts) // 2]
    return block.fc, widest[1] if widest[0] > 0 else middle
