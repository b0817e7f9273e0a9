"""Transforms of pictures, to be composed: torchvision's names, arguments, results and `repr`.

Random ones draw from graphc's global generator; inside a DataLoader from the stream of the batch, so that
the number of workers changes nothing. Crops, flips and Normalize also take tensors [..., height, width].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from graphc.frontend.tensor import Tensor
from graphc.utils.data.host import rng
from graphc.vision import images
from graphc.vision.images import Fill, InterpolationMode, Picture

__all__ = [
    "CenterCrop",
    "ColorJitter",
    "Compose",
    "InterpolationMode",
    "Lambda",
    "Normalize",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomRotation",
    "RandomVerticalFlip",
    "Resize",
    "ToTensor",
]

Size = int | Sequence[int]


def _pair(size: Size) -> tuple[int, int]:
    """(height, width) of a square's side or a pair."""
    if isinstance(size, int):
        return size, size
    sides = tuple(size)
    if len(sides) == 1:
        return sides[0], sides[0]
    if len(sides) != 2:
        raise ValueError("Please provide only two dimensions (h, w) for size.")
    return sides[0], sides[1]


def _interpolation(mode: InterpolationMode) -> InterpolationMode:
    if not isinstance(mode, InterpolationMode):
        raise TypeError(f"interpolation should be an InterpolationMode, got {type(mode).__name__}")
    return mode


def _random(low: float, high: float) -> float:
    return float(rng().uniform(low, high))


def _chance(p: float) -> bool:
    return float(rng().random()) < p


class Compose:
    """Several transforms, one after another."""

    def __init__(self, transforms: Sequence[Callable]) -> None:
        self.transforms = transforms

    def __call__(self, img: Any) -> Any:
        for t in self.transforms:
            img = t(img)
        return img

    def __repr__(self) -> str:
        return "\n".join([f"{type(self).__name__}(", *[f"    {t}" for t in self.transforms], ")"])


class ToTensor:
    """A Pillow image or an array [height, width, channels] as a tensor [channels, height, width].

    Bytes become float32 in [0, 1]; other numbers keep their values. TypeError for anything else.
    """

    def __call__(self, pic: Any) -> Tensor:
        return images.to_tensor(pic)

    def __repr__(self) -> str:
        return "ToTensor()"


class Lambda:
    """A function of the user's as a transform. TypeError if it is not callable."""

    def __init__(self, lambd: Callable[[Any], Any]) -> None:
        if not callable(lambd):
            raise TypeError(f"Argument lambd should be callable, got {type(lambd).__name__!r}")
        self.lambd = lambd

    def __call__(self, img: Any) -> Any:
        return self.lambd(img)

    def __repr__(self) -> str:
        return "Lambda()"


class Normalize:
    """(x - mean) / std by channel, of a float tensor [..., channels, height, width]."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> None:
        self.mean, self.std, self.inplace = mean, std, inplace

    def __call__(self, tensor: Tensor) -> Tensor:
        return images.normalize(tensor, self.mean, self.std, self.inplace)

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std})"


class Resize:
    """A Pillow image scaled to `size`: (height, width), or a number for the smaller edge.

    max_size   bound for the longer edge when `size` is a number
    antialias  Pillow always filters when it shrinks a picture; False is a ValueError
    """

    def __init__(
        self,
        size: Size,
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
        max_size: int | None = None,
        antialias: bool | None = True,
    ) -> None:
        if not isinstance(size, (int, Sequence)):
            raise TypeError(f"Size should be int or sequence. Got {type(size)}")
        if isinstance(size, Sequence) and len(size) not in (1, 2):
            raise ValueError("If size is a sequence, it should have 1 or 2 values")
        if isinstance(size, Sequence) and len(size) == 2 and max_size is not None:
            raise ValueError(
                "max_size should only be passed if size specifies the length of the smaller edge"
            )
        if antialias is False:
            raise ValueError("Resize: Pillow always resizes with antialiasing; leave antialias=True")
        self.size, self.max_size, self.antialias = size, max_size, antialias
        self.interpolation = _interpolation(interpolation)

    def __call__(self, img: Picture) -> Any:
        return images.resize(img, *self._target(*images.size_of(img)), self.interpolation)

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.size, Sequence) and len(self.size) == 2:
            return self.size[0], self.size[1]
        short = self.size if isinstance(self.size, int) else self.size[0]
        long = int(short * max(height, width) / min(height, width))
        if self.max_size is not None and long > self.max_size:
            if self.max_size <= short:
                raise ValueError(
                    f"max_size = {self.max_size} must be strictly greater than the requested size for the "
                    f"smaller edge size = {self.size}"
                )
            short, long = int(self.max_size * short / long), self.max_size
        return (short, long) if height <= width else (long, short)

    def __repr__(self) -> str:
        return (
            f"Resize(size={self.size}, interpolation={self.interpolation.value}, max_size={self.max_size}, "
            f"antialias={self.antialias})"
        )


class CenterCrop:
    """The middle of a picture; a smaller one gets a border of zeros."""

    def __init__(self, size: Size) -> None:
        self.size = _pair(size)

    def __call__(self, img: Picture) -> Picture:
        height, width = images.size_of(img)
        rows, cols = self.size
        if rows > height or cols > width:
            extra = max(cols - width, 0), max(rows - height, 0)
            img = images.pad(img, (extra[0] // 2, extra[1] // 2, (extra[0] + 1) // 2, (extra[1] + 1) // 2))
            height, width = images.size_of(img)
        return images.crop(img, round((height - rows) / 2), round((width - cols) / 2), rows, cols)

    def __repr__(self) -> str:
        return f"CenterCrop(size={self.size})"


class RandomCrop:
    """A part of a picture at a random place.

    padding        border made first: one number, (horizontal, vertical) or (left, top, right, bottom)
    pad_if_needed  pad a picture that is too small; else that is a ValueError
    padding_mode   constant (`fill`), edge, reflect or symmetric
    """

    def __init__(
        self,
        size: Size,
        padding: int | Sequence[int] | None = None,
        pad_if_needed: bool = False,
        fill: Fill = 0,
        padding_mode: str = "constant",
    ) -> None:
        if padding_mode not in ("constant", "edge", "reflect", "symmetric"):
            raise ValueError("Padding mode should be either constant, edge, reflect or symmetric")
        self.size, self.padding, self.pad_if_needed = _pair(size), padding, pad_if_needed
        self.fill, self.padding_mode = fill, padding_mode

    def _sides(self) -> tuple[int, int, int, int]:
        if isinstance(self.padding, int):
            return (self.padding,) * 4
        given = tuple(self.padding or ())
        if len(given) not in (1, 2, 4):
            raise ValueError(
                f"Padding must be an int or a 1, 2, or 4 element tuple, not a {len(given)} element tuple"
            )
        left, top, right, bottom = given * (4 // len(given))
        return left, top, right, bottom

    def __call__(self, img: Picture) -> Picture:
        if self.padding is not None:
            img = images.pad(img, self._sides(), self.fill, self.padding_mode)
        height, width = images.size_of(img)
        rows, cols = self.size
        if self.pad_if_needed and (height < rows or width < cols):
            x, y = max(cols - width, 0), max(rows - height, 0)
            img = images.pad(img, (x, y, x, y), self.fill, self.padding_mode)
            height, width = images.size_of(img)
        if height < rows or width < cols:
            raise ValueError(
                f"Required crop size {self.size} is larger than input image size {(height, width)}"
            )
        draw = rng()
        top, left = int(draw.integers(0, height - rows + 1)), int(draw.integers(0, width - cols + 1))
        return images.crop(img, top, left, rows, cols)

    def __repr__(self) -> str:
        return f"RandomCrop(size={self.size}, padding={self.padding})"


class RandomResizedCrop:
    """A random part of a Pillow image, of random area and shape, scaled to `size`.

    scale  range of the part's area, as a share of the picture's
    ratio  range of its width over its height
    """

    def __init__(
        self,
        size: Size,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3.0 / 4.0, 4.0 / 3.0),
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
        antialias: bool | None = True,
    ) -> None:
        for name, value in (("Scale", scale), ("Ratio", ratio)):
            if not isinstance(value, Sequence):
                raise TypeError(f"{name} should be a sequence")
        if antialias is False:
            raise ValueError(
                "RandomResizedCrop: Pillow always resizes with antialiasing; leave antialias=True"
            )
        self.size, self.scale, self.ratio, self.antialias = _pair(size), scale, ratio, antialias
        self.interpolation = _interpolation(interpolation)

    def __call__(self, img: Picture) -> Any:
        top, left, height, width = self._part(*images.size_of(img))
        return images.resize(images.crop(img, top, left, height, width), *self.size, self.interpolation)

    def _part(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(top, left, height, width); the largest allowed middle part if ten draws do not fit."""
        draw = rng()
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = height * width * draw.uniform(*self.scale)
            ratio = math.exp(draw.uniform(low, high))
            cols, rows = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < cols <= width and 0 < rows <= height:
                top, left = draw.integers(0, height - rows + 1), draw.integers(0, width - cols + 1)
                return int(top), int(left), rows, cols
        rows, cols = height, width
        if width / height < min(self.ratio):
            rows = round(width / min(self.ratio))
        elif width / height > max(self.ratio):
            cols = round(height * max(self.ratio))
        return (height - rows) // 2, (width - cols) // 2, rows, cols

    def __repr__(self) -> str:
        scale, ratio = (tuple(round(v, 4) for v in value) for value in (self.scale, self.ratio))
        return (
            f"RandomResizedCrop(size={self.size}, scale={scale}, ratio={ratio}, "
            f"interpolation={self.interpolation.value}, antialias={self.antialias})"
        )


class _RandomFlip:
    _horizontal: bool

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, img: Picture) -> Picture:
        return images.flip(img, self._horizontal) if _chance(self.p) else img

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p={self.p})"


class RandomHorizontalFlip(_RandomFlip):
    """Left and right exchanged with probability `p`."""

    _horizontal = True


class RandomVerticalFlip(_RandomFlip):
    """Top and bottom exchanged with probability `p`."""

    _horizontal = False


class RandomRotation:
    """A Pillow image turned by a random angle, in degrees: from (low, high), or (-degrees, degrees).

    expand  enlarge the picture to hold all of the turned one
    center  (x, y) of the point that stays, by default the middle
    fill    colour of what comes in from outside
    """

    def __init__(
        self,
        degrees: float | Sequence[float],
        interpolation: InterpolationMode = InterpolationMode.NEAREST,
        expand: bool = False,
        center: tuple[float, float] | None = None,
        fill: Fill = 0,
    ) -> None:
        if isinstance(degrees, (int, float)):
            if degrees < 0:
                raise ValueError("If degrees is a single number, it must be positive.")
            degrees = (-degrees, degrees)
        if len(degrees) != 2:
            raise ValueError("degrees should be a sequence of length 2.")
        self.degrees = [float(d) for d in degrees]
        self.interpolation = _interpolation(interpolation)
        self.expand, self.center, self.fill = expand, center, fill

    def __call__(self, img: Picture) -> Any:
        angle = _random(*self.degrees)
        return images.rotate(img, angle, self.interpolation, self.expand, self.center, self.fill)

    def __repr__(self) -> str:
        center = "" if self.center is None else f", center={self.center}"
        return (
            f"RandomRotation(degrees={self.degrees}, interpolation={self.interpolation.value}, "
            f"expand={self.expand}{center}, fill={self.fill})"
        )


Range = float | tuple[float, float]


class ColorJitter:
    """Brightness, contrast, saturation and hue of a Pillow image changed at random, in random order.

    Each is a range (low, high) of factors, or a number x for (max(0, 1 - x), 1 + x); hue is a range of
    shifts within [-0.5, 0.5], or a number x for (-x, x).
    """

    def __init__(
        self, brightness: Range = 0, contrast: Range = 0, saturation: Range = 0, hue: Range = 0
    ) -> None:
        self.brightness = _factors("brightness", brightness)
        self.contrast = _factors("contrast", contrast)
        self.saturation = _factors("saturation", saturation)
        self.hue = _factors("hue", hue, center=0.0, bound=(-0.5, 0.5))

    def __call__(self, img: Picture) -> Any:
        images.pillow_only(img, "ColorJitter")
        changes = [
            (images.brightness, self.brightness),
            (images.contrast, self.contrast),
            (images.saturation, self.saturation),
            (images.hue, self.hue),
        ]
        for i in rng().permutation(4):
            change, between = changes[i]
            if between is not None:
                img = change(img, _random(*between))
        return img

    def __repr__(self) -> str:
        return (
            f"ColorJitter(brightness={self.brightness}, contrast={self.contrast}, "
            f"saturation={self.saturation}, hue={self.hue})"
        )


def _factors(
    name: str, value: Range, center: float = 1.0, bound: tuple[float, float] = (0.0, math.inf)
) -> tuple[float, float] | None:
    """The range of a jitter; None if it changes nothing."""
    if isinstance(value, (int, float)):
        if value < 0:
            raise ValueError(f"If {name} is a single number, it must be non negative.")
        low, high = center - value, center + value
        low = max(low, 0.0) if center else low
    elif isinstance(value, Sequence) and len(value) == 2:
        low, high = value
    else:
        raise TypeError(f"{name} should be a single number or a list/tuple with length 2.")
    if not bound[0] <= low <= high <= bound[1]:
        raise ValueError(f"{name} values should be between {bound}, but got {[low, high]}.")
    return None if low == high == center else (float(low), float(high))
