"""Plain letters for pictures: five by seven dots. A library would load a typeface for that, which is nine megabytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Seven rows of five dots each, a row as one digit to the base of 32.
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-/@,_: "
_DOTS: Final = """
ehhvhhh uhhuhhu ehggghe uhhhhhu vgguggv vgguggg ehgnhhf hhhvhhh e44444e 72222ic hikokih ggggggv hrllhhh
hhpljhh ehhhhhe uhhuggg ehhhlid uhhukih fgge11u v444444 hhhhhhe hhhhha4 hhhllla hha4ahh hhha444 v1248gv
ehjlphe 4c4444e eh1248v v2421he 26aiv22 vgu11he 68guhhe v124888 ehhehhe ehhf12c 00000cc 000v000 01248g0
ehnlnge 0000c48 000000v 0cc0cc0 0000000
"""
_ROWS: Final = dict(zip(_LETTERS, _DOTS.split(), strict=True))
_UNKNOWN: Final = "vhhhhhv"


def lettering(text: str, scale: int) -> npt.NDArray[np.bool_]:
    """Where the dots of a line are: ``7 * scale`` high, ``6 * scale`` wide per letter; small ones become capitals."""
    import numpy as np  # noqa: PLC0415 - whoever only reads settings does not pay for it

    glyphs = [_ROWS.get(letter.upper(), _UNKNOWN) for letter in text]
    rows = ["".join(f"{int(glyph[row], 32):05b}0" for glyph in glyphs) for row in range(7)]
    dots = np.array([[dot == "1" for dot in row] for row in rows], dtype=bool).reshape(7, -1)
    return dots.repeat(scale, axis=0).repeat(scale, axis=1)
