"""The GPU recipes beside verl's own examples: every difference has its reason, and the page shows them.

SSL4RL_VERL_REPO names a checkout of verl's repository or its git directory; then the settings are read from its scripts.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import yaml

DOCS = Path(__file__).parent.parent / "docs"
sys.path.insert(0, str(DOCS))

import make_gpu_settings  # noqa: E402
import verl_examples  # noqa: E402


def test_every_difference_has_a_reason_and_every_reason_a_difference() -> None:
    content = yaml.safe_load(verl_examples.FILE.read_text())
    rows = list(make_gpu_settings.compared(content))
    other = [(script, key, reason) for script, key, theirs, ours, reason in rows if ours != theirs]
    assert len(rows) > 100 and not [row for row in other if not row[2]]
    assert {key for _, key, _ in other} == set(content["reasons"])


def test_the_page_shows_them() -> None:
    page = make_gpu_settings.PAGE.read_text()
    assert page.startswith(make_gpu_settings.examples_table())


@pytest.mark.parametrize("recipe", ["images_qwen3_vl_2b", "graph_mixture"])
def test_the_page_has_todays_estimates(recipe: str) -> None:
    (row,) = [line for line in make_gpu_settings.PAGE.read_text().splitlines() if f"`{recipe}`" in line]
    cells = [make_gpu_settings.fits(recipe, machine, {}) for machine in make_gpu_settings.MACHINES]
    assert row.endswith(f"| {' | '.join(cells)} |")


@pytest.mark.skipif("SSL4RL_VERL_REPO" not in os.environ, reason="SSL4RL_VERL_REPO does not name verl's repository")
def test_the_settings_are_those_of_verls_scripts() -> None:
    found = verl_examples.refresh(Path(os.environ["SSL4RL_VERL_REPO"]))
    assert found == yaml.safe_load(verl_examples.FILE.read_text())
