"""Networks: `build_model` makes one, its docstring shows how to use it."""

from dualview.models.build import build_model

__all__ = ["build_model"]
