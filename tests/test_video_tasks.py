"""What the video tasks promise beyond what every task does: their truths on pixels, and each of their refusals."""

from __future__ import annotations

import functools
import itertools
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from pictures import clip as fresh_clip
from pictures import photo as fresh_photo
from PIL import Image, ImageOps

from ssl4rl_plugin.core import Clip, Item, Rejection, Sample
from ssl4rl_plugin.data.images import difference
from ssl4rl_plugin.tasks import get_task
from ssl4rl_plugin.tasks.video.anomaly_grounding import CHANGES
from ssl4rl_plugin.tasks.video.clips import spaced
from ssl4rl_plugin.tasks.video.video_counting import KINDS, runs, shape

NAMES = ("temporal_jigsaw", "arrow_of_time", "playback_speed", "anomaly_grounding", "inserted_frame", "video_counting",
         "next_clip")  # fmt: skip
ARMS = [(name, level) for name in NAMES for level in get_task(name).levels]


clip, photo = functools.cache(fresh_clip), functools.cache(fresh_photo)


@functools.cache
def dated(frames: int = 64, size: tuple[int, int] = (80, 60), fps: float = 8.0) -> Clip:
    """A clip whose frames tell their number by their mean brightness: see `dates`."""
    texture = np.asarray(photo(0, *size).convert("L"), float)
    texture = (texture - texture.mean()) / np.ptp(texture) * 50
    shown = [np.clip(40 + 170 * k / frames + texture, 0, 255).astype(np.uint8) for k in range(frames)]
    return Clip(tuple(Image.fromarray(np.stack([frame] * 3, axis=-1)) for frame in shown), fps)


def dates(shown: Clip, frames: int = 64) -> list[int]:
    """The frame numbers that the frames of a dated clip tell."""
    return [round((float(np.asarray(frame).mean()) - 40) * frames / 170) for frame in shown.frames]


def picture(seed: int, width: int, height: int) -> Image.Image:
    """A test photo of any size, however small."""
    return photo(seed).resize((width, height))


def item(data: Clip, other: Clip | None = None) -> Item:
    return Item("a", data, "a", (Item("b", other or clip(99), "b"),))


def made(name: str, level_name: str, data: Clip, seed: int = 0, other: Clip | None = None, **options: Any) -> Any:
    task = get_task(name)
    level = task.level(level_name, **{"side": 84, **options})
    return task.generate(item(data, other), level, random.Random(seed))


def sampled(name: str, level_name: str, data: Clip, count: int = 12, **more: Any) -> list[Sample]:
    found = [made(name, level_name, data, seed, **more) for seed in range(count)]
    assert all(isinstance(sample, Sample) for sample in found), found
    return found


def reasons(name: str, level_name: str, data: Clip, **more: Any) -> set[str]:
    found = [made(name, level_name, data, seed, **more) for seed in range(8)]
    return {sample.reason if isinstance(sample, Rejection) else "made" for sample in found}


STILL = Clip((photo(1, 80, 60),) * 64, 8.0)
BLANK = Clip((Image.new("RGB", (80, 60), "gray"),) * 64, 8.0)


@pytest.mark.parametrize(("name", "level_name"), ARMS)
def test_no_clip_makes_a_task_crash(name: str, level_name: str) -> None:
    for frames in (1, 7, 33):
        for size in ((28, 28), (560, 28), (28, 300)):
            data = Clip(tuple(picture(k, *size) for k in range(frames)), 8.0)
            other = Clip(tuple(picture(k, 40, 90) for k in range(3)), 25.0)
            assert isinstance(made(name, level_name, data, frames, other, side=56), Sample | Rejection)
    one = Clip((photo(3, 80, 60),), 8.0)
    assert reasons(name, level_name, one) == {"too_short"}
    assert reasons(name, level_name, BLANK) <= {
        "similar_clips", "symmetric", "blank", "similar_frames", "ambiguous", "made"
    }  # fmt: skip


@pytest.mark.parametrize(("name", "level_name"), [arm for arm in ARMS if arm[0] != "inserted_frame"])
def test_prompts_show_at_most_32_frames_and_say_how_they_are_counted(name: str, level_name: str) -> None:
    for sample in sampled(name, level_name, clip(4), 3, other=clip(5)):
        assert sum(len(video.frames) for video in sample.videos) <= 32
        assert len({video.fps for video in sample.videos}) == 1, "a clip's rate must not tell it apart"
        assert len({len(video.frames) for video in sample.videos}) == 1
        if len(sample.videos) > 1:
            assert "lip 1: <video>" in sample.question or "lip A: <video>" in sample.question


# ---------------------------------------------------------------------------------------------------- temporal jigsaw


@pytest.mark.parametrize("level_name", ["4_clips", "6_clips", "8_clips"])
def test_temporal_jigsaw_truth_is_the_order_in_time(level_name: str) -> None:
    for sample in sampled("temporal_jigsaw", level_name, dated()):
        told = [dates(sample.videos["ABCDEFGH".index(letter)]) for letter in sample.truth]
        flat = [date for part in told for date in part]
        assert flat == sorted(set(flat)), "clips must follow each other, and none may share a frame"
        assert len({part[1] - part[0] for part in told}) == 1
        # Something is left out between any two clips: a gap of more than the step from frame to frame.
        assert all(b[0] - a[-1] > 1 for a, b in itertools.pairwise(told))


def test_temporal_jigsaw_refusals() -> None:
    assert reasons("temporal_jigsaw", "4_clips", STILL) == {"similar_clips"}
    frames = dated().frames
    there_and_back = Clip((*frames[::2], *frames[::-2]), 8.0)
    assert reasons("temporal_jigsaw", "4_clips", there_and_back) <= {"looping", "similar_clips"}
    film = clip(2).frames
    around = Clip((*film, *(Image.blend(film[-1], film[0], k / 20) for k in range(1, 20))), 8.0)
    assert reasons("temporal_jigsaw", "4_clips", around) == {"looping"}
    assert reasons("temporal_jigsaw", "8_clips", dated(40)) == {"too_short"}
    with pytest.raises(ValueError, match=r"clips must be in 3\.\.12"):
        get_task("temporal_jigsaw").level("4_clips", clips=2)


# ---------------------------------------------------------------------------------------------------- arrow of time


@pytest.mark.parametrize("level_name", list(get_task("arrow_of_time").levels))
def test_arrow_of_time_truth_is_the_direction(level_name: str) -> None:
    seen = Counter()
    for sample in sampled("arrow_of_time", level_name, dated(), 30):
        forward = [told == sorted(told) for told in map(dates, sample.videos)]
        if len(forward) == 2:
            assert forward == ([True, False] if sample.truth == "A" else [False, True])
            assert sample.videos[0].frames == sample.videos[1].frames[::-1]
            assert sample.options == sample.videos
        else:
            assert forward == [sample.truth == "forward"]
        seen[sample.truth] += 1
    assert min(seen.values()) >= 8 and len(seen) == 2


def test_arrow_of_time_refuses_what_is_its_own_reverse() -> None:
    frames = clip(3).frames[:32]
    assert reasons("arrow_of_time", "pair", Clip((*frames, *frames[::-1]), 8.0)) == {"symmetric"}
    assert reasons("arrow_of_time", "single", STILL) == {"symmetric"}
    assert "made" in reasons("arrow_of_time", "single", clip(3))


# ---------------------------------------------------------------------------------------------------- playback speed


def test_playback_speed_truth_is_the_ratio_of_the_steps() -> None:
    for level_name, delayed in (("pair_2", False), ("pair_4", False), ("pair_later", True)):
        for sample in sampled("playback_speed", level_name, dated(), 20):
            known, asked = map(dates, sample.videos)
            assert (asked[-1] - asked[0]) / (known[-1] - known[0]) == float(sample.truth.removesuffix("x"))
            assert known[0] < asked[0] <= known[3] if delayed else known[0] == asked[0]
    for fps in (4.0, 8.0):
        for sample in sampled("playback_speed", "single", dated(128, fps=fps), 10):
            (told,) = (dates(video, 128) for video in sample.videos)
            assert (told[1] - told[0]) / fps == 0.25 * float(sample.truth.removesuffix("x"))


def test_playback_speed_tells_nothing_but_by_what_moves() -> None:
    starts = {truth: Counter() for truth in ("0.5x", "1x", "2x", "4x")}
    for sample in sampled("playback_speed", "pair_4", dated(), 100):
        assert {video.fps for video in sample.videos} == {4.0}
        starts[sample.truth][sample.params["reference"][0]] += 1
    assert all(len(counted) >= 6 and max(counted) < 8 for counted in starts.values())


def test_playback_speed_refusals_and_options() -> None:
    assert reasons("playback_speed", "pair_4", STILL) == {"similar_clips"}
    assert reasons("playback_speed", "pair_4", dated(56)) == {"too_short"}
    assert reasons("playback_speed", "single", dated(fps=2.0)) == {"too_coarse"}
    task = get_task("playback_speed")
    assert task.level("pair_4", speeds="1x, 2x").names == ("1x", "2x")
    for speeds in ("1x", "2x,4x", "1x,1.5x", "4x,1x", "fast,slow", "0x,1x"):
        with pytest.raises(ValueError, match="speeds"):
            task.level("pair_4", speeds=speeds)
    assert task.score("2", "2x", task.level("pair_4")).correct


# ---------------------------------------------------------------------------------------------------- anomaly grounding


@pytest.mark.parametrize("level_name", ["plain", "geometry", "subtle"])
def test_anomaly_grounding_changes_the_run_and_nothing_else(level_name: str) -> None:
    original = clip(6, 64, 84, 63)
    kinds = Counter()
    for sample in sampled("anomaly_grounding", level_name, original, 30):
        (shown,) = sample.videos
        first, last = sample.truth
        kind = sample.params["change"]
        kinds[kind] += 1
        for number, (place, frame) in enumerate(zip(sample.params["places"], shown.frames, strict=True), 1):
            if not first <= number <= last:
                assert frame.tobytes() == original.frames[place].tobytes()
            elif kind != "noise":
                expected = CHANGES[kind](original.frames[place], random.Random(0))
                assert frame.tobytes() == expected.tobytes() and difference(frame, original.frames[place]) > 0.001
    assert set(kinds) == set(get_task("anomaly_grounding").level(level_name).kinds)


def test_changes_are_what_their_names_say() -> None:
    frame = photo(2, 84, 63)
    after = {kind: change(frame, random.Random(0)) for kind, change in CHANGES.items()}
    assert after["rot180"].tobytes() == frame.rotate(180).tobytes()
    assert after["mirror"].tobytes() == ImageOps.mirror(frame).tobytes()
    assert all(image.size == frame.size and image.mode == "RGB" for image in after.values())
    noise = np.asarray(after["noise"], float) - np.asarray(frame, float)
    assert 25 < noise.std() < 45 and abs(noise.mean()) < 3
    middle = frame.crop((14, 10, 70, 52)).resize(frame.size, Image.Resampling.BICUBIC)
    assert difference(after["zoom"], middle) < 0.02


def test_a_reversed_run_plays_backward() -> None:
    for sample in sampled("anomaly_grounding", "reverse", dated(), 20):
        told = dates(sample.videos[0])
        first, last = sample.truth
        told[first - 1 : last] = told[first - 1 : last][::-1]
        assert told == sorted(told)


def test_anomaly_grounding_refusals() -> None:
    gray = dated()
    assert reasons("anomaly_grounding", "plain", gray, changes="gray") == {"no_visible_change"}
    assert reasons("anomaly_grounding", "plain", gray, changes="swap") == {"no_visible_change"}
    assert reasons("anomaly_grounding", "reverse", STILL) == {"no_visible_change"}
    assert reasons("anomaly_grounding", "plain", BLANK) == {"blank"}
    # One frame without the change's mark is enough: the run might begin or end beside it.
    frames = list(clip(6).frames)
    frames[-4] = Image.new("RGB", frames[0].size, (128, 128, 128))
    assert "no_visible_change" in reasons("anomaly_grounding", "plain", Clip(tuple(frames), 8.0), frames=32)
    with pytest.raises(ValueError, match="changes must be some of"):
        get_task("anomaly_grounding").level("plain", changes="gray,melt")
    with pytest.raises(ValueError, match="longest < frames / 2"):
        get_task("anomaly_grounding").level("plain", longest=8)


# ---------------------------------------------------------------------------------------------------- inserted frame


@functools.cache
def slow(seed: int, size: tuple[int, int] = (80, 60)) -> Clip:
    """A slow pan over a smooth picture."""
    wide = picture(seed, 40, 30).resize((size[0] * 3, size[1] * 2), Image.Resampling.BICUBIC)
    return Clip(tuple(wide.crop((k, k // 3, k + size[0], k // 3 + size[1])) for k in range(64)), 8.0)


def test_inserted_frame_is_at_the_place_that_the_truth_says() -> None:
    host, alien = dated(), Clip(tuple(Image.new("RGB", (90, 120), (255, 0, k)) for k in range(40)), 25.0)
    seen = Counter()
    for sample in sampled("inserted_frame", "16_frames", host, 60, other=alien):
        (shown,) = sample.videos
        red = [
            k for k, frame in enumerate(shown.frames, 1) if frame.getpixel((5, 5))[0] == 255 > frame.getpixel((5, 5))[1]
        ]
        assert [str(k) for k in red] == [sample.truth]
        assert len({frame.size for frame in shown.frames}) == 1 and sample.options == shown.frames
        told = dates(shown)
        told.pop(red[0] - 1)
        assert told == sorted(set(told))
        seen[sample.truth] += 1
    assert len(seen) >= 13


def test_a_frame_of_the_same_video_comes_from_outside_of_what_is_shown() -> None:
    for sample in [
        s for s in (made("inserted_frame", "same_video", dated(), k) for k in range(30)) if isinstance(s, Sample)
    ]:
        told = dates(sample.videos[0])
        new = told.pop(int(sample.truth) - 1)
        assert told == sorted(told) and not told[0] <= new <= told[-1] and new == sample.params["frame"]


def test_inserted_frames_go_through_the_same_resizing() -> None:
    """Neither video is left sharper: both have the size of the smaller one before they are shown."""
    large, small = slow(1, (240, 180)), slow(2, (60, 80))
    for one, other in ((large, small), (small, large)):
        drawn = [made("inserted_frame", "8_frames", one, k, other) for k in range(6)]
        samples = [sample for sample in drawn if isinstance(sample, Sample)]
        assert samples, drawn
        aspect = one.frames[0].width / one.frames[0].height
        for sample in samples:
            frame = sample.videos[0].frames[0]
            assert frame.width / frame.height == pytest.approx(aspect, 0.05)


def test_inserted_frame_refusals() -> None:
    assert reasons("inserted_frame", "8_frames", STILL, other=STILL) == {"similar_frames"}
    cuts = Clip(tuple(photo(k, 80, 60) for k in range(64)), 8.0)
    assert reasons("inserted_frame", "16_frames", cuts, other=slow(1)) == {"ambiguous"}
    assert reasons("inserted_frame", "8_frames", slow(1), other=Clip((picture(0, 20, 20),), 8.0)) == {"too_small"}
    assert reasons("inserted_frame", "same_video", dated(20)) == {"too_short"}


# ---------------------------------------------------------------------------------------------------- counting


@pytest.mark.parametrize("level_name", list(get_task("video_counting").levels))
def test_video_counting_truth_is_what_was_pasted(level_name: str) -> None:
    original = clip(8, 64, 84, 63)
    level = get_task("video_counting").level(level_name)
    for sample in sampled("video_counting", level_name, original, 25):
        placed = sample.params["appearances"]
        counted = Counter(one["kind"] for one in placed)
        assert [counted[kind] for kind in sample.params["asked"]] == sample.truth
        assert "circle" in sample.question or "square" in sample.question or "triangle" in sample.question
        places = [sample.question.index(f"a {kind}") for kind in sample.params["asked"]]
        assert places == sorted(places), "the numbers are asked for in the order of the truth"
        others = sum(counted.values()) - sum(sample.truth)
        assert others <= level.others
        # Frames differ from the original where the parameters say so, and nowhere else.
        altered = [
            number
            for number, (place, frame) in enumerate(
                zip(sample.params["places"], sample.videos[0].frames, strict=True), 1
            )
            if frame.tobytes() != original.frames[place].tobytes()
        ]
        covered = [k for one in placed for k in range(one["frames"][0], one["frames"][1] + 1)]
        assert altered == covered
        for one, following in itertools.pairwise(placed):
            assert one["frames"][1] + 1 < following["frames"][0]
        for one in placed:
            left, upper, side = one["box"]
            assert left >= 2 and upper >= 2 and left + side <= 84 - 2 and upper + side <= 63 - 2


def test_runs_fit_and_are_spread_over_all_frames() -> None:
    rng = random.Random(0)
    begins = Counter()
    for _ in range(3000):
        count = rng.randint(0, 8)
        found = runs(16, count, rng)
        assert len(found) == count and all(0 <= a <= b < 16 and b - a < 3 for a, b in found)
        assert all(b + 1 < c for (_, b), (c, _) in itertools.pairwise(found))
        begins.update(a for a, _ in found)
    assert set(begins) == set(range(16))


def test_shapes_differ_and_show_on_any_background() -> None:
    for background in ("black", "white", "gray", (200, 40, 90)):
        seen = []
        for kind in KINDS:
            canvas = Image.new("RGB", (40, 40), background)
            stamp = shape(kind, 30, (120, 120, 120))
            canvas.paste(stamp, (5, 5), stamp)
            assert np.abs(np.asarray(canvas, int) - np.asarray(Image.new("RGB", (40, 40), background), int)).max() > 100
            seen.append(canvas)
        assert all(difference(a, b) > 0.03 for a, b in itertools.combinations(seen, 2))
    areas = [float((np.asarray(shape(kind, 60, (120, 120, 120)))[..., 3] > 128).mean()) for kind in KINDS]
    assert max(areas) / min(areas) < 2.2


def test_video_counting_refusals_and_options() -> None:
    assert reasons("video_counting", "1_kind", Clip(tuple(picture(k, 400, 30) for k in range(20)), 8.0)) == {
        "too_small"
    }
    assert reasons("video_counting", "3_kinds", dated(20)) == {"too_short"}
    task = get_task("video_counting")
    with pytest.raises(ValueError, match="need 23 frames"):
        task.level("3_kinds", frames=20)
    with pytest.raises(ValueError, match="no other shapes"):
        task.level("3_kinds", others=1)


# ---------------------------------------------------------------------------------------------------- next clip


@pytest.mark.parametrize("level_name", list(get_task("next_clip").levels))
def test_next_clip_truth_goes_on_where_the_first_ends(level_name: str) -> None:
    seen = Counter()
    for sample in sampled("next_clip", level_name, dated(), 40):
        before, *options = map(dates, sample.videos)
        step = before[1] - before[0]
        goes_on = [option[0] == before[-1] + step and option[1] == option[0] + step for option in options]
        assert goes_on.count(True) == 1 and "ABCDEF"[goes_on.index(True)] == sample.truth
        assert sample.options == sample.videos[1:]
        shared = [set(before) & set(option) for option in options]
        assert not any(shared), "an option that holds frames of the first clip would be told by them"
        seen[sample.truth] += 1
    assert len(seen) == get_task("next_clip").level(level_name).options


def test_the_options_of_next_clip_are_the_same_whichever_is_right() -> None:
    """The set of options is drawn before the right one, so looking at the options alone cannot help."""

    class Fixed(random.Random):
        target = 0

        def randrange(self, start: int, *more: Any) -> int:  # with one argument: the target
            return super().randrange(start, *more) if more else self.target

    found = []
    for target in range(4):
        rng = Fixed(1)
        rng.target = target
        task = get_task("next_clip")
        sample = task.generate(item(dated()), task.level("4_options", side=84), rng)
        assert isinstance(sample, Sample)
        found.append((sorted(map(tuple, map(dates, sample.options))), sample.truth))
    assert len({str(options) for options, _ in found}) == 1 and len({truth for _, truth in found}) == 4


def test_next_clip_refusals() -> None:
    assert reasons("next_clip", "4_options", STILL) == {"similar_clips"}
    assert reasons("next_clip", "6_options", dated(40)) == {"too_short"}
    with pytest.raises(ValueError, match="even number"):
        get_task("next_clip").level("reversed", options=5)


def test_spaced_frames_lie_at_one_distance_and_fill_the_room() -> None:
    for first, last, count in itertools.product(range(3), range(3, 40), range(2, 12)):
        found = spaced(first, last, count)
        if last - first + 1 < count:
            assert found is None
            continue
        assert found is not None and len(found) == count and first <= found[0] and found[-1] <= last
        steps = {b - a for a, b in itertools.pairwise(found)}
        assert len(steps) == 1 and (steps.pop() + 1) * (count - 1) > last - first
