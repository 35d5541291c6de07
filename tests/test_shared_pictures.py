"""Pictures that several rows of a micro-batch show, computed once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl4rl_plugin.cpu.shared_pictures import share_pictures
from ssl4rl_plugin.demo.model import MERGE, PATCH, Shape, build_model, train_tokenizer

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
TEMPORAL = 2


@pytest.fixture(scope="module")
def towers() -> dict[str, tuple[Any, Any]]:
    """Each family's vision tower as it is, and one with the same weights that shares pictures."""
    tokenizer = train_tokenizer(["user assistant"])
    made = {}
    for family in FAMILIES:
        plain, sharing = (build_model(tokenizer, 0, shape=Shape(family)) for _ in range(2))
        share_pictures(sharing)
        made[family] = (plain.model.visual, sharing.model.visual)
    return made


def patches(sizes: list[tuple[int, int]], which: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The patches of pictures of `sizes` (in visual tokens), in the order `which`, and their grid."""
    generator = torch.Generator().manual_seed(0)
    values = 3 * TEMPORAL * PATCH * PATCH
    pictures = [torch.randn(h * w * MERGE**2, values, generator=generator) for h, w in sizes]
    grid = torch.tensor([[1, sizes[one][0] * MERGE, sizes[one][1] * MERGE] for one in which])
    return torch.cat([pictures[one] for one in which]), grid


def features(
    tower: Any, pixels: torch.Tensor, grid: torch.Tensor
) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """All that the tower returns, and the gradients of a sum over it that weighs each place differently."""
    tower.zero_grad()
    output = tower(pixels, grid_thw=grid)
    found = [one for value in output.values() for one in ([value] if isinstance(value, torch.Tensor) else value)]
    sum((one * torch.arange(1, len(one) + 1)[:, None]).sin().sum() for one in found).backward()
    return [one.detach() for one in found], {name: weight.grad.clone() for name, weight in tower.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_features_and_gradients_are_the_same(towers: dict[str, tuple[Any, Any]], family: str, which: list[int]) -> None:
    pixels, grid = patches([(1, 1), (1, 1), (2, 1), (1, 3)], which)
    (expected, gradients), (got, shared) = (features(tower, pixels, grid) for tower in towers[family])
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(shared[name], gradient, rtol=1e-3, atol=1e-3 * gradient.abs().max().item() + 1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_is_computed_once(towers: dict[str, tuple[Any, Any]], family: str) -> None:
    _, tower = towers[family]
    seen = []
    watch = tower.patch_embed.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    for which, expected in (([0, 1, 0, 0, 1], 2), ([1, 0], 2), ([1, 1], 1)):
        pixels, grid = patches([(1, 1), (1, 1)], which)
        tower(pixels, grid_thw=grid)
        assert seen.pop() == expected * MERGE**2
    watch.remove()


def test_equal_values_in_another_shape_are_another_picture(towers: dict[str, tuple[Any, Any]]) -> None:
    plain, tower = towers["qwen2_5_vl"]
    pixels, _ = patches([(1, 2)], [0, 0])
    grid = torch.tensor([[1, MERGE, 2 * MERGE], [1, 2 * MERGE, MERGE]])
    torch.testing.assert_close(tower(pixels, grid_thw=grid).pooler_output, plain(pixels, grid_thw=grid).pooler_output)
