"""The format of a meter profile, declared once: what ``drivers/meters/*.yaml`` and a user's own file may say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from drivers.decode import TYPES, Decoder, Register
from edge_agent.settings import Duration, Section
from edge_agent.vocabulary import GAUGE

DEFAULT_GROUP = "default"
"""The group of rows that name none; it follows the device's ``every``."""

Order = Literal["big", "little"]
Address = Annotated[int, Field(ge=0, le=0xFFFF)]
FunctionCode = Literal[3, 4]
Type = Literal["u16", "s16", "u32", "s32", "u64", "s64", "f32", "f64", "bits", "string"]


class RegisterRow(Section):
    """One value in the meter."""

    at: Address = Field(description="Address on the wire, 0-based; with `discover`, from the start of the model.")
    fc: FunctionCode = Field(description="Function code: 3 holding registers, 4 input registers.")
    type: Type = Field(description="How the registers hold it.")
    unit: str = Field(default="", description="Unit of the scaled value; converted to the quantity's own.")
    doc: str = Field(default="", description="The manual's wording.")
    doc_ref: str | int = Field(default="", description="The register number as the manual prints it.")
    group: str = Field(default=DEFAULT_GROUP, description="Which of `groups` it is read with.")
    count: int | None = Field(default=None, ge=1, le=125, description="Registers, for bits (1, 2, 4) and string.")
    scale: float = Field(default=1.0, allow_inf_nan=False, description="Value = raw × scale + offset.")
    offset: float = Field(default=0.0, allow_inf_nan=False, description="Added after scaling.")
    sentinels: list[int | float] = Field(default=[], description='Raw values that mean "no value".')
    word_order: Order | None = Field(default=None, description="big: most significant word first.")
    byte_order: Order | None = Field(default=None, description="Order of the bytes within a word.")
    bit: int | None = Field(default=None, ge=0, le=63, description="For bits: which one, 0 = least significant.")
    scale_from: Address | None = Field(default=None, description="Where a decimal exponent (sunssf) stands.")

    @property
    def size(self) -> int:
        """Registers that it takes."""
        return TYPES[self.type][0] if self.type in TYPES else self.count or 1

    @model_validator(mode="after")
    def _fits(self) -> RegisterRow:
        if self.scale == 0 or not 1e-12 < abs(self.scale) < 1e12:
            raise ValueError(f"scale {self.scale} is not usable")
        if self.type in TYPES and self.count not in (None, self.size):
            raise ValueError(f"{self.type} has {self.size} registers, not {self.count}")
        if self.type == "bits" and self.size not in (1, 2, 4):
            raise ValueError("bits have a count of 1, 2 or 4")
        if self.bit is not None and (self.type != "bits" or self.bit >= 16 * self.size):
            raise ValueError(f"bit {self.bit} needs type bits and a count that holds it")
        if self.at + self.size > 0x10000:
            raise ValueError(f"ends beyond address 0xFFFF ({self.at:#06x} + {self.size})")
        for value in self.sentinels:
            self.raw(value)
        return self

    def raw(self, sentinel: float) -> float:
        """A sentinel as the raw value that decoding sees: for integers it is written as a bit pattern."""
        if self.type in ("f32", "f64"):
            return sentinel
        bits = 16 * self.size
        if not isinstance(sentinel, int) or not -(1 << (bits - 1)) <= sentinel < 1 << bits:
            raise ValueError(f"sentinel {sentinel} does not fit into {self.type}")
        pattern = sentinel % (1 << bits)
        negative = self.type[0] == "s" and pattern >> (bits - 1)
        return pattern - (1 << bits) if negative else pattern


class SerialRow(Section):
    """Where the meter's serial number stands."""

    fc: FunctionCode = Field(default=3, description="Function code.")
    at: Address = Field(description="Address on the wire.")
    type: Type = Field(default="string", description="How the registers hold it.")
    count: int = Field(default=1, ge=1, le=125, description="Registers of a string.")
    word_order: Order = Field(default="big", description="big: most significant word first.")

    @property
    def size(self) -> int:
        return TYPES[self.type][0] if self.type in TYPES else self.count

    def number(self, data: bytes) -> float | None:
        """What registers of a number hold."""
        values: dict[str, float] = {}
        row = Register(name="", at=0, fc=self.fc, type=self.type, count=self.size, word_order=self.word_order)
        Decoder([row], 0).decode(data, values, {})
        return values.get("")

    def text(self, data: bytes) -> str | None:
        """What the registers read say; None where nothing was ever written there."""
        if not data.strip(b"\x00") or not data.strip(b"\xff"):
            return None
        if self.type in ("string", "bits"):
            said = data.decode("latin-1").strip("\x00\xff ")
            return said if said and said.isprintable() else None
        number = self.number(data)
        return None if number is None else f"{number:.0f}"


class IdentityRow(SerialRow):
    """A register that tells which meter this is."""

    match: str | int | list[str | int] = Field(description="How the text begins, or the number; any of a list.")

    def matches(self, data: bytes) -> bool:
        """Whether the registers read say so."""
        expected = self.match if isinstance(self.match, list) else [self.match]
        if self.type in ("string", "bits"):
            text = data.decode("latin-1").strip("\x00 ")
            return any(text.startswith(str(word)) for word in expected)
        return self.number(data) in expected


class OwnQuantity(Section):
    """A quantity that the vocabulary does not know."""

    unit: str = Field(description="Its unit.")
    range: tuple[float, float] | None = Field(default=None, description="Outside of it a value is wrong.")
    kind: Literal["gauge", "counter"] = Field(default=GAUGE, description="A counter never goes backwards.")


def _words(value: object) -> bytes:
    try:
        data = bytes.fromhex(str(value))
    except ValueError:
        raise ValueError(f"{value!r} is not hexadecimal words") from None
    if len(data) % 2:
        raise ValueError(f"{value!r} is not a whole number of 16-bit words")
    return data


class Vector(Section):
    """Register contents and what they mean, in base units; None: absent."""

    note: str = Field(default="", description="Where it comes from or what it proves.")
    registers: dict[FunctionCode, dict[Address, Annotated[bytes, BeforeValidator(_words)]]] = Field(
        description="Function code → start address → words in hexadecimal."
    )
    expect: dict[str, float | None] = Field(description="Quantity → value in its base unit, or null for absent.")


class ProfileFile(Section):
    """A meter."""

    name: str = Field(description="Maker and model.")
    vendor: str = Field(description="Maker.")
    source: str = Field(description="Where the table comes from.")
    confidence: Literal["A", "B", "C"] = Field(description="A two independent sources, B one, C partly unverified.")
    verified: Literal["simulator", "device"] = Field(description="What it was tried on.")
    notes: str = Field(default="", description="What was not verified.")
    max_registers: int = Field(default=125, ge=1, le=125, description="Most registers per request.")
    barriers: list[Address] = Field(default=[], description="Addresses that no request may cross.")
    word_order: Order = Field(default="big", description="big: most significant word first.")
    byte_order: Order = Field(default="big", description="Order of the bytes within a word.")
    align: bool = Field(default=False, description="A read may not end inside a value.")
    holes: bool = Field(default=True, description="Whether a read may span registers that the table does not name.")
    bridge: int | None = Field(
        default=None, ge=0, le=123, description="Widest hole worth a read, where wider than usual."
    )
    groups: dict[str, Duration] = Field(default={}, description="Register groups and how often each is read.")
    serial: SerialRow | None = Field(default=None, description="Its serial number, which tells when it was exchanged.")
    identity: list[IdentityRow] = Field(default=[], description="What tells this meter from others; all must match.")
    discover: Literal["sunspec"] | None = Field(default=None, description="How the start of the map is found.")
    model: int | None = Field(default=None, description="The SunSpec model to find.")
    models: list[int] = Field(default=[], description="The SunSpec models of which one is to be found.")
    registers: dict[str, RegisterRow] = Field(min_length=1, description="Quantity → where it stands.")
    quantities: dict[str, OwnQuantity] = Field(default={}, description="Quantities of its own.")
    vectors: list[Vector] = Field(default=[], description="Register contents and what they mean.")

    @field_validator("groups")
    @classmethod
    def _periods(cls, groups: dict[str, float]) -> dict[str, float]:
        for name, period in groups.items():
            if period <= 0 or name == DEFAULT_GROUP:
                raise ValueError(f"{name}: needs another name" if period > 0 else f"{name}: must be longer than 0s")
        return groups

    @model_validator(mode="after")
    def _models(self) -> ProfileFile:
        if bool(self.discover) != bool(self.models or self.model):
            raise ValueError("discover: sunspec and model (or models) go together")
        return self
