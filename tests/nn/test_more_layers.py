"""Layers, losses and functions that test_layers.py and test_losses.py leave out, against PyTorch."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402

from .against_torch import array, close, inputs, same_function, same_module  # noqa: E402

X, Y, Z = inputs((4, 5), (4, 5), (4, 5))
RNG = np.random.default_rng(1)
P = RNG.uniform(0.05, 0.95, (4, 5)).astype(np.float32)
T01 = RNG.uniform(0, 1, (4, 5)).astype(np.float32)
SIGNS = np.where(RNG.random((4, 5)) < 0.5, -1, 1)
LABELS = np.array([1, 4, 0, 2])
SEVERAL = np.array([[3, 0, -1, 2, 1], [-1, 1, 2, 3, 4], [0, 1, 2, 3, 4], [4, 4, -1, -1, -1]])
LINE, IMAGE, VOLUME = inputs((2, 3, 8), (2, 3, 6, 7), (1, 2, 4, 5, 4))

LAYERS = {
    "adaptive_avg_pool1d": (lambda nn: nn.AdaptiveAvgPool1d(3), [LINE]),
    "adaptive_max_pool3d": (lambda nn: nn.AdaptiveMaxPool3d((2, 3, 1), return_indices=True), [VOLUME]),
    "conv_transpose3d": (lambda nn: nn.ConvTranspose3d(2, 3, 2, stride=(1, 2, 1), padding=1), [VOLUME]),
    "instance_norm3d": (lambda nn: nn.InstanceNorm3d(2, affine=True), [VOLUME]),
    "lp_pool1d": (lambda nn: nn.LPPool1d(2, 3, stride=2), [np.abs(LINE)]),
    "lp_pool3d": (lambda nn: nn.LPPool3d(2, 2), [np.abs(VOLUME)]),
    "constant_pad1d": (lambda nn: nn.ConstantPad1d((1, 2), 2.5), [LINE]),
    "zero_pad2d": (lambda nn: nn.ZeroPad2d((1, -1, 0, 2)), [IMAGE]),
    "zero_pad3d": (lambda nn: nn.ZeroPad3d(1), [VOLUME]),
    "reflection_pad1d": (lambda nn: nn.ReflectionPad1d((3, 1)), [LINE]),
    "reflection_pad3d": (lambda nn: nn.ReflectionPad3d((1, 0, 2, 1, 0, 1)), [VOLUME]),
    "replication_pad1d": (lambda nn: nn.ReplicationPad1d((3, 1)), [LINE]),
    "replication_pad2d": (lambda nn: nn.ReplicationPad2d((3, 1, 0, 2)), [IMAGE]),
    "circular_pad1d": (lambda nn: nn.CircularPad1d((3, 1)), [LINE]),
    "circular_pad3d": (lambda nn: nn.CircularPad3d((1, 0, 2, 1, 0, 1)), [VOLUME]),
    "mse": (lambda nn: nn.MSELoss(), [X, Y]),
    "l1": (lambda nn: nn.L1Loss(reduction="sum"), [X, Y]),
    "smooth_l1": (lambda nn: nn.SmoothL1Loss(beta=0.7), [X, Y]),
    "huber": (lambda nn: nn.HuberLoss(delta=0.6), [X, Y]),
    "bce": (lambda nn: nn.BCELoss(), [P, T01]),
    "kl_div": (lambda nn: nn.KLDivLoss(reduction="batchmean", log_target=True), [np.log(P), np.log(T01)]),
    "poisson": (lambda nn: nn.PoissonNLLLoss(full=True), [X, 4 * T01]),
    "gaussian": (lambda nn: nn.GaussianNLLLoss(full=True, eps=1e-4), [X, Y, P]),
    "hinge": (lambda nn: nn.HingeEmbeddingLoss(margin=0.7), [X, SIGNS]),
    "ranking": (lambda nn: nn.MarginRankingLoss(margin=0.2), [X, Y, SIGNS]),
    "soft_margin": (lambda nn: nn.SoftMarginLoss(), [X, SIGNS]),
    "multilabel_margin": (lambda nn: nn.MultiLabelMarginLoss(), [X, SEVERAL]),
    "multilabel_soft_margin": (lambda nn: nn.MultiLabelSoftMarginLoss(), [X, T01]),
    "multi_margin": (lambda nn: nn.MultiMarginLoss(p=2, margin=0.6), [X, LABELS]),
    "cosine_embedding": (lambda nn: nn.CosineEmbeddingLoss(margin=0.1), [X, Y, SIGNS[:, 0].copy()]),
    "triplet": (lambda nn: nn.TripletMarginLoss(margin=2.0, p=3, swap=True), [X, Y, Z]),
    "triplet_with_distance": (lambda nn: nn.TripletMarginWithDistanceLoss(margin=2.0), [X, Y, Z]),
    "nll": (lambda nn: nn.NLLLoss(ignore_index=2), [X, LABELS]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    build, arrays = LAYERS[name]
    same_module(build, arrays)


def test_nll_of_images_goes_by_an_older_name():
    labels = np.random.default_rng(3).integers(0, 3, (2, 6, 7))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same_module(lambda nn: nn.NLLLoss2d(), [IMAGE, labels])


FUNCTIONS = {
    "adaptive_avg_pool1d": (lambda F, x: F.adaptive_avg_pool1d(x, 3), [LINE]),
    "adaptive_avg_pool2d": (lambda F, x: F.adaptive_avg_pool2d(x, (4, None)), [IMAGE]),
    "adaptive_avg_pool3d": (lambda F, x: F.adaptive_avg_pool3d(x, (3, 2, 1)), [VOLUME]),
    "adaptive_max_pool1d": (lambda F, x: F.adaptive_max_pool1d(x, 3), [LINE]),
    "adaptive_max_pool2d": (lambda F, x: F.adaptive_max_pool2d(x, (4, 2), return_indices=True), [IMAGE]),
    "adaptive_max_pool3d": (lambda F, x: F.adaptive_max_pool3d(x, (3, 2, 1)), [VOLUME]),
    "lp_pool1d": (lambda F, x: F.lp_pool1d(x, 3, 2), [np.abs(LINE)]),
    "lp_pool2d": (lambda F, x: F.lp_pool2d(x, 2, (2, 3), stride=1), [np.abs(IMAGE)]),
    "lp_pool3d": (lambda F, x: F.lp_pool3d(x, 2, 2), [np.abs(VOLUME)]),
    "max_pool1d_with_indices": (lambda F, x: F.max_pool1d_with_indices(x, 3, 2, 1), [LINE]),
    "max_pool2d_with_indices": (lambda F, x: F.max_pool2d_with_indices(x, 3, 2, 1), [IMAGE]),
    "max_pool3d_with_indices": (lambda F, x: F.max_pool3d_with_indices(x, 2), [VOLUME]),
    "conv_transpose3d": (
        lambda F, x, w: F.conv_transpose3d(x, w, stride=2, output_padding=(1, 0, 1)),
        [VOLUME, inputs((2, 3, 2, 3, 2), seed=4)[0]],
    ),
    "interpolate": (lambda F, x: F.interpolate(x, size=(9, 4), mode="bilinear"), [IMAGE]),
    "celu": (lambda F, x: F.celu(x, 0.7), [X]),
    "elu_": (lambda F, x: F.elu_(x * 1, 0.7), [X]),
    "hardtanh_": (lambda F, x: F.hardtanh_(x * 1, -0.5, 0.6), [X]),
    "leaky_relu_": (lambda F, x: F.leaky_relu_(x * 1, 0.3), [X]),
    "relu_": (lambda F, x: F.relu_(x * 1), [X]),
    "hardshrink": (lambda F, x: F.hardshrink(x, 0.4), [X]),
    "hardsigmoid": (lambda F, x: F.hardsigmoid(4 * x), [X]),
    "log_softmax": (lambda F, x: F.log_softmax(x, dim=1), [X]),
    "logsigmoid": (lambda F, x: F.logsigmoid(30 * x), [X]),
    "mish": (lambda F, x: F.mish(x), [X]),
    "normalize": (lambda F, x: F.normalize(x, p=3, dim=0), [X]),
    "rrelu": (lambda F, x: F.rrelu(x, 0.1, 0.3), [X]),
    "softmin": (lambda F, x: F.softmin(x, dim=0), [X]),
    "softshrink": (lambda F, x: F.softshrink(x, 0.3), [X]),
    "softsign": (lambda F, x: F.softsign(x), [X]),
    "tanhshrink": (lambda F, x: F.tanhshrink(x), [X]),
    "threshold": (lambda F, x: F.threshold(x, 0.1, 9.0), [X]),
    "triplet_margin_with_distance_loss": (
        lambda F, a, p, n: F.triplet_margin_with_distance_loss(
            a, p, n, distance_function=lambda x, y: (x - y).abs().sum(-1), margin=2.0, swap=True
        ),
        [X, Y, Z],
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name):
    function, arrays = FUNCTIONS[name]
    same_function(lambda T: lambda *xs: function(T.nn.functional, *xs), arrays)


def test_one_hot():
    for classes in (-1, 7):
        ours, theirs = (
            T.nn.functional.one_hot(T.from_numpy(LABELS.copy()), classes) for T in (graphc, torch)
        )
        close("one_hot", ours, theirs)


@pytest.mark.parametrize("rank, x", [(1, LINE), (2, IMAGE), (3, VOLUME)])
def test_unpooling_undoes_pooling(rank, x):
    """The function, and the layer, which has the same result."""

    def build(T):
        def run(x):
            F = T.nn.functional
            values, where = getattr(F, f"max_pool{rank}d")(x, 2, return_indices=True)
            unpool = {1: F.max_unpool1d, 2: F.max_unpool2d, 3: F.max_unpool3d}[rank]
            layer = {1: T.nn.MaxUnpool1d, 2: T.nn.MaxUnpool2d, 3: T.nn.MaxUnpool3d}[rank](2)
            size = tuple(x.shape)
            return unpool(values, where, 2, output_size=size), layer(3 * values, where, output_size=size)

        return run

    same_function(build, [x])


def test_gumbel_softmax_draws_from_the_distribution():
    graphc.manual_seed(3)
    probabilities = np.array([0.1, 0.2, 0.7], np.float32)
    logits = graphc.from_numpy(np.log(np.tile(probabilities, (20000, 1)))).requires_grad_(True)
    soft = graphc.nn.functional.gumbel_softmax(logits, tau=0.5)
    np.testing.assert_allclose(array(soft).sum(1), 1, rtol=1e-5)
    hard = graphc.nn.functional.gumbel_softmax(logits, tau=0.5, hard=True)
    rows = array(hard)
    np.testing.assert_allclose(np.sort(rows, 1), np.tile([0, 0, 1], (20000, 1)), atol=1e-6)
    np.testing.assert_allclose(rows.mean(0), probabilities, atol=0.02)
    (hard * graphc.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert logits.grad.abs().sum().item() > 0


DROPOUTS = [
    ("Dropout1d", "dropout1d", (50, 40, 6)),
    ("Dropout2d", "dropout2d", (50, 40, 3, 2)),
    ("Dropout3d", "dropout3d", (50, 40, 3, 2, 1)),
    ("FeatureAlphaDropout", "feature_alpha_dropout", (50, 40, 3, 2)),
]


@pytest.mark.parametrize("layer, function, shape", DROPOUTS)
def test_dropout_of_channels(layer, function, shape):
    """A channel is kept or dropped as a whole; in eval mode nothing happens."""
    graphc.manual_seed(4)
    module = getattr(graphc.nn, layer)(0.3)
    x = graphc.from_numpy(inputs(shape)[0])
    for out in (module(x), getattr(graphc.nn.functional, function)(x, 0.3, True)):
        # Kept channels are an affine function of the input, dropped ones are constant.
        channels, before = array(out).reshape(2000, -1), array(x).reshape(2000, -1)
        dropped = channels.max(1) == channels.min(1)
        assert dropped.mean() == pytest.approx(0.3, abs=0.04)
        change, wanted = np.diff(channels, axis=1)[~dropped], np.diff(before, axis=1)[~dropped]
        scale = np.median(change / wanted)
        np.testing.assert_allclose(change, scale * wanted, rtol=1e-4, atol=1e-5)
        if "alpha" not in function:
            assert not channels[dropped].any()
            assert scale == pytest.approx(1 / 0.7, rel=1e-5)
    np.testing.assert_array_equal(array(module.eval()(x)), array(x))


def test_alpha_dropout_keeps_mean_and_spread():
    graphc.manual_seed(5)
    out = array(graphc.nn.functional.alpha_dropout(graphc.from_numpy(inputs((200, 300))[0]), 0.3, True))
    assert out.mean() == pytest.approx(0, abs=0.02)
    assert out.std() == pytest.approx(1, abs=0.02)


def test_older_names_of_initialisers_warn():
    init = graphc.nn.init
    older = {
        init.xavier_uniform: init.xavier_uniform_,
        init.xavier_normal: init.xavier_normal_,
        init.kaiming_uniform: init.kaiming_uniform_,
        init.kaiming_normal: init.kaiming_normal_,
        init.orthogonal: init.orthogonal_,
        init.dirac: init.dirac_,
    }
    for old, new in older.items():
        graphc.manual_seed(6)
        with pytest.warns(FutureWarning, match="deprecated"):
            first = old(graphc.empty(4, 3, 3)).tolist()
        graphc.manual_seed(6)
        assert first == new(graphc.empty(4, 3, 3)).tolist()


def test_total_norm_and_the_older_name_of_clipping():
    for kind in (1.0, 2.0, float("inf")):
        ours, theirs = (
            T.nn.utils.get_total_norm([T.from_numpy(a.copy()) for a in (X, LINE)], kind)
            for T in (graphc, torch)
        )
        close(f"norm {kind}", ours, theirs)
    gradients = []
    for name in ("clip_grad_norm", "clip_grad_norm_"):
        w = graphc.from_numpy(X.copy()).requires_grad_(True)
        (w * w).sum().backward()
        if name == "clip_grad_norm":
            with pytest.warns(FutureWarning, match="deprecated"):
                graphc.nn.utils.clip_grad_norm([w], 0.5)
        else:
            graphc.nn.utils.clip_grad_norm_([w], 0.5)
        gradients.append(w.grad.tolist())
    assert gradients[0] == gradients[1]
    assert np.linalg.norm(gradients[0]) == pytest.approx(0.5, rel=1e-4)
