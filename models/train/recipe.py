"""What training is told: declared once, read from ``recipes/*.yaml`` or the command line, written into the card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from edge_agent.document import parse, validate
from edge_agent.errors import ConfigError, Problem
from edge_agent.settings import Resolution, Section
from models.card import Data, Name, Number

Share = Annotated[float, Field(ge=0, le=1)]
RECIPES: Final = Path(__file__).parent / "recipes"


def _of_eights(size: tuple[int, int]) -> tuple[int, int]:
    if size[0] % 8 or size[1] % 8:
        raise ValueError("width and height must be multiples of 8: the network halves them three times")
    return size


class Recipe(Section):
    """One training, completely: the same recipe, pictures and seed lead to the same model."""

    name: Name = Field(default="defects", description="The bundle.")
    version: int = Field(default=1, ge=1, description="Of the bundle; an older one never replaces a newer one.")
    description: str = Field(default="", max_length=2000, description="For a person, in a sentence.")
    task: Literal["auto", "locate", "classify"] = Field(
        default="auto",
        description="Find where (polygons or masks), or tell classes apart; auto: what the labels allow.",
    )
    groups: str | None = Field(default=None, description="Regular expression that finds a picture's part in its path.")
    only_train: str | None = Field(
        default=None, description="Regular expression: pictures that are learned from, and never examine."
    )
    good: tuple[str, ...] = Field(default=(), description="Which classes are good; default: those that are called so.")
    size: Annotated[Resolution, AfterValidator(_of_eights)] | None = Field(
        default=None, description="Width x height of the model's picture; default: fitting."
    )
    colour: Literal["grey", "bgr"] = Field(default="bgr", description="What the model sees.")
    resize: Literal["area", "bilinear"] = Field(
        default="area", description="How a picture gets that size: by averaging areas, or faster from two neighbours."
    )
    mean: Number = Field(default=127.5, description="Of pixels from 0 to 255.")
    std: Annotated[float, Field(gt=0)] = Field(default=64.0, description="The same.")
    shares: tuple[Share, Share, Share] = Field(
        default=(0.7, 0.15, 0.15), description="Of the parts that train, choose the threshold, and examine."
    )
    folds: int = Field(
        default=0, ge=0, le=50, description="Examine by leaving out each of so many sets of parts; 0: one split."
    )
    seed: int = Field(default=0, ge=0, description="Of everything that is random.")
    steps: int = Field(default=900, ge=1, le=1_000_000, description="Batches; early stop may end it before.")
    batch: int = Field(default=20, ge=2, le=1024, description="Pictures, or cut-outs of them, per step.")
    patience: int = Field(default=0, ge=0, description="Stop after so many looks without progress; 0: never.")
    width: int = Field(default=48, ge=12, le=256, multiple_of=4, description="Channels of the network.")
    place: bool = Field(
        default=False, description="The camera does not move: learn where defects occur as well; locate only."
    )
    crop: int = Field(default=192, ge=32, le=1024, multiple_of=8, description="Side of a cut-out, pixels; locate only.")
    rate: float = Field(default=3e-3, gt=0, le=1, description="Highest learning rate.")
    decay: float = Field(default=0.02, ge=0, le=1, description="Weight decay.")
    zoom: Share = Field(default=0.2, description="How much nearer or farther a part may be.")
    turn: float = Field(default=0.05, ge=0, le=3.2, description="How far it may be turned, radians.")
    shift: Share = Field(default=0.05, description="How far it may be moved, as a share of half the picture.")
    light: Share = Field(default=1.0, description="How much the light may change.")
    mix: Share = Field(default=0.0, description="Share of batches in which pictures are mixed; classify only.")
    mirrored: bool = Field(
        default=False, description="Judge mirrored views as well, for four times the work; classify only."
    )
    features: bool = Field(
        default=False, description="Give what is seen in each cell as an output as well: a backbone; locate only."
    )
    weight: Share = Field(
        default=0.5, description="How much rare classes count: 0 as they are, 1 all the same; classify."
    )
    prior: Share = Field(
        default=0.0, description="How much the answer leans back to frequent classes after learning with weights."
    )
    false_rejects: Share | None = Field(
        default=0.01, description="Share of good parts that may be refused; null: as few mistakes as possible."
    )
    notice: str = Field(default="", max_length=10_000, description="What whoever passes the bundle on must be told.")
    data: tuple[Data, ...] = Field(
        default=(Data(name="own pictures", licence="own"),), min_length=1, description="For the card."
    )

    @model_validator(mode="after")
    def _adds_up(self) -> Recipe:
        if abs(sum(self.shares) - 1) > 1e-6 or min(self.shares) <= 0:
            raise ValueError("shares must be three numbers above 0 that add up to 1")
        if self.folds == 1:
            raise ValueError("folds must be 0, or 2 and more")
        return self


def read_recipe(source: str) -> Recipe:
    """A file, or the name of a recipe that comes with the product. Raises ConfigError."""
    path = RECIPES / f"{source}.yaml" if "/" not in source and not source.endswith(".yaml") else Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(sorted(each.stem for each in RECIPES.glob("*.yaml")))
        raise ConfigError([Problem(0, "--recipe", f"cannot read {path}; those that come along: {known}")]) from error
    document = parse(text, str(path))
    recipe = validate(document, Recipe) if isinstance(document.data, dict) else None
    if recipe is None or document.problems:
        raise ConfigError(document.problems or [Problem(0, "", "is no recipe", str(path))])
    return recipe


def with_options(recipe: Recipe, named: Mapping[str, Any]) -> Recipe:
    """The recipe with options of the command line in it; raises ConfigError that names them all."""
    try:
        return Recipe.model_validate(
            {**recipe.model_dump(mode="python", exclude={"size"}), "size": _text(recipe.size), **named}
        )
    except ValidationError as error:
        found = [
            Problem(0, f"--{str(each['loc'][0]).replace('_', '-')}" if each["loc"] else "", _words(each["msg"]))
            for each in error.errors()
        ]
        raise ConfigError(found) from error


def _words(message: str) -> str:
    return message.removeprefix("Value error, ")


def _text(size: tuple[int, int] | None) -> str | None:
    return f"{size[0]}x{size[1]}" if size else None
