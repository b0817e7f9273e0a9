"""Transforms against what they say on small pictures, and their randomness."""

from __future__ import annotations

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

import graphc  # noqa: E402
from graphc.utils.data import DataLoader, Dataset  # noqa: E402
from graphc.vision import transforms as T  # noqa: E402

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8)


def picture() -> Image.Image:
    return Image.fromarray(PIXELS)


def array(image) -> np.ndarray:
    return np.asarray(image)


def test_to_tensor_scales_bytes_and_moves_channels():
    out = T.ToTensor()(picture())
    assert out.dtype is graphc.float32
    assert tuple(out.shape) == (3, 12, 10)
    np.testing.assert_array_equal(out.numpy(), PIXELS.transpose(2, 0, 1).astype(np.float32) / 255)
    np.testing.assert_array_equal(T.ToTensor()(PIXELS).numpy(), out.numpy())


@pytest.mark.parametrize(
    "mode, dtype", [("L", "float32"), ("1", "float32"), ("I", "int32"), ("F", "float32")]
)
def test_to_tensor_of_other_modes(mode, dtype):
    out = T.ToTensor()(picture().convert(mode))
    assert tuple(out.shape) == (1, 12, 10)
    assert out.dtype.name == dtype
    if mode == "1":
        assert set(out.unique().tolist()) == {0.0, 1.0}


def test_to_tensor_keeps_other_numbers():
    values = RNG.standard_normal((4, 5))
    assert T.ToTensor()(values).dtype is graphc.float64
    with pytest.raises(ValueError, match="2/3 dimensional"):
        T.ToTensor()(np.zeros((1, 2, 3, 4)))
    with pytest.raises(TypeError, match="PIL Image or ndarray"):
        T.ToTensor()([1, 2])


def test_normalize():
    x = graphc.rand(3, 4, 5)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    expected = (x.numpy() - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(T.Normalize(mean, std)(x).numpy(), expected, rtol=1e-5, atol=1e-6)
    assert T.Normalize(mean, std, inplace=True)(x) is x
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="division by zero"):
        T.Normalize((0.0,), (0.0,))(x)
    with pytest.raises(TypeError, match="float tensor"):
        T.Normalize((0.0,), (1.0,))(x.long())
    with pytest.raises(ValueError, match="tensor image of size"):
        T.Normalize((0.0,), (1.0,))(x[0])


@pytest.mark.parametrize(
    "size, max_size, expected",
    [(6, None, (7, 6)), ((5, 8), None, (5, 8)), ([20], None, (24, 20)), (20, 22, (22, 18))],
)
def test_resize(size, max_size, expected):
    """PIL's size is (width, height); the smaller edge is scaled, the other one follows."""
    out = T.Resize(size, max_size=max_size)(picture())
    assert (out.height, out.width) == expected


def test_resize_mistakes():
    with pytest.raises(TypeError, match="before ToTensor"):
        T.Resize(4)(graphc.rand(3, 8, 8))
    with pytest.raises(ValueError, match="antialias"):
        T.Resize(4, antialias=False)
    with pytest.raises(ValueError, match="strictly greater"):
        T.Resize(8, max_size=8)(picture())
    with pytest.raises(TypeError, match="InterpolationMode"):
        T.Resize(8, interpolation="bilinear")


@pytest.mark.parametrize("as_tensor", [False, True])
def test_center_crop(as_tensor):
    source = T.ToTensor()(picture()) if as_tensor else picture()

    def pixels(out):
        return out.numpy() * 255 if as_tensor else array(out).transpose(2, 0, 1)

    inner = pixels(T.CenterCrop((4, 6))(source))
    np.testing.assert_allclose(inner, PIXELS[4:8, 2:8].transpose(2, 0, 1), atol=1e-4)
    wider = pixels(T.CenterCrop((12, 14))(source))
    assert wider.shape == (3, 12, 14)
    assert not wider[:, :, :2].any()
    np.testing.assert_allclose(wider[:, :, 2:12], PIXELS.transpose(2, 0, 1), atol=1e-4)


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
def test_random_crop_is_a_part_of_the_padded_picture(mode, as_tensor):
    graphc.manual_seed(3)
    numpy_mode = {"constant": "constant"}.get(mode, mode)
    padded = np.pad(PIXELS, [(2, 2), (2, 2), (0, 0)], mode=numpy_mode)
    source = T.ToTensor()(picture()) if as_tensor else picture()
    crop = T.RandomCrop(8, padding=2, padding_mode=mode)
    places = set()
    for _ in range(20):
        out = crop(source)
        out = np.rint(out.numpy() * 255).transpose(1, 2, 0) if as_tensor else array(out)
        found = [(i, j) for i in range(9) for j in range(7) if (padded[i : i + 8, j : j + 8] == out).all()]
        assert found
        places.add(found[0])
    assert len(places) > 8


def test_random_crop_of_small_pictures():
    with pytest.raises(ValueError, match="larger than input image"):
        T.RandomCrop(16)(picture())
    out = T.RandomCrop((16, 8), pad_if_needed=True)(picture())
    assert (out.height, out.width) == (16, 8)
    with pytest.raises(ValueError, match="Padding mode"):
        T.RandomCrop(4, padding_mode="circular")


def test_random_resized_crop_draws_within_its_ranges():
    graphc.manual_seed(0)
    transform = T.RandomResizedCrop(5, scale=(0.3, 0.6), ratio=(0.5, 2.0))
    for _ in range(50):
        top, left, rows, cols = transform._part(60, 80)
        assert 0 <= top <= 60 - rows
        assert 0 <= left <= 80 - cols
        assert 0.27 < rows * cols / 4800 < 0.63
        assert 0.45 < cols / rows < 2.2
    assert transform(picture()).size == (5, 5)
    # A ratio that can never fit falls back to the largest middle part that has it.
    assert T.RandomResizedCrop(5, scale=(1.0, 1.0), ratio=(4.0, 5.0))._part(60, 80) == (20, 0, 20, 80)


@pytest.mark.parametrize("name, axis", [("RandomHorizontalFlip", 1), ("RandomVerticalFlip", 0)])
def test_flips(name, axis):
    flip = getattr(T, name)
    np.testing.assert_array_equal(array(flip(p=1.0)(picture())), np.flip(PIXELS, axis))
    np.testing.assert_array_equal(array(flip(p=0.0)(picture())), PIXELS)
    tensor = graphc.rand(3, 4, 5)
    np.testing.assert_array_equal(flip(p=1.0)(tensor).numpy(), np.flip(tensor.numpy(), axis + 1))
    graphc.manual_seed(0)
    turned = sum((array(flip()(picture())) != PIXELS).any() for _ in range(200))
    assert 70 < turned < 130
    assert repr(flip()) == f"{name}(p=0.5)"


def test_rotation():
    quarter = T.RandomRotation((90, 90), expand=True)(picture())
    np.testing.assert_array_equal(array(quarter), np.rot90(PIXELS))
    filled = array(T.RandomRotation((45, 45), fill=(1, 2, 3))(picture()))
    assert filled[0, 0].tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="positive"):
        T.RandomRotation(-3)
    with pytest.raises(TypeError, match="before ToTensor"):
        T.RandomRotation(3)(graphc.rand(3, 4, 4))


def test_color_jitter():
    half = array(T.ColorJitter(brightness=(0.5, 0.5))(picture())).astype(int)
    assert np.abs(half - PIXELS * 0.5).max() <= 1
    grey = array(T.ColorJitter(saturation=(0.0, 0.0))(picture()))
    assert (grey.max(-1) == grey.min(-1)).all()
    flat = array(T.ColorJitter(contrast=(0.0, 0.0))(picture()))
    assert flat.max() == flat.min()
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    turned = array(T.ColorJitter(hue=(1 / 3, 1 / 3))(red))[0, 0]
    assert turned[1] > 240
    assert turned[0] < 15
    same = T.ColorJitter()
    np.testing.assert_array_equal(array(same(picture())), PIXELS)
    for bad in ({"brightness": -1.0}, {"hue": 0.7}, {"contrast": (2.0, 1.0)}):
        with pytest.raises(ValueError):
            T.ColorJitter(**bad)
    with pytest.raises(TypeError):
        T.ColorJitter(brightness="much")


def test_reprs():
    both = T.Compose([T.Resize(4), T.ToTensor(), T.Normalize((0.5,), (0.25,))])
    assert repr(both) == (
        "Compose(\n    Resize(size=4, interpolation=bilinear, max_size=None, antialias=True)\n"
        "    ToTensor()\n    Normalize(mean=(0.5,), std=(0.25,))\n)"
    )
    assert repr(T.RandomCrop(4, padding=2)) == "RandomCrop(size=(4, 4), padding=2)"
    assert repr(T.CenterCrop(4)) == "CenterCrop(size=(4, 4))"
    assert repr(T.RandomResizedCrop(4)).startswith(
        "RandomResizedCrop(size=(4, 4), scale=(0.08, 1.0), ratio=(0.75, 1.3333)"
    )
    assert repr(T.RandomRotation(10)) == (
        "RandomRotation(degrees=[-10.0, 10.0], interpolation=nearest, expand=False, fill=0)"
    )
    assert (
        repr(T.ColorJitter(0.5))
        == "ColorJitter(brightness=(0.5, 1.5), contrast=None, saturation=None, hue=None)"
    )
    assert repr(T.Lambda(abs)) == "Lambda()"
    assert T.Lambda(abs)(-3) == 3
    with pytest.raises(TypeError, match="callable"):
        T.Lambda(3)


class Pictures(Dataset):
    def __init__(self) -> None:
        self.transform = T.Compose([T.RandomCrop(6), T.RandomHorizontalFlip(), T.ToTensor()])

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> graphc.Tensor:
        return self.transform(picture())


def test_random_transforms_do_not_depend_on_the_workers():
    passes = []
    for workers in (0, 1, 3):
        graphc.manual_seed(7)
        loader = DataLoader(Pictures(), batch_size=4, num_workers=workers)
        passes.append([np.concatenate([b.numpy() for b in loader]) for _ in range(2)])
    for other in passes[1:]:
        np.testing.assert_array_equal(other, passes[0])
    assert (passes[0][0] != passes[0][1]).any()  # the second epoch draws anew


def test_interpolation_names():
    assert T.InterpolationMode.BILINEAR.value == "bilinear"
    assert T.InterpolationMode.LANCZOS.filter is Image.Resampling.LANCZOS
    assert T.InterpolationMode.NEAREST_EXACT.filter is Image.Resampling.NEAREST
