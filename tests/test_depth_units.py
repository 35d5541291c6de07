"""Depth maps as sensors write them: marks for no measurement are never compared, and a wrong scale is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import photo, rgbd
from PIL import Image
from typer.testing import CliRunner

from ssl4rl_plugin.cli import app
from ssl4rl_plugin.core import RGBD, Item, Sample
from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.data.depth import metres
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.index.depths import DepthFigures, depth_figures
from ssl4rl_plugin.data_builders.index.indexer import build_manifest
from ssl4rl_plugin.data_builders.sources.rgbd import RgbdSource
from ssl4rl_plugin.tasks import get_task

ENDINGS = [".npy", ".png", ".tif"]


def write(path: Path, depth: np.ndarray, scale: float = 1000, unknown: float = 65535) -> None:
    """Write metres, NaN where unknown, as a sensor does: floats as they are, integers with `unknown` in place of NaN."""
    if path.suffix == ".npy":
        np.save(path, depth)
    else:
        values = np.where(np.isnan(depth), unknown, np.rint(np.nan_to_num(depth) * scale))
        Image.fromarray(values.astype(np.uint16)).save(path)


def scene(folder: Path, number: int, depth: np.ndarray, ending: str = ".png", **how: float) -> None:
    photo(number, depth.shape[1], depth.shape[0]).save(folder / f"{number}.jpg")
    write(folder / f"{number}_depth{ending}", depth, **how)


@pytest.mark.parametrize(
    ("values", "known"),
    [
        (np.array([[0, 1, 65534, 65535]], np.uint16), [False, True, True, False]),
        (np.array([[-1, 1, 32766, 32767]], np.int16), [False, True, True, False]),
        (np.array([[np.nan, 1, np.inf, -np.inf, -1, 65504, 0]], np.float16), [False, True, *[False] * 5]),
        (np.array([[1, np.finfo(np.float32).max, 999, 1001]], np.float32), [True, False, True, False]),
        (np.array([[1, np.finfo(np.float64).max, np.finfo(np.float32).max, 1e10, 2]]), [True, *[False] * 3, True]),
    ],
)
def test_marks_of_every_type_are_unknown(values: np.ndarray, known: list[bool]) -> None:
    scale = 1000 if values.dtype.kind in "iu" else 1
    depth = metres(values, scale)
    assert depth.dtype == np.float32 and np.isfinite(depth[0]).tolist() == known
    np.testing.assert_allclose(depth[0][known], values[0][known] / scale, rtol=1e-3)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    ending=st.sampled_from([".png", ".tif", ".npy"]),
    mark=st.sampled_from(["largest", "zero", "beyond", "nan"]),
    holes=st.lists(st.tuples(*[st.floats(0, 1)] * 2, *[st.floats(0.02, 0.3)] * 2), max_size=6),
)
def test_tasks_never_compare_unknown_pixels(
    tmp_path: Path, seed: int, ending: str, mark: str, holes: list[tuple[float, float, float, float]]
) -> None:
    """Marks are planted in a scene whose true depth is known. Each point that a task shows has a true depth there, and the
    truth is the order of the true depths, by brute force over all samples."""
    folder = tmp_path / f"{seed}{ending}{mark}{len(holes)}"
    folder.mkdir(exist_ok=True)
    true = rgbd(seed, 320, 240).depth.copy()
    for x, y, w, h in holes:
        true[int(y * 240) : int((y + h) * 240), int(x * 320) : int((x + w) * 320)] = np.nan
    rng = np.random.default_rng(seed)
    true[rng.random(true.shape) < 0.03] = np.nan
    floats = {"largest": np.finfo(np.float32).max, "zero": 0, "beyond": 5000, "nan": np.nan}
    if ending == ".npy":
        stored = np.where(np.isnan(true), np.float32(floats[mark]), true)
        scene(folder, 1, stored, ending)
    else:
        scene(folder, 1, true, ending, unknown={"largest": 65535, "zero": 0, "beyond": 60_000, "nan": 65535}[mark])
    source = RgbdSource(folder, max_depth=50)
    picture = Image.open(folder / "1.jpg").convert("RGB")
    data = source.item("1.jpg", lambda: picture, None)
    assert isinstance(data, RGBD)
    np.testing.assert_array_equal(np.isnan(data.depth), np.isnan(true))
    item = Item("a", data, "a")
    checked = 0
    for name in ("depth_order", "relative_3d"):
        task = get_task(name)
        for level in task.levels:
            for draw in range(2):
                sample = task.generate(item, task.level(level), rng_for(seed, name, level, draw))
                if not isinstance(sample, Sample):
                    continue
                # The source has 320 x 240 pixels; a sample shows it resized.
                width, height = sample.images[0].size
                at = {
                    label: true[min(239, int((y + 0.5) * 240 / height)), min(319, int((x + 0.5) * 320 / width))]
                    for label, (x, y) in sample.params["points"].items()
                }
                assert all(np.isfinite(depth) for depth in at.values()), (name, level, at)
                if name == "depth_order":
                    assert sorted(at, key=at.__getitem__) == list(sample.truth)
                checked += 1
    assert checked or not np.isfinite(true).mean() > 0.9


def room(seed: int) -> np.ndarray:
    return np.linspace(0.9, 4.5, 64 * 96, dtype=np.float32).reshape(64, 96) + np.float32(seed * 0.01)


def street(seed: int) -> np.ndarray:
    ramp = np.linspace(0, 1, 64 * 96, dtype=np.float32).reshape(64, 96)
    return 4 + 60 * ramp**3 + np.float32(seed * 0.05)


def figures(folder: Path, depth: np.ndarray, stored: float, read: float) -> DepthFigures:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(3):
        scene(folder, i, depth, scale=stored)
    found = depth_figures(build_manifest(RgbdSource(folder, depth_scale=read), folder / "m.parquet"))
    assert found is not None
    return found


@pytest.mark.parametrize(("made", "scale"), [
    (room, 256), (room, 1000), (room, 5000), (room, 10_000), (street, 256), (street, 1000),
])  # fmt: skip
def test_a_wrong_scale_is_told_with_the_likely_ones(tmp_path: Path, made, scale: float) -> None:
    right = figures(tmp_path / "right", made(0), scale, scale)
    assert right.warning(scale) is None, right
    expected = np.percentile(made(0), (1, 50, 99))
    np.testing.assert_allclose((right.low, right.median, right.high), expected, rtol=0.02)
    assert right.known == 1 and right.pictures == 3
    if scale != 1000:
        wrong = figures(tmp_path / "wrong", made(0), scale, 1000)
        said = wrong.warning(1000)
        assert said is not None and "option depth_scale" in said and f"{scale:g} (median" in said, (wrong, said)


def test_a_run_warns_when_it_indexes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(3):
        scene(tmp_path, i, room(i), scale=5000)
    build_manifest(RgbdSource(tmp_path, depth_scale=5000), tmp_path / "right.parquet")
    assert "depth" not in caplog.text
    build_manifest(RgbdSource(tmp_path), tmp_path / "wrong.parquet")
    assert "neither a room nor a street" in caplog.text and "depth_scale=" in caplog.text


def test_the_command_prints_the_depths_and_warns(tmp_path: Path) -> None:
    for i in range(4):
        depth = room(i)
        depth[:8] = np.nan  # 65535 in the file
        scene(tmp_path, i, depth, scale=5000)
    run = CliRunner().invoke
    arguments = ["index", str(tmp_path), "--source", "rgbd", "--workers", "1"]
    result = run(app, [*arguments, "--option", "depth_scale=5000"])
    said = " ".join(result.stderr.split())
    assert result.exit_code == 0 and "depth in metres: median 2.9" in said and "known in 88%" in said
    assert "1st percentile" in said and "99th percentile" in said and "warning" not in said
    result = run(app, arguments)
    assert "warning: neither a room nor a street" in " ".join(result.stderr.split())
    found = json.loads(run(app, [*arguments, "--json"]).stdout)["depth"]
    assert found["median"] == pytest.approx(14.6, rel=0.05) and "depth_scale" in found["warning"]
    result = run(app, [*arguments, "--option", "depth_scale=1"])  # 5000 metres: all beyond max_depth
    said = " ".join(result.stderr.split())
    assert (
        result.exit_code == 2 and "no_depth" in said and "1 a metre (depth_scale)" in said and "max_depth=1000" in said
    )
    with pytest.raises(SourceError, match="max_depth is a number of metres"):
        RgbdSource(tmp_path, max_depth=0)


def test_layouts_of_published_data(tmp_path: Path) -> None:
    """7-Scenes, and depth as TIFF; a file of a kind that is not read is named."""
    photo(1, 96, 64).save(tmp_path / "frame-000000.color.png")
    write(tmp_path / "frame-000000.depth.png", np.where(np.arange(96) < 9, np.nan, room(0)))
    photo(2, 96, 64).save(tmp_path / "float.jpg")
    Image.fromarray(room(1)).save(tmp_path / "float_depth.tiff")
    photo(3, 96, 64).save(tmp_path / "exr.jpg")
    (tmp_path / "exr_depth.exr").write_bytes(b"v/1\x01")
    source = RgbdSource(tmp_path, depth_scale=1000)
    manifest = build_manifest(source, tmp_path / "out/m.parquet", val_fraction=0)
    assert {item.ref for item in manifest.items("train")} == {"frame-000000.color.png", "float.jpg"}
    (rejected,) = [row for row in manifest.table.to_pylist() if row["reason"]]
    assert rejected["reason"] == "no_depth_file" and "exr_depth.exr is not read: convert it" in rejected["detail"]
    for item in manifest.items("train"):
        data = manifest.open(item)
        assert isinstance(data, RGBD)
        expected = room(0) if "frame" in item.ref else room(1)
        known = np.isfinite(data.depth)
        assert known[:, :9].any() == ("float" in item.ref) and known[:, 9:].all()
        np.testing.assert_allclose(data.depth[known], expected[known], atol=0.001)
