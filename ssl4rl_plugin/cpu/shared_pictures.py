"""Compute a picture's features once for all rows of a micro-batch that show it.

The n rollouts of a prompt are n rows with the same pictures, and a vision tower computes them anew for each row. On an
accelerator that is a small part of a step. On a CPU the tower's loop over pictures is not (docs/cpu.md). Features and
gradients stay the same up to the order of the sums.
"""

from __future__ import annotations

from typing import Any

import torch


def share_pictures(model: torch.nn.Module) -> None:
    """Let the vision towers of `model` compute equal pictures once.

    A tower is a module named `visual`, as in Qwen2.5-VL and Qwen3-VL of transformers: it takes the patches of all pictures
    (patches x values) and `grid_thw` (pictures x 3), and returns features in the pictures' order.
    """
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] == "visual":
            shared = _Shared()
            module.register_forward_pre_hook(shared.before, with_kwargs=True)
            module.register_forward_hook(shared.after, with_kwargs=True)


class _Shared:
    """Hooks around the forward pass of one tower."""

    _order: list[int] | None = None
    """For each picture the place of its first copy among the different pictures; None if all differ."""
    _patches: list[int]
    """Patches of each different picture."""

    def before(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._order = None
        grid = kwargs.get("grid_thw")
        others = (value for name, value in kwargs.items() if name != "grid_thw")
        if len(args) != 1 or grid is None or any(isinstance(value, torch.Tensor) for value in others):
            return None  # something else that belongs to the pictures would have to be shared too
        pictures = args[0].split(grid.prod(-1).tolist())
        places: dict[tuple[bytes, ...], int] = {}
        order = [
            places.setdefault((size.numpy().tobytes(), picture.detach().numpy().tobytes()), len(places))
            for size, picture in zip(grid, pictures, strict=True)
        ]
        if len(places) == len(order):
            return None
        firsts = [order.index(place) for place in range(len(places))]
        self._order, self._patches = order, [len(pictures[first]) for first in firsts]
        return (torch.cat([pictures[first] for first in firsts]),), {**kwargs, "grid_thw": grid[firsts]}

    def after(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if self._order is not None:
            for name, value in output.items():
                tensors = isinstance(value, torch.Tensor)
                output[name] = self._spread(value) if tensors else [self._spread(one) for one in value]
        return output

    def _spread(self, features: torch.Tensor) -> torch.Tensor:
        """Features of the different pictures, one after the other, at each place that shows the picture."""
        assert self._order is not None
        merged = sum(self._patches) // len(features)  # patches of a visual token
        parts = features.split([patches // merged for patches in self._patches])
        return torch.cat([parts[place] for place in self._order])
