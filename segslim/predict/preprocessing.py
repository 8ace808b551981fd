"""What an image goes through before the network: PaddleSeg's transforms without PaddleSeg, equal to the bit.

Only those listed in `TRANSFORMS`, which draw nothing at random and can be undone: deploy.yaml names them, and it may
come from anybody. Sizes are (width, height), images H,W,3 float32 RGB.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, FiniteFloat, ValidationError, with_config

from segslim.deployment.deployment import shown
from segslim.errors import UserError
from segslim.files import reader

Image = NDArray[np.float32]
Side = Annotated[int, Field(ge=1, le=1 << 14)]
Size = tuple[Side, Side]
PerChannel = Annotated[tuple[FiniteFloat, ...], Field(min_length=1, max_length=1024)]

MOST_PIXELS = 1 << 26
Step = tuple[int, int, bool]  # (height, width) before a change of size, and whether it padded
INTERPOLATIONS = {
    "NEAREST": cv2.INTER_NEAREST,
    "LINEAR": cv2.INTER_LINEAR,
    "CUBIC": cv2.INTER_CUBIC,
    "AREA": cv2.INTER_AREA,
    "LANCZOS4": cv2.INTER_LANCZOS4,
}

_strict = with_config(ConfigDict(extra="forbid"))


class Transform(Protocol):
    """One step; `pads` says that a change of size is undone by cropping at the lower right, not by resizing."""

    pads: ClassVar[bool]

    def __call__(self, image: Image) -> Image: ...


@_strict
@dataclass(frozen=True)
class Resize:
    target_size: Size = (512, 512)
    keep_ratio: bool = False
    size_divisor: Side | None = None
    interp: Literal["NEAREST", "LINEAR", "CUBIC", "AREA", "LANCZOS4"] = "LINEAR"
    pads: ClassVar[bool] = False

    def __call__(self, image: Image) -> Image:
        size = [*self.target_size]
        if self.keep_ratio:
            now = image.shape[1::-1]
            scale = min(max(size) / max(now), min(size) / min(now))
            size = [round(side * scale) for side in now]
        if self.size_divisor is not None:
            size = [math.ceil(side / self.size_divisor) * self.size_divisor for side in size]
        return _resized(image, size[0], size[1], INTERPOLATIONS[self.interp])


@_strict
@dataclass(frozen=True)
class ResizeByLong:
    long_size: Side
    pads: ClassVar[bool] = False

    def __call__(self, image: Image) -> Image:
        return _scaled(image, float(self.long_size) / float(max(image.shape[:2])))


@_strict
@dataclass(frozen=True)
class ResizeByShort:
    """Each image for itself: PaddleSeg 2.8.0 keeps the shorter side that `max_size` forced for all later images."""

    short_size: Side
    max_size: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1e10
    pads: ClassVar[bool] = False

    def __call__(self, image: Image) -> Image:
        short, long = min(image.shape[:2]), max(image.shape[:2])
        target = self.short_size
        if target / short * long > self.max_size:
            target = int((self.max_size / long) * short)
        return _scaled(image, float(target) / float(short))


@_strict
@dataclass(frozen=True)
class LimitLong:
    max_long: Side | None = None
    min_long: Side | None = None
    pads: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.max_long is not None and self.min_long is not None and self.min_long > self.max_long:
            raise ValueError(f"min_long is more than max_long={self.max_long}")

    def __call__(self, image: Image) -> Image:
        long = max(image.shape[:2])
        target = long
        if self.max_long is not None and long > self.max_long:
            target = self.max_long
        elif self.min_long is not None and long < self.min_long:
            target = self.min_long
        return image if target == long else _scaled(image, float(target) / float(long))


@_strict
@dataclass(frozen=True)
class Normalize:
    mean: PerChannel = (0.5,)
    std: PerChannel = (0.5,)
    pads: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if 0 in self.std:
            raise ValueError("std holds 0")

    def __call__(self, image: Image) -> Image:
        if not {len(self.mean), len(self.std)} <= {1, image.shape[2]}:
            raise UserError(
                f"Normalize has a mean of {len(self.mean)} and an std of {len(self.std)} numbers, and the image"
                f" {image.shape[2]} channels: give one number, or one for each"
            )
        image = image / np.float32(255)
        image -= np.array(self.mean)
        image /= np.array(self.std)
        return image


@_strict
@dataclass(frozen=True)
class Padding:
    target_size: Size
    im_padding_value: FiniteFloat = 127.5
    label_padding_value: int = 255
    pads: ClassVar[bool] = True

    def __call__(self, image: Image) -> Image:
        return _padded(image, *self.target_size, self.im_padding_value)


@_strict
@dataclass(frozen=True)
class PaddingByAspectRatio:
    """`aspect_ratio` is width by height."""

    aspect_ratio: Annotated[float, Field(ge=1e-9, le=1e9)] = 1.0
    im_padding_value: FiniteFloat = 127.5
    label_padding_value: int = 255
    pads: ClassVar[bool] = True

    def __call__(self, image: Image) -> Image:
        height, width = image.shape[:2]
        if width / height > self.aspect_ratio:
            height = int(width / self.aspect_ratio)
        elif width / height < self.aspect_ratio:
            width = int(height * self.aspect_ratio)
        return _padded(image, width, height, self.im_padding_value)


TRANSFORMS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (Resize, ResizeByLong, ResizeByShort, LimitLong, Normalize, Padding, PaddingByAspectRatio)
}


def transform_from_node(node: Any, key: str) -> Transform:
    """The transform that `{type: Resize, target_size: [...]}` describes; `key` is where it stands, for errors.

    Raises UserError for a type that is not in `TRANSFORMS` and for an option that it does not take or that is refused.
    """
    options = dict(node) if isinstance(node, dict) else {}
    kind = options.pop("type", None)
    if not isinstance(kind, str) or kind not in TRANSFORMS:
        known = ", ".join(TRANSFORMS)
        raise UserError(f"{key}: the transform {shown(kind)} is not among those that can be applied: {known}")
    try:
        made: Transform = reader(TRANSFORMS[kind]).validate_python(options)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join([key, *(str(part) for part in fault["loc"][:1])])
        raise UserError(f"{where}={shown(fault['input'])}: {kind} refuses it: {fault['msg']}") from None
    return made


def apply(transforms: Sequence[Transform], image: NDArray[Any]) -> tuple[Image, list[Step]]:
    """The network's input 1,C,H,W of an image H,W,C in 0..255, and what was done to its size.

    Raises UserError for an image that a transform cannot take.
    """
    changed: Image = image.astype(np.float32)
    steps = []
    for transform in transforms:
        height, width = changed.shape[:2]
        changed = transform(changed)
        changed = changed[..., np.newaxis] if changed.ndim == 2 else changed  # OpenCV drops a single channel
        if changed.shape[:2] != (height, width):
            steps.append((height, width, transform.pads))
    return np.ascontiguousarray(changed.transpose(2, 0, 1)[np.newaxis], np.float32), steps


def _scaled(image: Image, scale: float) -> Image:
    height, width = image.shape[:2]
    return _resized(image, round(width * scale), round(height * scale), cv2.INTER_LINEAR)


def _resized(image: Image, width: int, height: int, interpolation: int) -> Image:
    _require_size(image, width, height)
    return cv2.resize(image, (width, height), interpolation=interpolation)


def _padded(image: Image, width: int, height: int, value: float) -> Image:
    _require_size(image, width, height)
    below, right = height - image.shape[0], width - image.shape[1]
    if below < 0 or right < 0:
        raise UserError(
            f"{image.shape[1]} x {image.shape[0]} pixels are too many to be padded to {width} x {height}: resize it"
        )
    return cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=(value,) * 4)


def _require_size(image: Image, width: int, height: int) -> None:
    if min(width, height) < 1 or width * height > MOST_PIXELS:
        raise UserError(
            f"{image.shape[1]} x {image.shape[0]} pixels would become {width} x {height}, which no network takes"
        )
