"""Well-known convolution networks as their users write them, small; `T` is torch or graphc."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

Namespace = Any
Module = Any


def lenet_object(T: Namespace) -> Module:
    """Layers as attributes, activations as modules."""
    nn = T.nn

    class LeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 6, kernel_size=5, padding=2)
            self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
            self.conv2 = nn.Conv2d(6, 16, 5)
            self.act = nn.ReLU(inplace=True)
            self.fc1 = nn.Linear(16 * 5 * 5, 120)
            self.fc2 = nn.Linear(120, 84)
            self.fc3 = nn.Linear(84, 10)

        def forward(self, x: Any) -> Any:
            x = self.pool(self.act(self.conv1(x)))
            x = self.pool(self.act(self.conv2(x)))
            x = x.view(x.size(0), -1)
            x = self.act(self.fc1(x))
            x = self.act(self.fc2(x))
            return self.fc3(x)

    return LeNet()


def lenet_functional(T: Namespace) -> Module:
    """Parameters by hand, everything else from `nn.functional`."""
    nn, F = T.nn, T.nn.functional

    class LeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            shapes = [(6, 1, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]
            self.weights = nn.ParameterList([nn.Parameter(T.empty(*s)) for s in shapes])
            self.biases = nn.ParameterList([nn.Parameter(T.zeros(s[0])) for s in shapes])
            for weight in self.weights:
                nn.init.kaiming_uniform_(weight, a=5**0.5)

        def forward(self, x: Any) -> Any:
            w, b = self.weights, self.biases
            x = F.max_pool2d(F.relu(F.conv2d(x, w[0], b[0], padding=2)), (2, 2))
            x = F.max_pool2d(F.relu(F.conv2d(x, w[1], b[1])), 2)
            x = x.flatten(start_dim=1)
            for i in (2, 3):
                x = F.relu(F.linear(x, w[i], b[i]))
            return F.log_softmax(F.linear(x, w[4], b[4]), dim=1)

    return LeNet()


def lenet_sequential(T: Namespace) -> Module:
    """A Sequential of named layers."""
    nn = T.nn
    layers: OrderedDict[str, Module] = OrderedDict()
    layers["c1"] = nn.Conv2d(1, 6, 5, padding=2)
    layers["act1"] = nn.Tanh()
    layers["s2"] = nn.AvgPool2d(2)
    layers["c3"] = nn.Conv2d(6, 16, 5)
    layers["act3"] = nn.Tanh()
    layers["s4"] = nn.AvgPool2d(2)
    layers["flat"] = nn.Flatten()
    layers["f5"] = nn.Linear(400, 120)
    layers["act5"] = nn.Tanh()
    layers["f6"] = nn.Linear(120, 84)
    layers["act6"] = nn.Tanh()
    layers["out"] = nn.Linear(84, 10)
    return nn.Sequential(layers)


def vgg(T: Namespace) -> Module:
    """VGG with batch norm, from a list of widths and pools."""
    nn = T.nn
    layers: list[Module] = []
    channels = 3
    for item in (8, "M", 16, "M", 32, 32, "M", 32, 32, "M"):
        if item == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, item, 3, padding=1), nn.BatchNorm2d(item), nn.ReLU(True)]
            channels = item

    class VGG(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(*layers)
            self.avgpool = nn.AdaptiveAvgPool2d((3, 3))
            self.classifier = nn.Sequential(
                nn.Linear(32 * 9, 64), nn.ReLU(True), nn.Dropout(p=0.0), nn.Linear(64, 10)
            )
            for m in self.modules():
                if isinstance(m, nn.Conv2d):
                    nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
                    nn.init.constant_(m.bias, 0)
                elif isinstance(m, nn.Linear):
                    nn.init.normal_(m.weight, 0, 0.05)

        def forward(self, x: Any) -> Any:
            x = self.avgpool(self.features(x))
            return self.classifier(T.flatten(x, 1))

    return VGG()


def resnet(T: Namespace, depths: tuple[int, ...], expansion: int, width: int = 8) -> Module:
    """ResNet: two 3x3 convolutions a block, or (expansion 4) a bottleneck of three."""
    nn = T.nn

    def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> Module:
        return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)

    class Block(nn.Module):
        def __init__(self, inputs: int, planes: int, stride: int, downsample: Module | None) -> None:
            super().__init__()
            outputs = planes * expansion
            if expansion == 1:
                self.convs = nn.ModuleList([conv(inputs, planes, 3, stride), conv(planes, planes, 3)])
            else:
                convs = [conv(inputs, planes, 1), conv(planes, planes, 3, stride), conv(planes, outputs, 1)]
                self.convs = nn.ModuleList(convs)
            self.norms = nn.ModuleList([nn.BatchNorm2d(c.out_channels) for c in self.convs])
            self.relu = nn.ReLU(inplace=True)
            self.downsample = downsample

        def forward(self, x: Any) -> Any:
            identity = x if self.downsample is None else self.downsample(x)
            for i, (layer, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
                x = norm(layer(x))
                if i + 1 < len(self.convs):
                    x = self.relu(x)
            x += identity
            return self.relu(x)

    class ResNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inplanes = width
            self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.relu = nn.ReLU(inplace=True)
            self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
            stages = [self.stage(width << i, d, 1 + (i > 0)) for i, d in enumerate(depths)]
            self.layers = nn.Sequential(*stages)
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.fc = nn.Linear(self.inplanes, 10)

        def stage(self, planes: int, blocks: int, stride: int) -> Module:
            outputs, downsample = planes * expansion, None
            if stride != 1 or self.inplanes != outputs:
                downsample = nn.Sequential(conv(self.inplanes, outputs, 1, stride), nn.BatchNorm2d(outputs))
            layers = [Block(self.inplanes, planes, stride, downsample)]
            self.inplanes = outputs
            layers += [Block(outputs, planes, 1, None) for _ in range(1, blocks)]
            return nn.Sequential(*layers)

        def forward(self, x: Any) -> Any:
            x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
            return self.fc(T.flatten(self.avgpool(self.layers(x)), 1))

    return ResNet()


def resnet18(T: Namespace) -> Module:
    return resnet(T, (2, 2, 2, 2), 1)


def resnet50(T: Namespace) -> Module:
    return resnet(T, (3, 4, 6, 3), 4, 4)


def mobilenetv2(T: Namespace) -> Module:
    """Inverted residuals with depthwise convolutions and ReLU6."""
    nn = T.nn

    def unit(inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1) -> list[Module]:
        conv = nn.Conv2d(inputs, outputs, size, stride, (size - 1) // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True)]

    class InvertedResidual(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int, ratio: int) -> None:
            super().__init__()
            hidden = inputs * ratio
            self.use_res_connect = stride == 1 and inputs == outputs
            layers = unit(inputs, hidden) if ratio != 1 else []
            layers += unit(hidden, hidden, 3, stride, hidden)
            layers += [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
            self.conv = nn.Sequential(*layers)

        def forward(self, x: Any) -> Any:
            return x + self.conv(x) if self.use_res_connect else self.conv(x)

    layers = unit(3, 8, 3, 2)
    inputs = 8
    for ratio, outputs, repeats, stride in ((1, 8, 1, 1), (6, 12, 2, 2), (6, 16, 2, 2), (6, 24, 1, 1)):
        for i in range(repeats):
            layers.append(InvertedResidual(inputs, outputs, stride if i == 0 else 1, ratio))
            inputs = outputs
    layers += unit(inputs, 48)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))


def densenet(T: Namespace) -> Module:
    """Two dense blocks with a transition between them."""
    nn, F = T.nn, T.nn.functional

    class DenseLayer(nn.Module):
        def __init__(self, inputs: int, growth: int) -> None:
            super().__init__()
            self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4 * growth, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(4 * growth)
            self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

        def forward(self, features: list[Any]) -> Any:
            x = self.conv1(F.relu(self.norm1(T.cat(features, 1))))
            return self.conv2(F.relu(self.norm2(x)))

    class DenseBlock(nn.ModuleDict):
        def __init__(self, count: int, inputs: int, growth: int) -> None:
            super().__init__()
            for i in range(count):
                self.add_module(f"denselayer{i + 1}", DenseLayer(inputs + i * growth, growth))

        def forward(self, x: Any) -> Any:
            features = [x]
            for _, layer in self.items():
                features.append(layer(features))
            return T.cat(features, 1)

    transition = nn.Sequential(nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 10, 1), nn.AvgPool2d(2, 2))
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), DenseBlock(3, 8, 4), transition, DenseBlock(2, 10, 4),
        nn.BatchNorm2d(18), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(18, 10),
    )  # fmt: skip


def unet(T: Namespace) -> Module:
    """Two levels down and up, one with a transposed convolution, one with bilinear upsampling."""
    nn, F = T.nn, T.nn.functional

    class DoubleConv(nn.Sequential):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__(
                nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True),
                nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True),
            )  # fmt: skip

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inc, self.down1, self.down2 = DoubleConv(3, 8), DoubleConv(8, 16), DoubleConv(16, 32)
            self.pool = nn.MaxPool2d(2)
            self.up1 = nn.ConvTranspose2d(32, 16, kernel_size=2, stride=2)
            self.conv1, self.conv2 = DoubleConv(32, 16), DoubleConv(24, 8)
            self.up2 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.outc = nn.Conv2d(8, 4, kernel_size=1)

        def forward(self, x: Any) -> Any:
            a = self.inc(x)
            b = self.down1(self.pool(a))
            y = self.up1(self.down2(self.pool(b)))
            dy, dx = b.size()[2] - y.size()[2], b.size()[3] - y.size()[3]
            y = F.pad(y, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
            y = self.conv1(T.cat([b, y], dim=1))
            return self.outc(self.conv2(T.cat([a, self.up2(y)[:, :, : a.size(2), : a.size(3)]], dim=1)))

    return UNet()
