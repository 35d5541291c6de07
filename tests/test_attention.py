"""`ssl4rl attention` on tiny, real models of the Qwen2.5-VL and Qwen3-VL kind, made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ssl4rl_plugin.analysis.attention.traces import (
    AttentionError,
    AttentionTrace,
    ImageBox,
    answer_tokens,
    load,
    picture_seen,
    trace,
)
from ssl4rl_plugin.cli import app
from ssl4rl_plugin.demo.model import HEAD_DIM, MERGE, PATCH, build_model, save, train_tokenizer

UNIT = PATCH * MERGE
QUESTION = "Which quadrant? Answer between <answer> and </answer>."
ANSWER = "<think>left</think><answer>B</answer>"


def qwen3_vl(tokenizer):
    """A Qwen3-VL with two layers: other blocks, a norm of queries and keys, and pictures fed in at several depths."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in
           ("image_pad", "video_pad", "vision_start", "vision_end", "im_end", "endoftext")}  # fmt: skip
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]},
        "eos_token_id": ids["im_end"], "pad_token_id": ids["endoftext"],
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 64, "patch_size": PATCH,
        "spatial_merge_size": MERGE, "temporal_patch_size": 2, "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }  # fmt: skip
    torch.manual_seed(0)
    return Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(
            text_config=text, vision_config=vision, image_token_id=ids["image_pad"], video_token_id=ids["video_pad"],
            vision_start_token_id=ids["vision_start"], vision_end_token_id=ids["vision_end"],
        )
    ).float()  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """Folders of tiny models: of both kinds, and of one without eyes."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = train_tokenizer(["user assistant", QUESTION, ANSWER])
    save(build_model(tokenizer, 0), tokenizer, root / "qwen2_5_vl")
    save(qwen3_vl(tokenizer), tokenizer, root / "qwen3_vl")
    save(build_model(tokenizer, 0, vision=False), tokenizer, root / "text")
    return {path.name: path for path in root.iterdir()}


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """A picture of 2 x 1 tokens in which every patch has its own colour."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (MERGE, 2 * MERGE, 3), dtype=np.uint8)
    return Image.fromarray(colours.repeat(PATCH, axis=0).repeat(PATCH, axis=1))


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def loaded(request, models):
    return load(str(models[request.param]))


def direct(loaded, photo, answer: str) -> tuple[torch.Tensor, torch.Tensor, range]:
    """What transformers itself gives with output_attentions: (layers, heads, rows, columns), ids, rows of the answer."""
    model, processor = loaded
    chat = [{"role": "user", "content": [{"type": "image", "image": photo}, {"type": "text", "text": QUESTION}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[text + answer], images=[photo], return_tensors="pt")
    with torch.inference_mode():
        found = model(**inputs, output_attentions=True).attentions
    length = inputs["input_ids"].shape[1]
    count = len(processor.tokenizer(answer)["input_ids"])
    return torch.stack(found)[:, 0], inputs["input_ids"][0], range(length - count - 1, length - 1)


def test_rows_are_those_that_transformers_gives(loaded, photo):
    found = trace(*loaded, photo, QUESTION, answer=ANSWER, whole_response=True)
    attention, ids, rows = direct(loaded, photo, ANSWER)
    places = [k for k, token in enumerate(ids.tolist()) if token == loaded[0].config.image_token_id]
    assert found.grid == (1, 2) and len(places) == 2 and found.answer == ANSWER
    wanted = attention[:, :, rows][..., places].mean(dim=2).numpy()
    np.testing.assert_allclose(found.weights[..., :-1], wanted, atol=1e-6)
    np.testing.assert_allclose(found.weights.sum(-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(found.heat(layer=1, head=2).ravel(), wanted[1, 2], atol=1e-6)
    np.testing.assert_allclose(found.heat().ravel(), wanted.mean((0, 1)), atol=1e-6)


def test_rollout_is_the_product_of_whole_matrices(loaded, photo):
    found = trace(*loaded, photo, QUESTION, answer=ANSWER, method="rollout", whole_response=True)
    attention, ids, rows = direct(loaded, photo, ANSWER)
    rolled = np.eye(len(ids))
    for number, matrix in enumerate(attention.mean(dim=1).double().numpy()):
        rolled = (0.5 * matrix + 0.5 * np.eye(len(ids))) @ rolled
        wanted = rolled[rows][:, ids.numpy() == loaded[0].config.image_token_id].mean(axis=0)
        np.testing.assert_allclose(found.heat(layer=number).ravel(), wanted, atol=1e-6)
    np.testing.assert_allclose(found.heat(), found.heat(layer=-1))
    np.testing.assert_allclose(found.weights.sum(-1), 1.0, atol=1e-5)


@pytest.mark.parametrize("place", [0, 1])
def test_planted_attention_is_found(models, photo, place):
    """A layer that attends to nothing but the token that is planted: one of the picture's two."""
    model, processor = load(str(models["qwen2_5_vl"]))
    _, ids, _ = direct((model, processor), photo, "B")
    target = [k for k, token in enumerate(ids.tolist()) if token == model.config.image_token_id][place]

    def plant(module, args, kwargs):
        states = torch.zeros_like(kwargs["hidden_states"])
        states[:, target, 0] = 40.0
        return args, kwargs | {"hidden_states": states}

    attention = model.get_decoder().layers[0].self_attn
    with torch.no_grad():
        # Keys read the first number of a state, queries are constant; both in the slowest rotary frequency.
        for part in (attention.q_proj, attention.k_proj):
            part.weight.zero_()
            part.bias.zero_()
        attention.q_proj.bias[HEAD_DIM - 1 :: HEAD_DIM] = 4.0
        attention.k_proj.weight[HEAD_DIM - 1 :: HEAD_DIM, 0] = 1.0
    attention.register_forward_pre_hook(plant, with_kwargs=True)
    heat = trace(model, processor, photo, QUESTION, answer="B").heat(layer=0)
    assert heat[0, place] > 0.99 and heat[0, 1 - place] < 0.01


def test_the_picture_is_put_together_as_the_model_saw_it(loaded, photo):
    seen = trace(*loaded, photo, QUESTION, answer="B").seen
    assert seen.size == photo.size
    assert np.abs(np.asarray(seen, int) - np.asarray(photo, int)).max() <= 1
    image_processor = loaded[1].image_processor
    large = Image.effect_noise((300, 170), 60).convert("RGB")
    inputs = image_processor(images=[large], return_tensors="pt")
    rows, columns = (n // MERGE for n in inputs["image_grid_thw"][0, 1:].tolist())
    assert picture_seen(inputs["pixel_values"], (rows, columns), image_processor).size == (columns * UNIT, rows * UNIT)


def test_box_share_by_hand():
    weights = np.array([0.1, 0.2, 0.3, 0.0, 0.1, 0.1, 0.2], np.float32).reshape(1, 1, 7)
    made = AttentionTrace("B", ("B",), "raw", (2, 3), weights, Image.new("RGB", (3, 2)), size=(300, 100))
    heat = made.heat()
    # The middle column from a quarter of the image's height to its end: half of its upper cell and all of its lower one.
    share = made.box_share(ImageBox(100, 25, 200, 100), heat)
    assert share.attention == pytest.approx((0.5 * 0.2 + 0.1) / 0.8)
    assert share.area == pytest.approx(100 * 75 / 30000)
    whole = made.box_share(ImageBox(0, 0, 300, 100), heat)
    assert whole.attention == pytest.approx(1.0) and whole.area == 1.0
    with pytest.raises(AttentionError, match="300 x 100 pixels"):
        made.box_share(ImageBox(0, 0, 301, 100), heat)


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "5,0,5,9", "9,0,5,9", "-1,0,5,9", "0,0,nan,9", "0,0,inf,9"])
def test_bad_boxes(text):
    with pytest.raises(AttentionError, match="box"):
        ImageBox.parse(text)


@pytest.mark.parametrize(
    ("response", "wanted"),
    [(ANSWER, "B"), ("no block at all", "no block at all"), ("so \\boxed{12} or \\boxed{34}.", "34"),
     ("<answer>B</answer> <answer>left</answer>", "left"), ("<answer></answer>", "<answer></answer>")],
)  # fmt: skip
def test_which_tokens_are_the_answer(loaded, response, wanted):
    tokenizer = loaded[1].tokenizer
    ids = tokenizer(response)["input_ids"]
    chosen = answer_tokens(ids, tokenizer)
    assert tokenizer.decode([ids[k] for k in chosen]) == wanted


def test_a_model_writes_its_own_answer(loaded, photo):
    found = trace(*loaded, photo, QUESTION, max_tokens=5, whole_response=True)
    assert 1 <= len(found.tokens) <= 5
    again = trace(*loaded, photo, QUESTION, answer=found.answer, whole_response=True)
    if again.tokens == found.tokens:  # a text may be cut into other tokens than those that were written
        np.testing.assert_allclose(again.weights, found.weights, atol=1e-6)


def test_an_adapter_is_merged_in(models, photo, tmp_path):
    from peft import LoraConfig, get_peft_model

    plain = trace(*load(str(models["qwen2_5_vl"])), photo, QUESTION, answer=ANSWER)
    adapted = get_peft_model(
        load(str(models["qwen2_5_vl"]))[0],
        LoraConfig(r=2, target_modules=["q_proj", "k_proj"], exclude_modules=".*visual.*", init_lora_weights=False),
    )
    adapted.save_pretrained(tmp_path / "adapter")
    found = trace(*load(str(models["qwen2_5_vl"]), str(tmp_path / "adapter")), photo, QUESTION, answer=ANSWER)
    processor = load(str(models["qwen2_5_vl"]))[1]
    wanted = trace(adapted.merge_and_unload(), processor, photo, QUESTION, answer=ANSWER)
    np.testing.assert_allclose(found.weights, wanted.weights, atol=1e-6)
    assert np.abs(found.weights - plain.weights).max() > 1e-4


def run(*arguments: object):
    return CliRunner().invoke(app, ["attention", *map(str, arguments)])


def test_the_command_draws_two_models(models, photo, tmp_path):
    photo.save(tmp_path / "photo.png")
    out = tmp_path / "new" / "overlay.png"
    given = [models["qwen2_5_vl"], tmp_path / "photo.png", QUESTION, "--answer", ANSWER, "--out", out]
    result = run(*given, "--against", models["qwen3_vl"], "--box", "0,0,56,56", "--json")
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert [entry["model"] for entry in values["models"]] == [str(models[k]) for k in ("qwen2_5_vl", "qwen3_vl")]
    for entry in values["models"]:
        assert entry["tokens"] == ["B"] and entry["grid"] == [1, 2] and len(entry["layers"]) == 2
        assert entry["box"]["area"] == 0.5
        assert entry["box"]["attention"] == pytest.approx(entry["heat"][0][0] / sum(entry["heat"][0]))
        assert 0 < entry["on_picture"] < 1
    with Image.open(out) as drawn:
        assert drawn.format == "PNG" and drawn.width > drawn.height
    result = run(*given, "--method", "rollout", "--layer", "0")
    assert result.exit_code == 0 and result.stdout.strip().endswith(str(out))


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("text", [], "no vision part"),
        ("missing", [], "there is no model folder"),
        ("qwen2_5_vl", ["--layer", "2"], "layer 2 is out of range: the model has 2"),
        ("qwen2_5_vl", ["--head", "4"], "head 4 is out of range: the model has 4"),
        ("qwen2_5_vl", ["--layer", "last"], "--layer last: write a number"),
        ("qwen2_5_vl", ["--method", "rollout", "--head", "1"], "rollout averages over heads"),
        ("qwen2_5_vl", ["--method", "flow"], "known: raw, rollout"),
        ("qwen2_5_vl", ["--box", "0,0,113,56"], "not inside of the image, which has 112 x 56"),
        ("qwen2_5_vl", ["--answer", ""], "response is empty"),
        ("qwen2_5_vl", ["--out", "overlay.jpg"], "must end in .png"),
    ],
)
def test_bad_input(models, photo, tmp_path, model, options, words):
    photo.save(tmp_path / "photo.png")
    folder = models.get(model, tmp_path / model)
    result = run(folder, tmp_path / "photo.png", QUESTION, "--out", tmp_path / "o.png", "--answer", "B", *options)
    assert result.exit_code == 2 and words in " ".join(result.stderr.split()), result.output
    assert "Traceback" not in result.output and not (tmp_path / "o.png").exists()


def test_a_file_that_is_no_picture(models, tmp_path):
    (tmp_path / "photo.png").write_text("no")
    result = run(models["qwen2_5_vl"], tmp_path / "photo.png", QUESTION)
    assert result.exit_code == 2 and "cannot be read as a picture" in result.stderr


def test_a_prompt_without_a_place_for_the_picture(models, photo):
    model, processor = load(str(models["qwen2_5_vl"]))
    processor.chat_template = "{{ messages[0]['content'][1]['text'] }}"
    with pytest.raises(AttentionError, match="no picture tokens"):
        trace(model, processor, photo, QUESTION, answer="B")
