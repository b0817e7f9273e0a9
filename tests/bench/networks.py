"""Networks at their usual sizes, written once with the namespace (torch or graphc) as an argument."""

from __future__ import annotations

from typing import Any

Namespace = Any
Module = Any


def mlp(T: Namespace) -> Module:
    nn = T.nn
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def circles(T: Namespace) -> Module:
    """Two numbers in, one out: a network so small that only the call costs."""
    nn = T.nn
    return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


def _convolution(
    T: Namespace, cin: int, cout: int, size: int, stride: int = 1, groups: int = 1, act: Any = None
) -> list[Module]:
    """A convolution, its norm and, if given, a layer made by `act`."""
    nn = T.nn
    conv = nn.Conv2d(cin, cout, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(cout), *([] if act is None else [act()])]


def _residual(T: Namespace, body: Module, skip: Module | None, act: Any = None) -> Module:
    """`act(body(x) + skip(x))`."""

    class Residual(T.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.skip = body, skip

        def forward(self, x: Any) -> Any:
            out = self.body(x) + (x if self.skip is None else self.skip(x))
            return out if act is None else act(out)

    return Residual()


def resnet50(T: Namespace, classes: int = 1000) -> Module:
    nn = T.nn
    layers = [*_convolution(T, 3, 64, 7, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1)]
    cin = 64
    for stage, depth in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for i in range(depth):
            stride = 2 if stage and not i else 1
            body = nn.Sequential(
                *_convolution(T, cin, width, 1, act=nn.ReLU),
                *_convolution(T, width, width, 3, stride, act=nn.ReLU),
                *_convolution(T, width, 4 * width, 1),
            )
            skip = None if i else nn.Sequential(*_convolution(T, cin, 4 * width, 1, stride))
            layers.append(_residual(T, body, skip, nn.functional.relu))
            cin = 4 * width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, classes)]
    return nn.Sequential(*layers)


# Of each stage of MobileNetV2: expansion, channels, blocks, stride of the first.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenetv2(T: Namespace, classes: int = 1000) -> Module:
    nn = T.nn
    layers, cin = _convolution(T, 3, 32, 3, 2, act=nn.ReLU6), 32
    for expansion, cout, blocks, first in STAGES:
        for i in range(blocks):
            stride, width = (1 if i else first), cin * expansion
            body = [] if expansion == 1 else _convolution(T, cin, width, 1, act=nn.ReLU6)
            body += _convolution(T, width, width, 3, stride, width, nn.ReLU6)
            block = nn.Sequential(*body, *_convolution(T, width, cout, 1))
            layers.append(_residual(T, block, None) if stride == 1 and cin == cout else block)
            cin = cout
    layers += _convolution(T, cin, 1280, 1, act=nn.ReLU6)
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, classes)]
    return nn.Sequential(*layers)


def vgg11(T: Namespace, classes: int = 10) -> Module:
    """For pictures of 32x32, with batch norm."""
    nn = T.nn
    layers: list[Module] = []
    cin = 3
    for cout in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0):
        if not cout:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += _convolution(T, cin, cout, 3, act=nn.ReLU)
        cin = cout
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(cin, classes))


def unet(T: Namespace, width: int = 32, classes: int = 8) -> Module:
    """Three levels down and up again, with skips joined by concatenation: a class for each pixel."""
    nn = T.nn

    def double(cin: int, cout: int) -> Module:
        act = nn.ReLU
        return nn.Sequential(
            *_convolution(T, cin, cout, 3, act=act), *_convolution(T, cout, cout, 3, act=act)
        )

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = [width << level for level in range(4)]
            self.pool = nn.MaxPool2d(2)
            self.down = nn.ModuleList([double(a, b) for a, b in zip([3, *widths], widths, strict=False)])
            pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
            self.up = nn.ModuleList([nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairs])
            self.join = nn.ModuleList([double(a, b) for a, b in pairs])
            self.head = nn.Conv2d(width, classes, 1)

        def forward(self, x: Any) -> Any:
            kept = []
            for level, block in enumerate(self.down):
                x = block(x if not level else self.pool(x))
                kept.append(x)
            kept.pop()
            for up, join in zip(self.up, self.join, strict=True):
                x = join(T.cat([kept.pop(), up(x)], 1))
            return self.head(x)

    return UNet()


def encoder(T: Namespace) -> Module:
    """Two encoder layers with dropout, and a class from the mean over the sequence."""
    nn = T.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.1, batch_first=True)
            self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(128, 10)

        def forward(self, x: Any) -> Any:
            return self.head(self.encoder(x).mean(dim=1))

    return Net()
