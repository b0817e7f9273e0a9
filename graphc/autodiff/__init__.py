"""Reverse-mode differentiation: Graph -> Graph, any order."""

from graphc.autodiff.walk import gradients, jvp, vjp

__all__ = ["gradients", "jvp", "vjp"]
