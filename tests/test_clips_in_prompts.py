"""Clips reach the model in the way that its processor takes them, in the right places, and say nothing by their speed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import BASE_SECTION
from pictures import clip, photo

from ssl4rl_plugin.analysis.report.page import pictures, prompt_parts
from ssl4rl_plugin.core import Clip, Sample
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.rows import OnlineRows, Row
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.demo.model import MERGE, PATCH, build_model, save, train_tokenizer
from ssl4rl_plugin.training.prompt_forms import SHOWN_FPS
from ssl4rl_plugin.training.settings import Settings, SettingsError
from ssl4rl_plugin.training.verl.dataset import shows_video
from ssl4rl_plugin.training.verl.prompts import media_of, messages, processor_inputs

UNIT = PATCH * MERGE


def small(seed: int, frames: int, fps: float = 8.0) -> Clip:
    return Clip(clip(seed, frames, 2 * UNIT, UNIT).frames, fps)


TWO = Sample(
    "Clip A: <video> Clip B: <video>\nWhich of them shows <image>? Answer A or B.",
    (photo(1, UNIT, UNIT),),
    "A",
    videos=(small(1, 8), small(2, 6, fps=2.5)),
)
SETTINGS = SimpleNamespace(system_prompt=None)


def stream(**changes: Any) -> SampleStream:
    """Samples of a video task over generated clips."""
    source = {**BASE_SECTION["source"], "name": "sample_videos", "options": {"clips": 2, "width": 64}}
    section = {**BASE_SECTION, "source": source, "tasks": ["inserted_frame"], "options": {"side": 56}, **changes}
    settings = Settings.from_config(section)
    return SampleStream(settings, load_manifest(settings), "train")


def row(sample: Sample) -> Row:
    return Row("some:level", "ssl4rl/some", f"{sample.question} Be brief.", sample.images, sample.videos, "{}", {})


def shows(found: SampleStream, processor: Any) -> bool:
    return shows_video(OnlineRows(found).held_out(), found.settings, processor)


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from verl.utils import hf_processor

    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(["user assistant which clip shows answer A B"])
    save(build_model(tokenizer, 0), tokenizer, folder)
    return hf_processor(str(folder))


def test_a_clip_is_a_video_or_a_row_of_pictures() -> None:
    as_video = messages(row(TWO), SETTINGS, as_video=True)[0]["content"]
    assert [part["type"] for part in as_video] == ["text", "video", "text", "video", "text", "image", "text"]
    assert as_video[-1]["text"] == "? Answer A or B. Be brief."
    as_images = messages(row(TWO), SETTINGS, as_video=False)[0]["content"]
    assert [part["type"] for part in as_images].count("image") == 8 + 6 + 1
    frames = [part["image"] for part in as_images if part["type"] == "image"]
    assert frames == [*TWO.videos[0].frames, *TWO.videos[1].frames, *TWO.images]


def test_the_true_speed_of_a_clip_is_not_told() -> None:
    videos = media_of(messages(row(TWO), SETTINGS, as_video=True))[1]
    assert videos is not None and [tensor.shape for tensor, _ in videos] == [
        (8, 3, UNIT, 2 * UNIT),
        (6, 3, UNIT, 2 * UNIT),
    ]
    assert {metadata["fps"] for _, metadata in videos} == {SHOWN_FPS}
    first = torch.tensor(list(TWO.videos[0].frames[3].getpixel((5, 7))))
    assert (videos[0][0][3, :, 7, 5] == first).all()


def test_the_processor_sees_every_frame(processor: Any) -> None:
    chat = messages(row(TWO), SETTINGS, as_video=True)
    text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    inputs = processor_inputs(processor, [text], [chat])
    # Two frames share a temporal patch, and nothing is sampled or resized: 56 x 112 pixels are 2 x 4 patches of 28.
    assert inputs["video_grid_thw"].tolist() == [[4, 2, 4], [3, 2, 4]]
    assert inputs["image_grid_thw"].tolist() == [[1, 2, 2]]
    # What verl's trainer assumes for the positions of frames in time; vLLM reads it from here.
    assert set(inputs["second_per_grid_ts"].tolist()) == {1.0}


def test_the_setting_decides_and_the_processor_must_be_able(processor: Any) -> None:
    without = SimpleNamespace(image_processor=processor.image_processor)
    for wanted, given, expected in (
        ("auto", without, False),
        ("images", processor, False),
        ("video", processor, True),
    ):
        assert shows(stream(videos_as=wanted), given) is expected
    with pytest.raises(SettingsError, match="takes no videos"):
        shows(stream(videos_as="video"), without)


def test_auto_shows_videos_only_where_trainer_and_rollout_place_them_alike(
    processor: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A stand-in for the positions of a transformers with and without the fault."""

    def positions(behind: int) -> Any:
        def get_rope_index(input_ids: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
            found, here, time = [], 0, 0  # a visual token takes four steps of time, and one of height and width
            for token in input_ids[0].tolist():
                if token == processor.video_token_id:
                    found.append((here + time, here, here))
                    time += 4
                else:
                    here += max(1, time - 3 if behind else 1) if time else 0
                    time = 0
                    found.append((here,) * 3)
                    here += 1
            return torch.tensor(found).T[:, None], None

        return get_rope_index

    parts = {name: getattr(processor, name) for name in ("video_processor", "image_token_id", "video_token_id")}

    class Other:
        """The processor with other positions."""

        def __init__(self, behind: int):
            self.__dict__.update(
                parts, get_rope_index=positions(behind), apply_chat_template=processor.apply_chat_template
            )

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return processor(*args, **kwargs)

    mixed = stream(videos_as="auto")
    assert shows(mixed, Other(behind=1)) is True
    assert shows(mixed, Other(behind=0)) is False
    assert "one picture per frame" in caplog.text and "videos_as=video" in caplog.text
    assert shows(stream(videos_as="auto", tasks=["rotation"]), Other(behind=1)) is False


def test_marks_and_media_must_agree() -> None:
    with pytest.raises(SettingsError, match=r"some:level.*1 <video> marks for 0"):
        messages(row(Sample("What is <video>?", (), "A")), SETTINGS, as_video=True)


def test_pages_show_clips_as_moving_pictures() -> None:
    shown = pictures(TWO)
    kinds = [picture.uri.partition(";")[0] for picture in shown]
    assert kinds == ["data:image/webp", "data:image/webp", "data:image/png"]
    assert [part for part in prompt_parts(TWO.question) if isinstance(part, int)] == [1, 2, 3]
