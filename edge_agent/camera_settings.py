"""What a config says of a camera: its pictures, what triggers it, who judges, and what is kept as evidence."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from edge_agent.settings import Duration, Region, Resolution, Section, Size

_OF_GPIO = ("line", "chip", "edge", "pull", "debounce", "delay", "within")
_OF_MOTION = ("moved", "still")


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class PictureSection(Section):
    """What a picture must be to be judged at all."""

    max_pixels: int = Field(default=40_000_000, ge=1, description="More pixels than this are refused before decoding.")
    black_below: int = Field(
        default=16, ge=0, le=255, description="Black: 99 % of the pixels are darker than this (0 to 255)."
    )
    over_exposed_above: float = Field(
        default=0.6, gt=0, le=1, description="Over-exposed: more than this share of the pixels is white."
    )
    frozen_after: int = Field(
        default=2, ge=0, description="Frozen: repeated so often without even the noise of a sensor; 0: never."
    )


class RuleSection(Section):
    """The rule that decides while there is no model, or while the model cannot."""

    kind: Literal["dark-spot"] = Field(default="dark-spot", description="Which rule.")
    threshold: float = Field(
        default=0.15,
        gt=0,
        lt=1,
        description="From which score on it is a defect: contrast of the darkest spot, 0 to 1.",
    )


class TriggerSection(Section):
    """When a picture is judged."""

    kind: Literal["time", "gpio", "motion", "simulated"] = Field(
        default="time",
        description="`time`: as `every` says; `gpio`: a sensor on a line sees a part (`simulated`: a twin of one); "
        "`motion`: what moved is still.",
    )
    line: int | None = Field(default=None, ge=0, le=53, description="`gpio`: the line of the sensor (BCM number).")
    chip: int | None = Field(default=None, ge=0, description="`gpio`: number of the /dev/gpiochip, as for outputs.")
    edge: Literal["rising", "falling"] = Field(default="falling", description="`gpio`: which edge means a part.")
    pull: Literal["up", "down", "none"] = Field(default="up", description="`gpio`: the chip's own resistor.")
    debounce: Duration = Field(default=0.005, ge=0, le=0.3, description="`gpio`: the level holds so long to count.")
    delay: Duration = Field(default=0.0, ge=0, le=60, description="`gpio`: from the edge until the part is in sight.")
    within: Duration = Field(
        default=1.0, gt=0, le=60, description="`gpio`: for how long it stays in sight from then on."
    )
    moved: float = Field(default=0.02, gt=0, lt=1, description="`motion`: it moves while more of the region changes.")
    still: Duration = Field(default=0.3, ge=0, le=60, description="`motion`: it is still when nothing moved so long.")

    @model_validator(mode="after")
    def _fits_its_kind(self) -> TriggerSection:
        fields = type(self).model_fields
        mine = {"gpio": _OF_GPIO, "motion": _OF_MOTION, "simulated": ("delay", "within")}.get(self.kind, ())
        others = (name for name in (*_OF_GPIO, *_OF_MOTION) if name not in mine)
        if foreign := [name for name in others if getattr(self, name) != fields[name].default]:
            raise ValueError(f"{', '.join(foreign)}: means nothing with kind: {self.kind}")
        if self.kind == "gpio" and self.line is None:
            raise ValueError("kind: gpio needs the line of the sensor")
        return self


class UncertainSection(Section):
    """Pictures that the model was unsure of, kept for people to label, in a room of their own."""

    margin: float = Field(
        default=0.1, ge=0, lt=1, description="Unsure: the score is within this share of the threshold; 0: never kept."
    )
    per_day: int = Field(default=50, ge=0, le=10_000, description="At most so many in 24 hours.")
    apart: Duration = Field(default=60.0, ge=0, description="At least so long between two of them.")
    quota: Size = Field(default=64 * 2**20, ge=2**20, description="Room on disk; the oldest pictures go first.")


class EvidenceSection(Section):
    """The pictures that are kept as evidence."""

    labels: tuple[str, ...] = Field(
        default=("defect", "anomaly"), description="For which verdicts; `not-inspected` is possible too."
    )
    pre: int = Field(default=2, ge=0, le=30, description="How many judged pictures before it are kept too.")
    post: int = Field(default=2, ge=0, le=30, description="How many judged pictures after it are kept too.")
    jpeg_quality: int = Field(default=90, ge=1, le=100, description="Of pictures that did not come as JPEG.")
    quota: Size = Field(default=256 * 2**20, ge=2**20, description="Room on disk; the oldest pictures go first.")
    keep: Duration = Field(default=30 * 86400.0, gt=0, description="Older pictures go.")
    keep_free: Size = Field(default=128 * 2**20, ge=0, description="With less room left on the disk none is written.")
    overlay: bool = Field(default=True, description="Whether a copy that shows where is kept beside it.")
    uncertain: UncertainSection = Field(default=UncertainSection(), description="What is kept to be labelled.")


class CameraSection(Section):
    """What every camera has; its kind adds its own."""

    kind: str = Field(description="What kind of camera it is.")
    every: Duration = Field(
        default=1.0, gt=0, description="How often a picture is judged; with `trigger: motion`, looked at."
    )
    trigger: TriggerSection = Field(default=TriggerSection(), description="When a picture is judged.")
    size: Resolution | None = Field(
        default=None, description="Width x height to ask for; other pictures are not inspected."
    )
    roi: Region | None = Field(
        default=None, description="The part that is judged: width x height + left + top, in pixels."
    )
    deadline: Duration = Field(
        default=5.0, gt=0, description="No sign of life for so long: the camera's process is killed and started again."
    )
    open_deadline: Duration = Field(
        default=30.0, gt=0, description="The same until the first picture has come, and while a model is loaded."
    )
    report_every: Duration = Field(
        default=60.0, gt=0, description="How often a camera without pictures is recorded as not inspected."
    )
    fps: float | None = Field(default=None, gt=0, description="Pictures per second that are expected; half is a fault.")
    recycle_above: Size | None = Field(
        default=None, description="The camera's process is started anew when it takes more memory than this."
    )
    model: Annotated[tuple[str, ...], BeforeValidator(_one_or_more, json_schema_input_type=str)] = Field(
        default=(), description="The model that decides, by its name under `models`; several are all asked."
    )
    rule: RuleSection = Field(default=RuleSection(), description="What decides while no model can.")
    picture: PictureSection = Field(default=PictureSection(), description="What a picture must be to be judged.")
    evidence: EvidenceSection = Field(default=EvidenceSection(), description="Which pictures are kept.")

    @field_validator("roi")
    @classmethod
    def _is_inside(cls, roi: tuple[int, int, int, int] | None, known: ValidationInfo) -> Any:
        size = known.data.get("size")
        if roi and 0 in roi[:2]:
            raise ValueError("the region is empty")
        if roi and size and (roi[0] + roi[2] > size[0] or roi[1] + roi[3] > size[1]):
            raise ValueError(f"the region reaches beyond the picture of {size[0]}x{size[1]}")
        return roi
