"""The named benchmarks, each in the layouts in which it is published, down to the questions with their labels."""

import base64
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import photo

from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.source import Question, Source, SourceError, load_source, registry
from ssl4rl_plugin.data_builders.index.indexer import build_manifest
from ssl4rl_plugin.data_builders.sources.benchmarks import MMBench
from ssl4rl_plugin.data_builders.sources.download import download
from ssl4rl_plugin.data_builders.sources.tables import Columns, TableRow, lettered, literal, questions_of

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def _jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    photo(seed, 96, 80).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


JPEGS = [_jpeg(seed) for seed in range(12)]
B64 = [base64.b64encode(data).decode() for data in JPEGS]


def tsv(file: Path, rows: list[dict]) -> None:
    lines = ["\t".join(rows[0]), *("\t".join(str(value) for value in row.values()) for row in rows)]
    file.write_text("\n".join(lines) + "\n")


def hub(file: Path, rows: list[dict], pictures: tuple[str, ...] = ("image",)) -> None:
    """As the Hub has it; a list of bytes stands for a list of pictures."""
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if name in pictures:
            lists = any(isinstance(value, list) for value in values)
            shown = [
                [{"bytes": v, "path": None} for v in value] if lists else value and {"bytes": value, "path": None}
                for value in values
            ]
            columns[name] = pa.array(shown, pa.list_(PICTURE) if lists else PICTURE)
        else:
            columns[name] = pa.array(values)
    pq.write_table(pa.table(columns), file, row_group_size=100)


def files(folder: Path, names: list[str]) -> None:
    for name, data in zip(names, JPEGS, strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


# -------------------------------------------------------------------------- one small copy for every published layout


def mmbench_tsv(folder: Path) -> None:
    common = {"hint": "", "category": "action_recognition", "l2-category": "finegrained_perception (instance-level)"}
    rows = [
        {"index": 241, "question": "What runs?", "A": "cat", "B": "dog", "C": "", "D": "", "answer": "B", **common,
         "split": "dev", "image": B64[0]},
        {"index": 242, "question": "Where is it?", "A": "sea", "B": "wood", "C": "town", "D": "hill", "answer": "D",
         **common, "hint": "It is high.", "split": "dev", "image": B64[1]},
        {"index": 243, "question": "Who is it?", "A": "x", "B": "y", "C": "", "D": "", "answer": "A", **common,
         "split": "dev", "image": "241"},
    ]  # fmt: skip
    more = [{**rows[0], "index": 300 + i, "image": B64[i]} for i in range(2, 8)]
    tsv(folder / "MMBench_DEV_EN.tsv", rows + more)


def mmbench_hub(folder: Path) -> None:
    row = {"index": 241, "question": "What runs?", "hint": "nan", "answer": "B", "A": "cat", "B": "dog", "C": "nan",
           "D": "nan", "category": "action_recognition", "image": JPEGS[0], "source": "web",
           "L2-category": "finegrained_perception (instance-level)", "comment": "nan", "split": "dev"}  # fmt: skip
    more = [{**row, "index": 300 + i, "image": JPEGS[i]} for i in range(1, 8)]
    hub(folder / "en/dev-00000-of-00001.parquet", [row, *more])
    test = [{**row, "index": 9000, "answer": "nan", "split": "test", "image": JPEGS[9]}]
    hub(folder / "en/test-00000-of-00001.parquet", test)


def seedbench_tsv(folder: Path) -> None:
    tsv(folder / "SEEDBench_IMG.tsv", [
        {"index": i, "question": "How many towels?", "A": "1", "B": "2", "C": "3", "D": "4", "answer": "A",
         "category": "Instances Counting", "image": B64[i]} for i in range(8)
    ])  # fmt: skip


def seed_rows() -> list[dict]:
    row = {"answer": "A", "choice_a": "1", "choice_b": "2", "choice_c": "3", "choice_d": "4", "data_type": "image",
           "question": "How many towels?", "question_type_id": 5}  # fmt: skip
    rows = [{**row, "data_id": f"{i}_99", "question_id": str(i)} for i in range(8)]
    return [*rows, {**row, "data_id": "v.mp4", "question_id": "99", "data_type": "video", "question_type_id": 10}]


def seedbench_hub(folder: Path) -> None:
    rows = [{**row, "image": JPEGS[i : i + 1] if i < 8 else JPEGS[9:11]} for i, row in enumerate(seed_rows())]
    hub(folder / "data/test-00000-of-00001.parquet", rows)


def seedbench_json(folder: Path) -> None:
    files(folder, [f"SEED-Bench-image/{i}_99" for i in range(8)])  # without a file extension, as published
    types = {"Instances Counting": 5, "Action Recognition": 10}
    (folder / "SEED-Bench.json").write_text(json.dumps({"questions": seed_rows(), "question_type": types}))


def blink_tsv(folder: Path) -> None:
    tsv(folder / "BLINK.tsv", [
        {"index": f"val_Jigsaw_{i}", "question": "Which fits?", "A": "first", "B": "second", "answer": "B",
         "category": "Jigsaw", "image": str([B64[2 * i], B64[2 * i + 1]]), "image_path": "['a.jpg', 'b.jpg']"}
        for i in range(4)
    ])  # fmt: skip


def blink_hub(folder: Path) -> None:
    for task, split in (("Jigsaw", "val"), ("IQ_Test", "test")):
        hub(folder / task / f"{split}-00000-of-00001.parquet", [
            {"idx": f"{split}_{task}_{i}", "question": "Which fits?", "sub_task": task, "prompt": "Which fits? (A) ...",
             "image_1": JPEGS[2 * i + (split == "test")], "image_2": JPEGS[2 * i + 1] if split == "val" else None,
             "image_3": None, "image_4": None, "answer": "(B)" if split == "val" else "hidden",
             "choices": ["first", "second"], "explanation": ""}
            for i in range(4)
        ], ("image_1", "image_2", "image_3", "image_4"))  # fmt: skip


MME_OPTIONS = ["(A) Left", "(B) Right", "(C) Up", "(D) Down", "(E) This image doesn't feature the position."]


def mme_tsv(folder: Path) -> None:
    tsv(folder / "mme_realworld_lite.tsv", [
        {"index": i, "image": B64[i], "question": "Where is the car?", "multi-choice options": MME_OPTIONS, "answer": "B",
         "category": "Perception/Remote Sensing", "l2-category": "position"} for i in range(8)
    ])  # fmt: skip


def mme_hub(folder: Path) -> None:
    hub(folder / "data/train-00000-of-00001.parquet", [
        {"bytes": B64[i], "index": i, "question": "Where is the car?", "multi-choice options": MME_OPTIONS, "answer": "B",
         "category": "Perception/Remote Sensing", "l2-category": "position"} for i in range(8)
    ], ())  # fmt: skip


def mme_json(folder: Path) -> None:
    files(folder / "data/imgs", [f"{i}.png" for i in range(8)])
    (folder / "data/MME-RealWorld-Lite.json").write_text(json.dumps([
        {"Question_id": f"perception/position/{i}", "Image": f"{i}.png", "Text": "Where is the car?",
         "Question Type": "Multiple Choice", "Answer choices": MME_OPTIONS, "Ground truth": "B", "Category": "position",
         "Subtask": "Remote Sensing", "Task": "Perception"} for i in range(8)
    ]))  # fmt: skip


def mmstar_hub(folder: Path) -> None:
    text = "Where is it?\nOptions: A: On the book., B: Beneath the cat., C: In bed., D: In the sea."
    hub(folder / "mmstar.parquet", [
        {"index": i, "question": text, "image": JPEGS[i], "answer": "C", "category": "coarse perception",
         "l2_category": "image scene and topic", "meta_info": {"source": "x", "split": "val", "image_path": "i/1.jpg"}}
        for i in range(8)
    ])  # fmt: skip


def realworldqa_hub(folder: Path) -> None:
    letter = "Please answer directly with only the letter of the correct option and nothing else."
    texts = [
        (f"Which way?\n\nA. Left\nB. Straight ahead\nC. Right\n{letter}", "C"),
        ("How many cars? Please answer directly with a single word or number.", "3"),
    ]
    hub(folder / "data/test-00000-of-00002.parquet", [
        {"image": JPEGS[i], "question": texts[i % 2][0], "answer": texts[i % 2][1]} for i in range(8)
    ])  # fmt: skip


def vstar_jsonl(folder: Path) -> None:
    names = [f"direct_attributes/sa_{i}.jpg" for i in range(4)] + [f"relative_position/sa_{i}.jpg" for i in range(4)]
    files(folder, names)
    (folder / "direct_attributes/sa_0.json").write_text("{}")
    text = (
        "What is it made of?\n(A) rubber\n(B) cotton\nAnswer with the option's letter from the given choices directly."
    )
    (folder / "test_questions.jsonl").write_text("".join(
        json.dumps({"image": name, "text": text, "category": name.partition("/")[0], "label": "A", "question_id": i}) + "\n"
        for i, name in enumerate(names)
    ))  # fmt: skip


def vstar_tsv(folder: Path) -> None:
    tsv(folder / "VStarBench.tsv", [
        {"index": i, "question": "What is it made of?", "A": "rubber", "B": "cotton", "answer": "A",
         "category": "direct_attributes", "image": B64[i]} for i in range(8)
    ])  # fmt: skip


def caparena_json(folder: Path) -> None:
    files(folder, [f"images/test_{i:05}.jpg" for i in range(8)])
    entries = [
        {"img": f"test_{i:05}.jpg", "caption1": "a cat", "caption2": "a dog", "ref": "an animal", "source1": "gpt",
         "source2": "human", "winner": "human" if i != 1 else "equal", "cluster": "level 1", "in-400": True}
        for i in range(8)
    ]  # fmt: skip
    (folder / "caparena_annots_eval.json").write_text(json.dumps([*entries, entries[0]]))
    (folder / "caparena_annots_eval_gpt.json").write_text("[]")


def caparena_images(folder: Path) -> None:
    files(folder, [f"test_{i:05}.jpg" for i in range(8)])


def imagenet_folders(folder: Path) -> None:
    names = [f"train/n0144{i}/n0144{i}_1.JPEG" for i in range(5)] + [f"val/ILSVRC2012_val_{i}.JPEG" for i in range(3)]
    files(folder / "ILSVRC/Data/CLS-LOC", names)


def imagenet_hub(folder: Path) -> None:
    for split, part in (("train", JPEGS[:5]), ("validation", JPEGS[5:8])):
        rows = [{"image": data, "label": 3} for data in part]
        hub(folder / f"data/{split}-00000-of-00001.parquet", rows)


MMBENCH = ("241", "What runs?", ("cat", "dog"), "B", "action_recognition", "finegrained_perception (instance-level)")
SEED = ("0", "How many towels?", ("1", "2", "3", "4"), "A", "Instances Counting", None)
MME = ("Where is the car?", tuple(option[4:] for option in MME_OPTIONS), "B", "position")
VSTAR = ("0", "What is it made of?", ("rubber", "cotton"), "A", "direct_attributes", None)

LAYOUTS: list[tuple[str, Callable[[Path], None], int, int, tuple | None]] = [
    # source, writer, pictures, questions, the first question
    ("mmbench", mmbench_tsv, 9, 9, MMBENCH),
    ("mmbench", mmbench_hub, 9, 9, MMBENCH),
    ("seedbench", seedbench_tsv, 8, 8, SEED),
    ("seedbench", seedbench_hub, 8, 8, SEED),
    ("seedbench", seedbench_json, 8, 8, SEED),
    ("blink", blink_tsv, 8, 4, ("val_Jigsaw_0", "Which fits?", ("first", "second"), "B", "Jigsaw", None)),
    ("blink", blink_hub, 12, 8, ("test_IQ_Test_0", "Which fits?", ("first", "second"), None, "IQ_Test", None)),
    ("mme_realworld_lite", mme_tsv, 8, 8, ("0", *MME, "Perception/Remote Sensing")),
    ("mme_realworld_lite", mme_hub, 8, 8, ("0", *MME, "Perception/Remote Sensing")),
    ("mme_realworld_lite", mme_json, 8, 8, ("perception/position/0", *MME, "Remote Sensing")),
    ("mmstar", mmstar_hub, 8, 8, (
        "0", "Where is it?", ("On the book.", "Beneath the cat.", "In bed.", "In the sea."), "C",
        "image scene and topic", "coarse perception",
    )),
    ("realworldqa", realworldqa_hub, 8, 8, ("row0", "Which way?", ("Left", "Straight ahead", "Right"), "C", None, None)),
    ("vstar", vstar_jsonl, 8, 8, VSTAR),
    ("vstar", vstar_tsv, 8, 8, VSTAR),
    ("caparena", caparena_json, 8, 9, (
        "row0", "Which caption describes the image better?", ("a cat", "a dog"), "B", "level 1", None,
    )),
    ("caparena", caparena_images, 8, 0, None),
    ("imagenet", imagenet_folders, 8, 0, None),
    ("imagenet", imagenet_hub, 8, 0, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "write", "pictures", "asked", "first"), LAYOUTS, ids=[row[1].__name__ for row in LAYOUTS]
)
def test_every_published_layout(
    tmp_path: Path, name: str, write: Callable[[Path], None], pictures: int, asked: int, first: tuple | None
) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in")
    source = load_source(name, tmp_path / "in")
    records = list(source.records())
    refs = [record.ref for record in records]
    assert len(set(refs)) == len(refs) == pictures
    copy = pickle.loads(pickle.dumps(source))
    assert {copy.read(ref) for ref in refs} <= set(JPEGS) and len({copy.read(ref) for ref in refs}) >= 8
    questions = list(copy.questions())
    assert len(questions) == len({question.id for question in questions}) == asked
    assert {ref for question in questions for ref in question.refs} <= set(refs)
    if first is not None:
        q = questions[0]
        assert (q.id, q.text, q.options, q.answer, q.category, q.l2_category) == first
    build_manifest(source, tmp_path / "manifest.parquet", val_fraction=0.4)
    manifest = Manifest.load(tmp_path / "manifest.parquet")
    assert manifest.items("train") and manifest.items("val") and not manifest.rejected
    if name == "imagenet":
        assert {record.split for record in records} in ({"train", "val"}, {"train", "validation"})
        assert all(str(record.split) in record.ref for record in records)
    else:
        assert {record.split for record in records} == {None}


CLASSES = {f"n0144{i}{i}{i}{i}": f"kind {i}, other name" for i in range(6)} | {"n01450000": "kind 0, other name"}


def _check_imagenet(source: Source, truth: dict[str, str]) -> None:
    """Every picture that is asked about has four distinct names, its own among them under the answer's letter."""
    questions = list(source.questions())
    assert {question.refs[0]: question.options["ABCD".index(question.answer or "")] for question in questions} == truth
    for question in questions:
        assert len(set(question.options)) == 4 and set(question.options) <= set(CLASSES.values())
    assert list(source.questions()) == questions
    assert len({question.answer for question in questions}) > 1  # the right name is not always at one place


def test_imagenet_as_classification(tmp_path: Path) -> None:
    """Sorted validation folders, unsorted ones with Kaggle's list, and the Hub's files."""
    synsets = "".join(f"{key} {name}\n" for key, name in CLASSES.items())
    ids = list(CLASSES)[:6]
    root = tmp_path / "sorted"
    files(
        root,
        [
            *(f"train/{key}/{key}_1.JPEG" for key in ids),
            *(f"val/{key}/ILSVRC2012_val_{i}.JPEG" for i, key in enumerate(ids)),
        ],
    )
    (root / "LOC_synset_mapping.txt").write_text(synsets)
    of = {f"{key}/ILSVRC2012_val_{i}.JPEG": CLASSES[key] for i, key in enumerate(ids)}
    _check_imagenet(load_source("imagenet", root, choices=4), {f"val/{ref}": name for ref, name in of.items()})
    _check_imagenet(load_source("imagenet", root / "val", choices=4), of)
    flat = tmp_path / "flat"
    files(flat / "ILSVRC/Data/CLS-LOC", [f"train/{ids[0]}/a.JPEG", *(f"val/ILSVRC2012_val_{i}.JPEG" for i in range(7))])
    (flat / "LOC_synset_mapping.txt").write_text(synsets)
    (flat / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\n"
        + "".join(f"ILSVRC2012_val_{i},{key} 85 1 499 272 {key} 1 1 2 2\n" for i, key in enumerate(ids))
    )
    source = load_source("imagenet", flat, choices=4)
    (unknown,) = [question for question in source.questions() if question.answer is None]
    assert unknown.refs == ("val/ILSVRC2012_val_6.JPEG",) and not unknown.options
    parquet = tmp_path / "hub" / "data"
    parquet.mkdir(parents=True)
    for split, labels in (("train", [0, 1]), ("validation", [5, 4, 3, 2, 1, 0])):
        pictures = pa.array([{"bytes": data, "path": None} for data in JPEGS[: len(labels)]], PICTURE)
        table = pa.table({"image": pictures, "label": pa.array(labels)})
        features = {"info": {"features": {"label": {"names": list(CLASSES.values())[:6], "_type": "ClassLabel"}}}}
        pq.write_table(
            table.replace_schema_metadata({"huggingface": json.dumps(features)}),
            parquet / f"{split}-00000-of-00001.parquet",
        )
    source = load_source("imagenet", tmp_path / "hub", choices=4)
    refs = [record.ref for record in source.records() if "validation" in record.ref]
    _check_imagenet(source, {ref: f"kind {5 - i}, other name" for i, ref in enumerate(refs)})


def test_imagenet_says_what_it_lacks(tmp_path: Path) -> None:
    imagenet_folders(tmp_path / "a")
    with pytest.raises(SourceError, match=r"questions need the names of the classes: put LOC_synset_mapping\.txt"):
        list(load_source("imagenet", tmp_path / "a", choices=4).questions())
    (tmp_path / "a" / "LOC_synset_mapping.txt").write_text("tench\n")
    with pytest.raises(SourceError, match="has no lines like"):
        list(load_source("imagenet", tmp_path / "a", choices=4).questions())
    (tmp_path / "a" / "LOC_synset_mapping.txt").write_text("n01440000 a\nn01440001 b\n")
    with pytest.raises(SourceError, match=r"choices=4, and .* names 2 classes"):
        list(load_source("imagenet", tmp_path / "a", choices=4).questions())
    imagenet_hub(tmp_path / "b")
    with pytest.raises(SourceError, match="no column `label` with the names"):
        list(load_source("imagenet", tmp_path / "b", choices=4).questions())
    for choices in (1, 27, True, "4"):
        with pytest.raises(SourceError, match="choices must be 0"):
            load_source("imagenet", tmp_path / "a", choices=choices)


def questions_at(
    name: str, folder: Path, write: Callable[[Path], None], **options: object
) -> tuple[Source, list[Question]]:
    write(folder)
    source = load_source(name, folder, **options)
    return source, list(source.questions())


def test_mmbench_in_full(tmp_path: Path) -> None:
    source, questions = questions_at("mmbench", tmp_path, mmbench_tsv, use_splits=True)
    assert {record.split for record in source.records()} == {"dev"} and questions[0].hint is None
    assert questions[1] == Question(
        id="242", refs=questions[1].refs, text="Where is it?", options=("sea", "wood", "town", "hill"), answer="D",
        hint="It is high.", category="action_recognition", l2_category="finegrained_perception (instance-level)",
        split="dev",
    )  # fmt: skip
    assert source.read(questions[2].refs[0]) == source.read(questions[0].refs[0]) == JPEGS[0]


def test_answers_that_are_withheld(tmp_path: Path) -> None:
    _, questions = questions_at("mmbench", tmp_path / "a", mmbench_hub)
    assert [(q.answer, q.split, q.hint) for q in questions[-2:]] == [("B", "dev", None), (None, "test", None)]
    _, questions = questions_at("blink", tmp_path / "b", blink_hub)
    assert [(q.answer, len(q.refs), q.split) for q in questions] == [(None, 1, "test")] * 4 + [("B", 2, "val")] * 4


def test_several_pictures_of_a_question_share_a_group(tmp_path: Path) -> None:
    for write in (blink_tsv, blink_hub):
        folder = tmp_path / write.__name__
        folder.mkdir()
        source, questions = questions_at("blink", folder, write)
        groups = {record.ref: record.group for record in source.records()}
        several = [question for question in questions if len(question.refs) > 1]
        assert len(several) == 4 and [source.read(ref) for ref in several[0].refs] == JPEGS[:2]
        for question in several:
            assert len({groups[ref] for ref in question.refs}) == 1 and groups[question.refs[0]] is not None


def test_free_questions_and_ties(tmp_path: Path) -> None:
    _, questions = questions_at("realworldqa", tmp_path / "a", realworldqa_hub)
    assert (questions[1].text, questions[1].options, questions[1].answer) == ("How many cars?", (), "3")
    _, questions = questions_at("caparena", tmp_path / "b", caparena_json)
    assert [question.answer for question in questions[:3]] == ["B", None, "B"]


def test_broken_rows_cost_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mmbench_tsv(tmp_path)
    file = tmp_path / "MMBench_DEV_EN.tsv"
    bad = ["400", "", "cat", "dog", "", "", "A", "", "c", "l", "dev", B64[8]]
    file.write_text(file.read_text() + "\n".join(map("\t".join, (
        bad,
        ["401", "Which?", "cat", "dog", "", "", "Q", *bad[7:]],
        ["402", "Which?", "cat", "dog", "", "", "A", *bad[7:11], "$$$$"],
        ["403", "short"],
    ))) + "\n")  # fmt: skip
    source = MMBench(file)
    questions = list(source.questions())
    assert [question.id for question in questions[9:]] == ["402"]
    assert "2 rows are not questions: no_question 1, answer_not_an_option 1" in caplog.text
    manifest = build_manifest(source, tmp_path / "m.parquet", val_fraction=0.3)
    assert manifest.rejected == {"broken_base64": 1, "broken_row": 1}


def test_benchmarks_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"is empty"):
        load_source("mmbench", tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SourceError, match=r"notes\.txt is not one of its files; TSV or parquet with index"):
        load_source("mmbench", tmp_path / "notes.txt")
    with pytest.raises(SourceError, match=r"does not exist; get MMBench_DEV_EN\.tsv from https"):
        load_source("mmbench", tmp_path / "nowhere")
    hub(tmp_path / "a.parquet", [{"image": JPEGS[0], "caption": "a cat"}])
    with pytest.raises(SourceError, match="has no column question or text; its columns are: caption"):
        list(load_source("mmbench", tmp_path).questions())
    with pytest.raises(SourceError, match="no folder 'SEED-Bench-image'"):
        (tmp_path / "SEED-Bench.json").write_text(json.dumps({"questions": seed_rows()}))
        load_source("seedbench", tmp_path / "SEED-Bench.json")


def test_every_benchmark_says_where_it_comes_from() -> None:
    for name in {row[0] for row in LAYOUTS}:
        kind = registry.get(name)
        assert "https://" in kind.where and len(kind.summary) < 90 and kind.licence and kind.name == name


@pytest.mark.parametrize(("text", "question", "options"), [
    ("Which? A. cat B. dog", "Which?", ("cat", "dog")),
    ("Which?\nChoices:\nA) cat\nB) dog\nC) a cow", "Which?", ("cat", "dog", "a cow")),
    ("Take vitamin C. Which?\n(A) it (is) A. here\n(B) no", "Take vitamin C. Which?", ("it (is) A. here", "no")),
    ("Grade A. Which?\n(A) x\n(B) y", "Grade A. Which?", ("x", "y")),
    ("Which options: A. cat", "Which options: A. cat", ()),
    ("A. B. C.", "A. B. C.", ()),
    ("no options at all", "no options at all", ()),
])  # fmt: skip
def test_options_at_the_end_of_a_text(text: str, question: str, options: tuple) -> None:
    assert lettered(text) == (question, options)


def test_options_written_as_text_run_nothing() -> None:
    assert literal("['a', \"b's\"]") == ["a", "b's"] and literal('{"A": "x"}') == {"A": "x"}
    for text in ("__import__('os').getcwd()", "[print(1)]", "[" * 5000, "['a'" + " " * 200_000 + "]", "a, b", ""):
        assert literal(text) is None


# ---------------------------------------------------------------------------------------------------- download


def test_download_fetches_what_the_source_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    calls = []

    def fetch(repo: str, **options: object) -> str:
        calls.append((repo, options["repo_type"], options["allow_patterns"]))
        mmbench_hub(Path(str(options["local_dir"])))
        return str(options["local_dir"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    folder = download("mmbench", tmp_path)
    assert calls == [("lmms-lab/MMBench", "dataset", ["en/*.parquet"])] and folder == tmp_path / "mmbench"
    assert len(list(load_source("mmbench", folder).questions())) == 9
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, **options: str(options["local_dir"]))
    with pytest.raises(SourceError, match=r"has no files data/\*\.parquet any more; get RealWorldQA\.tsv"):
        download("realworldqa", tmp_path)


@pytest.mark.parametrize(("name", "message"), [
    ("GatedRepoError", "source 'mmstar': .*accept its terms at .*hf auth login"),
    ("RepositoryNotFoundError", "or it is private.*get mmstar"),
    ("HfHubHTTPError", "answers with HTTP 500.*copy the files"),
    ("LocalEntryNotFoundError", "cannot be reached.*copy the files"),
    ("ConnectError", "cannot be reached.*copy the files"),
])  # fmt: skip
def test_download_says_what_is_wrong(tmp_path: Path, monkeypatch, name: str, message: str) -> None:
    import httpx
    import huggingface_hub
    from huggingface_hub import errors

    kind = getattr(errors, name, None) or getattr(httpx, name)
    response = httpx.Response(500, request=httpx.Request("GET", "https://huggingface.co"))
    error = kind("no", response=response) if issubclass(kind, errors.HfHubHTTPError) else kind("no")

    def fetch(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(SourceError, match=message):
        download("mmstar", tmp_path)


def test_download_needs_a_copy_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no copy on the Hugging Face Hub to download: give the folder"):
        download("folder", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match=r"Not a directory.*copy the files"):
        download("mmstar", tmp_path / "file")


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"choices": ["3", "2", "1", "0"], "answer": 1}, (("3", "2", "1", "0"), "B")),  # a number is a place
        ({"choices": ["3", "2", "1", "0"], "answer": "1"}, (("3", "2", "1", "0"), "C")),  # a text is an option
        ({"choices": ["a", "b"], "answer": 1.0}, (("a", "b"), "B")),  # as pandas writes it beside a missing one
        ({"options": {"B": "bee", "A": "ay"}, "answer": "B"}, (("ay", "bee"), "B")),
        ({"options": {"A": "ay", "B": "bee", "C": None}, "answer": "A"}, (("ay", "bee"), "A")),
        ({"A": None, "B": "bee", "C": "sea", "answer": "B"}, None),  # not a free question whose answer is B
        ({"options": ["ay", None, "sea"], "answer": "C"}, None),
        ({"choices": ["a", "b"], "answer": 2}, None),
    ],
)
def test_an_answer_is_the_letter_of_its_own_option_or_there_is_no_question(cells: dict, expected: tuple | None) -> None:
    row = TableRow(("picture",), {"question": "Which?", **cells})
    found = [(question.options, question.answer) for question in questions_of([row], Columns(), "here")]
    assert found == ([expected] if expected else [])


def test_options_behind_an_instruction_stay_options() -> None:
    text = "What is it? Please select the correct option: A. cat B. dog"
    (question,) = questions_of([TableRow(("picture",), {"question": text, "answer": "B"})], Columns(), "here")
    assert question.options == ("cat", "dog") and question.answer == "B"
