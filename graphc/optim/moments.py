"""What the rules of optimizers share: weight decay, and running averages of gradients and squares."""

from __future__ import annotations

from graphc.nn.arith import Num
from graphc.optim.hyper import Hyper
from graphc.optim.optimizer import Group


def lerp(start: Num, end: Num, weight: Num, high: bool) -> Num:
    """`start + weight * (end - start)`, from the other end if the weight is at least a half (`high`)."""
    if high:
        return end - (end - start) * (1 - weight)
    return start + weight * (end - start)


def with_l2(group: Group, hyper: Hyper, p: Num, grad: Num) -> Num:
    """The gradient with that of the group's L2 penalty."""
    return grad if group["weight_decay"] == 0 else grad + hyper.weight_decay * p


def decayed(group: Group, hyper: Hyper, p: Num, grad: Num) -> tuple[Num, Num]:
    """(p, grad) with the group's weight decay: of the parameter itself if decoupled, else in the gradient."""
    if group["weight_decay"] != 0 and group["decoupled_weight_decay"]:
        return p * (1 - hyper.lr * hyper.weight_decay), grad
    return p, with_l2(group, hyper, p, grad)


def averages(group: Group, hyper: Hyper, grad: Num, state: dict[str, Num]) -> tuple[Num, Num]:
    """The running averages `exp_avg` of gradients and `exp_avg_sq` of their squares, with rates `betas`."""
    beta2 = hyper.item("betas", 1)
    mean = first_average(group, hyper, grad, state)
    return mean, state["exp_avg_sq"] * beta2 + grad * grad * (1 - beta2)


def first_average(group: Group, hyper: Hyper, grad: Num, state: dict[str, Num]) -> Num:
    """The running average `exp_avg` of gradients, with rate `betas[0]`."""
    return lerp(state["exp_avg"], grad, 1 - hyper.item("betas", 0), group["betas"][0] <= 0.5)
