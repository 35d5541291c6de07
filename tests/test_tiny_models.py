"""Sizes and initial weights of the demo's models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl4rl_plugin.data_builders.sources.sample_photos import PHOTOS, SamplePhotosSource
from ssl4rl_plugin.demo.model import Shape, build_model, smooth_filters, train_tokenizer

PATCH = 14


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["user assistant system"])


def patch_filters(model: Any) -> torch.Tensor:
    return dict(model.named_parameters())["model.visual.patch_embed.proj.weight"].detach()


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_shape_sizes_the_language_model_and_the_tower(tokenizer: Any, family: str) -> None:
    shape = Shape(family, PATCH, hidden=64, layers=3, vision_hidden=32, vision_layers=2)
    config = build_model(tokenizer, 0, shape=shape).config
    assert (config.text_config.hidden_size, config.text_config.num_hidden_layers) == (64, 3)
    assert (config.vision_config.hidden_size, config.vision_config.depth) == (32, 2)
    assert config.vision_config.out_hidden_size == 64


def test_gain_and_filters_change_only_what_they_name(tokenizer: Any) -> None:
    plain, other = (
        dict(build_model(tokenizer, 0, shape=shape).named_parameters())
        for shape in (Shape(patch=PATCH), Shape(patch=PATCH, frequencies=3, attention_gain=3.0))
    )
    deviations = {name: (other[name].std() / plain[name].std()).item() for name in plain if plain[name].dim() > 1}
    for name, ratio in deviations.items():
        if "o_proj" in name:
            assert ratio == pytest.approx(3, rel=0.05)
        elif "patch_embed" not in name:
            assert ratio == pytest.approx(1, rel=0.05)


def test_smooth_filters_depend_on_the_seed_alone(tokenizer: Any) -> None:
    shape = Shape(patch=PATCH, frequencies=3)
    first, again, other = (patch_filters(build_model(tokenizer, seed, shape=shape)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(first[:, :, 0], first[:, :, 1]), "both frames of a still picture count the same"


def test_smooth_filters_see_more_than_brightness() -> None:
    """The share of the largest component of what patches of photographs give, beside that of white noise."""
    size = (64, 3, 2, PATCH, PATCH)
    noise = torch.randn(size, generator=torch.Generator().manual_seed(0)) / (3 * 2 * PATCH**2) ** 0.5
    smooth = smooth_filters(size, 3, torch.Generator().manual_seed(0))
    patches = torch.from_numpy(np.concatenate([cut(name) for name in PHOTOS])).float() / 127.5 - 1
    shares, strengths = {}, {}
    for name, filters in (("noise", noise), ("smooth", smooth)):
        seen = torch.einsum("pcyx,fcyx->pf", patches, filters.sum(2))
        variances = torch.linalg.svdvals(seen - seen.mean(0)) ** 2
        shares[name], strengths[name] = (variances[0] / variances.sum()).item(), seen.std().item()
    assert shares["smooth"] < 0.6 * shares["noise"]
    assert 0.2 < strengths["smooth"] < 5, "of order 1, as other layers expect"


def cut(name: str) -> np.ndarray:
    """Patches of a photograph that comes with scikit-image: (patches, 3, PATCH, PATCH)."""
    side = 8 * PATCH
    with Image.open(SamplePhotosSource().folder / name) as image:
        pixels = np.asarray(image.convert("RGB").resize((side, side))).reshape(8, PATCH, 8, PATCH, 3)
    return pixels.transpose(0, 2, 4, 1, 3).reshape(-1, 3, PATCH, PATCH)
