"""One text, one verdict: in the reward, in evaluation, in `ssl4rl score` and in the export, over a table of texts.

The texts are written as Qwen2.5-VL, Qwen3-VL and GLM-4V write them. Each stands in an answer block.
"""

# ruff: noqa: E501 -- the table is easier to read in long lines

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from ssl4rl_plugin.analysis.evaluation.worker import record
from ssl4rl_plugin.analysis.export.mcq import unfit
from ssl4rl_plugin.analysis.export.vlmevalkit import grader_from_json, grader_to_json, unwrap
from ssl4rl_plugin.cli.score import read
from ssl4rl_plugin.data.ground_truth import encode_question, encode_truth
from ssl4rl_plugin.data.rows import Row
from ssl4rl_plugin.grading import question_grader
from ssl4rl_plugin.grading.formats import FORMATS
from ssl4rl_plugin.training.rewards import compute_score
from ssl4rl_plugin.training.settings import parse_arms

RIGHT, WRONG, NONE = "right", "wrong", "none"

TASKS: dict[str, tuple[Any, dict[str, list[str]]]] = {
    "rotation:pair_90": (90, {
        RIGHT: ["90", "90°", "90 degrees", "90.0", "**90**", "`90`", "$90^\\circ$", "\\boxed{90}", "90 degrees counter-clockwise",
                "90° CCW", "270 degrees clockwise", "270° CW", "-270", "450", "90度", "９０", "90.", "\\text{90}", "(90)",
                "90 degrees anticlockwise", "90 deg", "Answer: 90", "90<|im_end|>", "<|begin_of_box|>90<|end_of_box|>",
                "90 degrees (counterclockwise)", "\\(90^{\\circ}\\)", "＋90"],
        WRONG: ["0", "180", "270", "90 degrees clockwise", "270°", "-90", "0 degrees"],
        NONE: ["45", "ninety", "90 or 180", "9 0", "1e2", "90.0000001", "²", "The answer is 90", "not 90", "", "clockwise",
               "90 clockwise counter-clockwise", "90, 180"],
    }),
    "jigsaw:2x2": ([2, 3, 1, 4], {
        RIGHT: ["2, 3, 1, 4", "2,3,1,4", "[2, 3, 1, 4]", "2 3 1 4", "(2; 3; 1; 4)", "2 -> 3 -> 1 -> 4", "2→3→1→4", "2-3-1-4",
                "Tile 2, Tile 3, Tile 1, Tile 4", "tiles 2, 3, 1 and 4", "[[2, 3], [1, 4]]", "[2, 3], [1, 4]", "2、3、1、4。",
                "1. 2\n2. 3\n3. 1\n4. 4", "$2, 3, 1, 4$", "2 \\to 3 \\to 1 \\to 4", "`2, 3, 1, 4`.", "２，３，１，４", "2 < 3 < 1 < 4",
                "\\boxed{2, 3, 1, 4}", "1. Tile 2\n2. Tile 3\n3. Tile 1\n4. Tile 4", "- 2\n- 3\n- 1\n- 4"],
        WRONG: ["1, 2, 3, 4", "[3, 2, 1, 4]", "4 3 2 1"],
        NONE: ["1,1,1,1", "2,3,1", "2,3,1,4,4", "0,1,2,3", "1 to 4", "[[2,3],[1]]", "2, 3, 1, 4 or 1, 2, 3, 4", "2 < 3 > 1 < 4",
               "-2, 3, 1, 4", "2.0.1"],
    }),
    "position:quadrants": ("top-left", {
        RIGHT: ["top-left", "Top-Left", "TOP LEFT", "top_left", "upper left", "left-top", "left upper", "the top left corner",
                "top-left quadrant", "upper-left part", "**top-left**", "\\text{top-left}", "top‑left", "top, left", "“top-left”",
                "in the top left"],
        WRONG: ["top-right", "bottom left", "lower-right corner"],
        NONE: ["top", "left", "not top-left", "top-left or top-right", "neither", "top left right", "It is top-left.", "center"],
    }),
    "position:3x3": ("center", {
        RIGHT: ["center", "centre", "the centre", "middle", "the middle", "middle-center", "central"],
        WRONG: ["middle left", "left center", "top middle", "center right"],
        NONE: ["top", "center or top-left"],
    }),
    "contrastive:standard": ("same", {
        RIGHT: ["same", "Same.", "the same", "same photo", "the same photo", "yes", "Yes, the same", "SAME"],
        WRONG: ["different", "different photos", "no", "No, different"],
        NONE: ["same or different", "not the same", "yes, different", "same different", "unsure", "sаme"],
    }),
    "altered_patch:2x2_mask": ("B", {
        RIGHT: ["B", "b", "(B)", "B)", "B.", "Option B", "cell B", "Cell B", "**B**", "Ｂ", "\\mathrm{B}", "The cell B", "letter B"],
        WRONG: ["A", "C", "tile D"],
        NONE: ["A or B", "A B", "AB", "not B", "В", "E", "B, C", "B?", "none"],
    }),
    "depth_order:three": (["B", "A", "C"], {
        RIGHT: ["B, A, C", "B A C", "BAC", "B > A > C", "B < A < C", "B → A → C", "B-A-C", "[B, A, C]", "B, A and C",
                "1. B\n2. A\n3. C", "Point B, Point A, Point C", "b, a, c.", "B, A, then C"],
        WRONG: ["A, B, C", "CAB"],
        NONE: ["B, A", "B, A, A", "B, A, C, D", "B < A > C", "B or A, C"],
    }),
    "swapped_tiles:2x2": (["B", "D"], {
        RIGHT: ["B, D", "D, B", "B and D", "D & B", "B <-> D", "tiles B and D", "Tile B, Tile D", "{B, D}", "BD", "B ↔ D"],
        WRONG: ["A, B", "A and C"],
        NONE: ["B", "B, B", "A, B, C", "B-D", "A to D", "B or D"],
    }),
    "counting:three_kinds": ([2, 0, 3], {
        RIGHT: ["2, 0, 3", "[2, 0, 3]", "2 0 3", "2; 0; 3", "2 circles, 0 squares, 3 triangles", "2, 0 and 3",
                "3 triangles, 2 circles, 0 squares", "circles: 2, squares: 0, triangles: 3"],
        WRONG: ["2, 1, 3", "0, 0, 0"],
        NONE: ["2, 0", "2, 0, 3, 1", "2, 0, 3 or 4", "2 stars, 0 squares, 3 triangles", "2 circles, 0, 3"],
    }),
    "anomaly_grounding:plain": ([5, 8], {
        RIGHT: ["5-8", "5 to 8", "5~8", "frames 5-8", "[5, 8]", "from frame 5 to frame 8", "5–8", "(5, 8)", "5 through 8"],
        WRONG: ["1-4", "9-12"],
        NONE: ["8-5", "5", "5-8 or 9-12", "4.5-8", "-5-8"],
    }),
    "jigsaw_box:large": ([200, 300, 600, 700], {
        RIGHT: ["[200, 300, 600, 700]", "(200, 300), (600, 700)", "200 300 600 700", '{"bbox_2d": [200, 300, 600, 700]}',
                '```json\n[{"bbox_2d": [200, 300, 600, 700], "label": "tile"}]\n```',
                "<|box_start|>(200,300),(600,700)<|box_end|>", "x1=200, y1=300, x2=600, y2=700",
                "top: 300, left: 200, bottom: 700, right: 600"],
        WRONG: ["[0, 0, 100, 100]"],
        NONE: ["[-200, 300, 600, 700]", "[600, 300, 200, 700]", "[200, 300, 600]", "[200, 300, 600, 1700]", "{}"],
    }),
}  # fmt: skip
OPTIONS = ("Dog", "Cat", "Two birds", "None")
QUESTION: dict[str, list[str]] = {
    RIGHT: ["B", "b", "(B)", "B)", "B.", "B. Cat", "B) Cat", "(B) Cat", "B: Cat", "Option B", "**B. Cat**", "Cat", "cat.",
            "the answer: B", "B - Cat", "Option B: Cat"],
    WRONG: ["A", "A. Dog", "Dog", "two birds", "D"],
    NONE: ["B. Dog", "A or B", "B, C", "a cat and a dog", "E", "not B", "It is a cat.", ""],
}  # fmt: skip
CASES = [
    (name, truth, text, verdict)
    for name, (truth, table) in TASKS.items()
    for verdict, texts in table.items()
    for text in texts
]


def verdict_of(result: dict[str, Any]) -> str:
    return RIGHT if result["acc"] else WRONG if result["valid"] else NONE


def test_there_are_enough_cases() -> None:
    assert len(CASES) + sum(map(len, QUESTION.values())) >= 200


@pytest.mark.parametrize(("name", "truth", "text", "verdict"), CASES)
@pytest.mark.parametrize("form", FORMATS)
def test_every_reader_gives_the_same_verdict(name: str, truth: Any, text: str, verdict: str, form: str) -> None:
    (arm,) = parse_arms([name])
    grader = arm.task.grader(arm.level)
    row = encode_truth(arm.task.name, arm.level_name, {}, truth, "val:0")
    if form == "boxed" and (text.count("{") != text.count("}") or "\\boxed" in text):
        pytest.skip("a box inside of the box is an answer of its own")
    response = FORMATS[form].render(text)
    reward = compute_score(arm.data_source, response, row, {}, answer_format=form)
    assert verdict_of(reward) == verdict, reward
    assert verdict != NONE or reward["score"] == 0
    assert verdict != RIGHT or reward["score"] >= 0.9
    asked = Row(
        arm.key, arm.data_source, "?", (), (), row, {"item": "x", "sample": "val:0", "gold": grader.render(truth)}
    )
    protocol = SimpleNamespace(reward={"answer_format": form})
    assert verdict_of(record(asked, 0, 0, response, protocol)) == verdict  # type: ignore[arg-type]
    shown = read(arm, truth, response, form, thinking=False)
    assert (shown["correct"], shown["value"] is not None) == (verdict == RIGHT, verdict != NONE)
    if unfit(arm) is None:
        options = [grader.render(value) for value in grader.values()]
        sent = grader_from_json(json.loads(json.dumps(grader_to_json(grader))))
        right = chr(ord("A") + [grader.equal(value, truth) for value in grader.values()].index(True))
        letter = unwrap(response, options, FORMATS[form], sent)
        # There a letter of the list is an answer too.
        if len(text.strip("()*. ")) > 1 and not text.lower().startswith(("option", "letter")):
            assert (letter == right, letter != "Z") == (verdict == RIGHT, verdict != NONE), letter


@pytest.mark.parametrize(("verdict", "text"), [(v, text) for v, texts in QUESTION.items() for text in texts])
def test_questions_of_benchmarks(verdict: str, text: str) -> None:
    row = encode_question("bench", OPTIONS, "B", "bench:0", question="0", category=None, questions=1)
    response = FORMATS["think_answer"].render(text)
    assert verdict_of(compute_score("bench/bench/all", response, row)) == verdict
    letter = unwrap(response, OPTIONS, FORMATS["think_answer"])
    assert (letter == "B", letter != "Z") == (verdict == RIGHT, verdict != NONE)


@pytest.mark.parametrize(
    ("options", "text", "letter"),
    [
        (("a box", "a picture"), "a picture", "B"),  # `a` is an article here, not the letter
        (("a box", "a picture"), "A. a box", "A"),
        (("a box", "a picture"), "A. a picture", None),
        (("B", "A"), "A", "A"),  # the prompt asks for a letter
        (("2", "1"), "1", "B"),
        (("one photo", "two photos"), "photo", None),
        (("yes", "no"), "no", "B"),
        (("red", "red"), "red", None),  # two options read alike
        (("", "dog"), "A", "A"),
        (("", "dog"), "", None),
    ],
)
def test_texts_of_options_are_not_mistaken_for_letters(options: tuple[str, ...], text: str, letter: str | None) -> None:
    assert question_grader(options).parse(text) == letter


@pytest.mark.parametrize("text", ["a picture", "a tile", "an image", "a", "the a"])
def test_an_article_and_a_noun_are_no_letter(text: str) -> None:
    grader = parse_arms(["altered_patch:2x2_mask"])[0].task.grader(parse_arms(["altered_patch:2x2_mask"])[0].level)
    assert grader.parse(text) == ("A" if text in ("a", "the a") else None)
