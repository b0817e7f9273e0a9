"""Import paths of PyTorch's files, as programs write them."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

PATHS = """
autograd.function Function
autograd.grad_mode no_grad enable_grad set_grad_enabled inference_mode
autograd.variable Variable
distributions.distribution Distribution
distributions.kl kl_divergence register_kl
distributions.utils broadcast_all lazy_property logits_to_probs probs_to_logits clamp_probs
distributions.constraint_registry biject_to transform_to
nn.attention SDPBackend sdpa_kernel
nn.common_types _size_1_t _size_2_t _size_3_t _size_any_t _ratio_2_t
nn.modules.linear NonDynamicallyQuantizableLinear
nn.modules.utils _single _pair _triple _quadruple _ntuple _reverse_repeat_tuple
nn.parameter Parameter
nn.utils.clip_grad clip_grad_norm_
nn.utils.convert_parameters parameters_to_vector vector_to_parameters
optim.adam Adam
optim.adamw AdamW
optim.optimizer Optimizer
optim.sgd SGD
types Number Device _size
utils.data.dataloader DataLoader default_collate
utils.dlpack from_dlpack to_dlpack
utils.hooks RemovableHandle
"""


@pytest.mark.parametrize("line", PATHS.split("\n")[1:-1])
def test_names_are_found_where_torch_has_them(line: str) -> None:
    path, *names = line.split()
    ours, theirs = (importlib.import_module(f"{package}.{path}") for package in ("graphc", "torch"))
    for name in names:
        assert hasattr(theirs, name)
        assert hasattr(ours, name)


CLASSES = sorted(
    {
        (c.__module__.replace("torch", "graphc", 1), name)
        for package in (torch.distributions, torch.optim)
        for name, c in vars(package).items()
        if isinstance(c, type) and c.__module__.startswith("torch.")
    }
)


@pytest.mark.parametrize(("path", "name"), CLASSES)
def test_classes_are_found_in_the_files_that_torch_has_them_in(path: str, name: str) -> None:
    package = importlib.import_module(path.rpartition(".")[0])
    if not hasattr(package, name):
        pytest.skip(f"{name} is not built")
    assert getattr(importlib.import_module(path), name) is getattr(package, name)


def test_tuples_of_sizes() -> None:
    for T in (graphc, torch):
        utils = importlib.import_module(f"{T.__name__}.nn.modules.utils")
        assert utils._pair(3) == (3, 3)
        assert utils._triple([1, 2, 3]) == (1, 2, 3)
        assert utils._ntuple(4)("ab") == ("a", "b")
        assert utils._reverse_repeat_tuple((1, 2), 2) == (2, 2, 1, 1)


def test_dlpack_and_hooks() -> None:
    x = graphc.arange(3.0)
    assert graphc.utils.dlpack.from_dlpack(x).tolist() == [0, 1, 2]
    assert torch.utils.dlpack.from_dlpack(graphc.utils.dlpack.to_dlpack(x)).tolist() == [0, 1, 2]
    handle = graphc.nn.ReLU().register_forward_hook(lambda *a: None)
    assert isinstance(handle, graphc.utils.hooks.RemovableHandle)


def test_probabilities_and_logits() -> None:
    for is_binary in (False, True):
        found = []
        for T in (graphc, torch):
            utils = importlib.import_module(f"{T.__name__}.distributions.utils")
            probs = T.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]])
            logits = utils.probs_to_logits(probs, is_binary)
            found.append([logits, utils.logits_to_probs(logits, is_binary)])
        for ours, theirs in zip(*found, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_a_choice_of_attention_changes_nothing() -> None:
    q = graphc.randn(1, 2, 4, 8)
    attend = graphc.nn.functional.scaled_dot_product_attention
    with graphc.nn.attention.sdpa_kernel([graphc.nn.attention.SDPBackend.MATH]):
        found = attend(q, q, q)
    assert graphc.equal(found, attend(q, q, q))
    with pytest.raises(TypeError, match="SDPBackend"), graphc.nn.attention.sdpa_kernel("math"):
        pass
    with pytest.raises(ValueError, match="at least one"), graphc.nn.attention.sdpa_kernel([]):
        pass
