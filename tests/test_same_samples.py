"""The same seed gives the same samples from release to release: digests of samples and of built rows, kept in a file.

A change that is meant to alter samples says so in CHANGELOG.md and renews the file:

    python tests/test_same_samples.py
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssl4rl_plugin.core import Sample
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.data.shards import Codec
from ssl4rl_plugin.data_builders.build.builder import build
from ssl4rl_plugin.data_builders.build.planning import make_plan
from ssl4rl_plugin.tasks import get_task
from ssl4rl_plugin.training.settings import Settings

pytestmark = pytest.mark.slow

FILE = Path(__file__).parent / "sample_digests.json"
SAMPLES = 20
"""Of every task at every level."""
PACKAGES = ("pillow", "numpy", "scipy", "scikit-image", "networkx")
"""Packages whose version may change a pixel or a photograph."""
SOURCES = {
    "image": ("sample_photos", {"crops": 4}),
    "rgbd": ("sample_depth", {"crops": 8}),
    "video": ("sample_videos", {}),
    "graph": ("les_miserables", {}),
}
TYPED_GRAPH = ("families", {})
"""For tasks that need named relations, which Les Misérables has not."""
OURS = sorted(entry.name for entry in distribution("ssl4rl-plugin").entry_points if entry.group == "ssl4rl.tasks")
"""Tasks of other packages may be installed too."""
ARMS = [f"{name}:{level}" for name in OURS for level in get_task(name).levels]
BUILDS = {
    "images": (["rotation", "jigsaw", "contrastive"], SOURCES["image"]),
    "videos": (["temporal_jigsaw"], SOURCES["video"]),
}


def section_of(tasks: list[str], source: tuple[str, dict[str, Any]], epochs: int) -> dict[str, Any]:
    """The `ssl4rl` section of a run, with the base recipe's defaults."""
    name, options = source
    base = Path(__file__).parent.parent / "recipes" / "ssl4rl" / "base.yaml"
    section = yaml.safe_load(base.read_text(encoding="utf-8"))["ssl4rl"]
    section |= {"tasks": tasks, "epochs": epochs, "val_samples": 4}
    section["source"] |= {"name": name, "path": None, "options": options, "val_fraction": 0.1}
    return section


def update(digest: Any, sample: Sample) -> None:
    """Add everything that a sample holds: text, truth, parameters, pixels."""
    digest.update(json.dumps([sample.question, sample.truth, sample.params], sort_keys=True).encode())
    for image in [*sample.images, *(frame for video in sample.videos for frame in video.frames)]:
        digest.update(f"{image.mode}{image.size}".encode() + image.tobytes())


def digest_of(arm: str) -> str:
    """SHA-256 of the first training samples of an arm, shortened."""
    name = arm.partition(":")[0]
    source = TYPED_GRAPH if name == "kg_completion" else SOURCES[get_task(name).kind]
    settings = Settings.from_config(section_of([arm], source, epochs=SAMPLES))
    stream = SampleStream(settings, load_manifest(settings), "train")
    digest = hashlib.sha256()
    for index in range(SAMPLES):
        made = stream[index]
        digest.update(f"{made.item_id} {made.instruction} {made.refused}".encode())
        update(digest, made.sample)
    return digest.hexdigest()[:20]


def digest_of_build(name: str, folder: Path) -> str:
    """SHA-256 of all rows of a build; versions of packages stand in the files' footers, which are left out."""
    import pyarrow.parquet as pq

    section = section_of(*BUILDS[name], epochs=1)
    manifest = load_manifest(Settings.from_config(section))
    build(make_plan(section, manifest, "bytes", Codec("jpeg", 90), 64), manifest, folder)
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*-of-*.parquet")):
        digest.update(path.name.encode())
        for row in pq.read_table(path).to_pylist():
            digest.update(
                json.dumps(row, sort_keys=True, default=lambda data: hashlib.sha256(data).hexdigest()).encode()
            )
    return digest.hexdigest()[:20]


def measured(folder: Path) -> dict[str, Any]:
    """What `FILE` holds."""
    return {
        "made_with": {name: version(name) for name in PACKAGES},
        "samples": {arm: digest_of(arm) for arm in ARMS},
        "builds": {name: digest_of_build(name, folder / name) for name in BUILDS},
    }


KEPT: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


def check(found: str, kept: str) -> None:
    """Fail if digests differ, unless other versions of the packages that make pixels are installed."""
    if found == kept:
        return
    installed = {name: version(name) for name in PACKAGES}
    if installed != KEPT["made_with"]:
        pytest.skip(f"digests were taken with {KEPT['made_with']}, installed are {installed}")
    raise AssertionError("the same seed gives another sample than before; if that is meant, see this file's docstring")


@pytest.mark.parametrize("arm", [pytest.param(arm, marks=pytest.mark.xdist_group(f"same {arm}")) for arm in ARMS])
def test_samples_are_the_same_as_before(arm: str) -> None:
    assert arm in KEPT["samples"], "a new level: add its digest as this file's docstring says"
    check(digest_of(arm), KEPT["samples"][arm])


@pytest.mark.parametrize("name", BUILDS)
def test_built_rows_are_the_same_as_before(name: str, tmp_path: Path) -> None:
    check(digest_of_build(name, tmp_path / name), KEPT["builds"][name])


def test_every_digest_has_its_level() -> None:
    assert list(KEPT["samples"]) == ARMS


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    with tempfile.TemporaryDirectory() as folder:
        FILE.write_text(json.dumps(measured(Path(folder)), indent=1) + "\n", encoding="utf-8")
