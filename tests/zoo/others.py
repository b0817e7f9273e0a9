"""Generative, siamese and text networks as their users write them, small; `T` is torch or graphc."""

from __future__ import annotations

from typing import Any

Namespace = Any
Module = Any


def vae(T: Namespace) -> Module:
    """A variational autoencoder; the noise is an argument, so that two libraries can be compared."""
    nn, F = T.nn, T.nn.functional

    class VAE(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc21, self.fc22 = nn.Linear(64, 40), nn.Linear(40, 6), nn.Linear(40, 6)
            self.fc3, self.fc4 = nn.Linear(6, 40), nn.Linear(40, 64)

        def encode(self, x: Any) -> tuple[Any, Any]:
            h = F.relu(self.fc1(x))
            return self.fc21(h), self.fc22(h)

        def decode(self, z: Any) -> Any:
            return T.sigmoid(self.fc4(F.relu(self.fc3(z))))

        def forward(self, x: Any, noise: Any) -> tuple[Any, Any, Any]:
            mu, logvar = self.encode(x.view(-1, 64))
            std = T.exp(0.5 * logvar)
            return self.decode(mu + noise * std), mu, logvar

    return VAE()


def vae_loss(T: Namespace, model: Module, x: Any, noise: Any) -> Any:
    recon, mu, logvar = model(x, noise)
    bce = T.nn.functional.binary_cross_entropy(recon, x.view(-1, 64), reduction="sum")
    kld = -0.5 * T.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return bce + kld


def dcgan(T: Namespace) -> Module:
    """Generator and discriminator for 16 x 16 pictures."""
    nn = T.nn

    def weights_init(m: Module) -> None:
        classname = m.__class__.__name__
        if classname.find("Conv") != -1:
            nn.init.normal_(m.weight.data, 0.0, 0.05)
        elif classname.find("BatchNorm") != -1:
            nn.init.normal_(m.weight.data, 1.0, 0.02)
            nn.init.constant_(m.bias.data, 0)

    generator = nn.Sequential(
        nn.ConvTranspose2d(10, 16, 4, 1, 0, bias=False), nn.BatchNorm2d(16), nn.ReLU(True),
        nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(True),
        nn.ConvTranspose2d(8, 1, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(8, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(16, 1, 4, 1, 0, bias=False), nn.Sigmoid(),
    )  # fmt: skip
    model = nn.ModuleDict({"generator": generator, "discriminator": discriminator})
    model.apply(weights_init)
    return model


def siamese(T: Namespace) -> Module:
    """One embedding net for anchor, positive and negative."""
    nn, F = T.nn, T.nn.functional

    class Embed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convnet = nn.Sequential(
                nn.Conv2d(1, 8, 5), nn.PReLU(), nn.MaxPool2d(2, stride=2),
                nn.Conv2d(8, 12, 3), nn.PReLU(), nn.MaxPool2d(2, stride=2),
            )  # fmt: skip
            self.fc = nn.Sequential(nn.Linear(12 * 4, 16), nn.PReLU(), nn.Linear(16, 4))

        def forward_once(self, x: Any) -> Any:
            out = self.convnet(x)
            return F.normalize(self.fc(out.view(out.size()[0], -1)), p=2, dim=1)

        def forward(self, anchor: Any, positive: Any, negative: Any) -> tuple[Any, Any, Any]:
            return self.forward_once(anchor), self.forward_once(positive), self.forward_once(negative)

    return Embed()


def text_cnn(T: Namespace) -> Module:
    """Convolutions of several widths over word vectors, max over time."""
    nn, F = T.nn, T.nn.functional

    class TextCNN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(50, 12, padding_idx=0)
            self.convs = nn.ModuleList([nn.Conv2d(1, 6, (k, 12)) for k in (2, 3, 4)])
            self.dropout = nn.Dropout(0.0)
            self.fc = nn.Linear(18, 3)

        def forward(self, x: Any) -> Any:
            x = self.embed(x).unsqueeze(1)
            x = [F.relu(conv(x)).squeeze(3) for conv in self.convs]
            x = [F.max_pool1d(i, i.size(2)).squeeze(2) for i in x]
            return self.fc(self.dropout(T.cat(x, 1)))

    return TextCNN()
