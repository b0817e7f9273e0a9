"""Gradients of recorded computations: `backward`, `grad`, user-defined `Function`s, Jacobians, checks."""

from graphc.autograd import functional
from graphc.autograd.anomaly import detect_anomaly, set_detect_anomaly
from graphc.autograd.engine import backward, grad
from graphc.autograd.function import Function
from graphc.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck
from graphc.autograd.variable import Variable
from graphc.frontend import modes
from graphc.frontend.modes import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from graphc.paths import module_at

__all__ = [
    "Function", "GradcheckError", "Variable", "backward", "detect_anomaly", "enable_grad", "functional",
    "grad", "gradcheck", "gradgradcheck", "inference_mode", "is_grad_enabled", "no_grad",
    "set_detect_anomaly", "set_grad_enabled",
]  # fmt: skip

module_at(
    "graphc.autograd.grad_mode",
    {name: getattr(modes, name) for name in ("enable_grad", "inference_mode", "no_grad", "set_grad_enabled")},
    "Gradient modes, by the path of PyTorch's file.",
)
