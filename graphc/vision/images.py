"""What the transforms do to one picture: a Pillow image, or a tensor [..., height, width]."""

from __future__ import annotations

import enum
from typing import Any, cast

import numpy as np

from graphc.frontend.tensor import Tensor, from_array
from graphc.nn.functional import pad as pad_tensor

try:
    from PIL import Image, ImageEnhance, ImageOps
except ImportError as error:
    raise ImportError("graphc.vision needs Pillow: pip install 'graphc[vision]'") from error

Picture = Any  # a Pillow image or a Tensor
Fill = float | tuple[float, ...]


class InterpolationMode(enum.Enum):
    """How a picture is resampled; Pillow's filters by torchvision's names."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"

    @property
    def filter(self) -> Image.Resampling:
        """Pillow's name."""
        name = "NEAREST" if self is InterpolationMode.NEAREST_EXACT else self.name
        return Image.Resampling[name]


def pillow_only(picture: Picture, name: str) -> Image.Image:
    """The image; TypeError that says what to do for anything else."""
    if isinstance(picture, Image.Image):
        return picture
    advice = "; apply it before ToTensor" if isinstance(picture, Tensor) else ""
    raise TypeError(f"{name}: expected a PIL image, got {type(picture).__name__}{advice}")


def size_of(picture: Picture) -> tuple[int, int]:
    """(height, width). TypeError for what is no picture."""
    if isinstance(picture, Image.Image):
        return picture.height, picture.width
    if isinstance(picture, Tensor) and picture.dim() >= 2:
        return picture.shape[-2], picture.shape[-1]
    raise TypeError(
        f"expected a PIL image or a tensor [..., height, width], got {type(picture).__name__}"
        + (f" of shape {list(picture.shape)}" if isinstance(picture, Tensor) else "")
    )


def crop(picture: Picture, top: int, left: int, height: int, width: int) -> Picture:
    """The part of this size at (top, left); what lies outside the picture is 0."""
    rows, cols = size_of(picture)
    if isinstance(picture, Image.Image):
        return picture.crop((left, top, left + width, top + height))
    before = max(-left, 0), max(-top, 0)
    after = max(left + width - cols, 0), max(top + height - rows, 0)
    if any((*before, *after)):
        picture = pad_tensor(picture, [before[0], after[0], before[1], after[1]])
        left, top = left + before[0], top + before[1]
    return picture[..., top : top + height, left : left + width]


def flip(picture: Picture, horizontal: bool) -> Picture:
    """The mirror image, left to right or top to bottom."""
    size_of(picture)
    if isinstance(picture, Image.Image):
        way = Image.Transpose.FLIP_LEFT_RIGHT if horizontal else Image.Transpose.FLIP_TOP_BOTTOM
        return picture.transpose(way)
    return picture.flip(-1 if horizontal else -2)


_NUMPY_MODES = {"edge": "edge", "reflect": "reflect", "symmetric": "symmetric"}


def pad(
    picture: Picture, sides: tuple[int, int, int, int], fill: Fill = 0, mode: str = "constant"
) -> Picture:
    """Borders of (left, top, right, bottom) pixels: constant, edge, reflect or symmetric."""
    left, top, right, bottom = sides
    if isinstance(picture, Tensor):
        return _pad_tensor(picture, sides, fill, mode)
    image = pillow_only(picture, "pad")
    if mode == "constant":
        colour = tuple(map(int, fill)) if isinstance(fill, tuple) else int(fill)
        if isinstance(colour, int) and len(image.getbands()) > 1:
            colour = (colour,) * len(image.getbands())
        return ImageOps.expand(image, border=(left, top, right, bottom), fill=colour)
    array = np.asarray(image)
    widths = [(top, bottom), (left, right)] + [(0, 0)] * (array.ndim - 2)
    return Image.fromarray(np.pad(array, widths, mode=cast(Any, _NUMPY_MODES[mode])))


def _pad_tensor(picture: Tensor, sides: tuple[int, int, int, int], fill: Fill, mode: str) -> Tensor:
    left, top, right, bottom = sides
    if mode == "constant" and isinstance(fill, (int, float)):
        return pad_tensor(picture, [left, right, top, bottom], value=fill)
    if mode == "constant":
        raise TypeError("pad: a tensor takes one number as fill")
    array = picture.numpy()
    widths = [(0, 0)] * (array.ndim - 2) + [(top, bottom), (left, right)]
    return from_array(np.pad(array, widths, mode=cast(Any, _NUMPY_MODES[mode])))


def resize(picture: Picture, height: int, width: int, mode: InterpolationMode) -> Image.Image:
    """A Pillow image of another size. Pillow filters against aliasing by itself."""
    return pillow_only(picture, "Resize").resize((width, height), mode.filter)


def rotate(
    picture: Picture,
    angle: float,
    mode: InterpolationMode,
    expand: bool,
    center: tuple[float, float] | None,
    fill: Fill,
) -> Image.Image:
    """Turned counter-clockwise by `angle` degrees about `center` (x, y), by default the middle."""
    image = pillow_only(picture, "RandomRotation")
    colour: Any = tuple(map(int, fill)) if isinstance(fill, tuple) else fill
    if not isinstance(colour, tuple):
        colour = (int(colour),) * len(image.getbands()) if len(image.getbands()) > 1 else int(colour)
    return image.rotate(angle, mode.filter, expand, center, fillcolor=colour)


def brightness(picture: Picture, factor: float) -> Image.Image:
    """0 gives black, 1 the picture itself."""
    return ImageEnhance.Brightness(pillow_only(picture, "ColorJitter")).enhance(factor)


def contrast(picture: Picture, factor: float) -> Image.Image:
    """0 gives the mean grey, 1 the picture itself."""
    return ImageEnhance.Contrast(pillow_only(picture, "ColorJitter")).enhance(factor)


def saturation(picture: Picture, factor: float) -> Image.Image:
    """0 gives greys, 1 the picture itself."""
    return ImageEnhance.Color(pillow_only(picture, "ColorJitter")).enhance(factor)


def hue(picture: Picture, shift: float) -> Image.Image:
    """Hues turned by `shift` in [-0.5, 0.5] of the circle; grey pictures stay."""
    image = pillow_only(picture, "ColorJitter")
    if image.mode in ("L", "1", "I", "F"):
        return image
    h, s, v = image.convert("HSV").split()
    turned = np.asarray(h).astype(np.int32) + int(shift * 255)
    h = Image.fromarray((turned % 256).astype(np.uint8), "L")
    return Image.merge("HSV", (h, s, v)).convert(image.mode)


_MODES = {"I": np.int32, "I;16": np.int32, "F": np.float32}


def to_tensor(picture: Any) -> Tensor:
    """[channels, height, width]: bytes become float32 in [0, 1], other numbers keep their values.

    Takes a Pillow image or an array [height, width] or [height, width, channels].
    """
    if isinstance(picture, np.ndarray):
        if picture.ndim not in (2, 3):
            raise ValueError(f"pic should be 2/3 dimensional. Got {picture.ndim} dimensions.")
        array = picture
    elif isinstance(picture, Image.Image):
        array = np.asarray(picture, _MODES.get(picture.mode, np.uint8))
        if picture.mode == "1":
            array = 255 * array
    else:
        raise TypeError(f"pic should be PIL Image or ndarray. Got {type(picture)}")
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    if array.dtype == np.uint8:
        return from_array(np.ascontiguousarray(array, np.float32) / np.float32(255))
    return from_array(np.ascontiguousarray(array))


def normalize(tensor: Any, mean: Any, std: Any, inplace: bool = False) -> Tensor:
    """(tensor - mean) / std by channel, of a float tensor [..., channels, height, width]."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"img should be Tensor Image. Got {type(tensor)}")
    if not tensor.dtype.is_floating_point:
        raise TypeError(f"Input tensor should be a float tensor. Got {tensor.dtype}.")
    if tensor.dim() < 3:
        raise ValueError(
            "Expected tensor to be a tensor image of size (..., C, H, W). Got tensor.size() = "
            f"{tuple(tensor.shape)}"
        )
    mean, std = (np.asarray(v, tensor.dtype.numpy).reshape(-1, 1, 1) for v in (mean, std))
    if not std.all():
        raise ValueError(
            f"std evaluated to zero after conversion to {tensor.dtype}, leading to division by zero."
        )
    array = (tensor.numpy() - mean) / std
    result = from_array(np.ascontiguousarray(array, tensor.dtype.numpy))
    return tensor.copy_(result) if inplace else result
