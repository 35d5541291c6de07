"""The benchmarks of the SSL4RL paper, read from a local copy in the layouts in which they are published.

A run can train on their pictures. Their questions, with the labels, are for validation only.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.data.files import allowed_folders
from ssl4rl_plugin.data.source import Hub, Question, Record, Source, SourceError
from ssl4rl_plugin.data_builders.sources.arrow import ArrowSource
from ssl4rl_plugin.data_builders.sources.class_names import names_in, names_near, solution_near
from ssl4rl_plugin.data_builders.sources.folder import FolderSource
from ssl4rl_plugin.data_builders.sources.hub.layout import DataFiles, repo_folder
from ssl4rl_plugin.data_builders.sources.hub.repository import hub_folder, name_or_path
from ssl4rl_plugin.data_builders.sources.imagefolder import ImageFolderSource
from ssl4rl_plugin.data_builders.sources.jsonl import JsonSource
from ssl4rl_plugin.data_builders.sources.parquet import ParquetSource, parquet_files
from ssl4rl_plugin.data_builders.sources.saved import SavedSource, is_saved
from ssl4rl_plugin.data_builders.sources.tables import Columns, TableRow, TableSource, questions_of
from ssl4rl_plugin.data_builders.sources.tsv import TsvSource

CARD = "see the dataset card: https://huggingface.co/datasets/{}"


class Benchmark(Source):
    """A benchmark at a path. The layout found there decides which source reads it.

    The first of: one .tsv file (VLMEvalKit), a data set saved to disk, .parquet files (Hugging Face Hub), the authors' JSON
    file with images beside it, only images. Refs are those of that source.

    Args:
        path: the file or the folder; or a data set of the Hub, `ORG/NAME`, with the files in one of these layouts. Of the
            benchmark's own copy there (`hub`), only the files that it needs are downloaded, into the Hub's cache.
        use_splits: whether to use the benchmark's own splits; None: if there is a `train` split and another. Otherwise the
            manifest chooses the splits. (Most benchmarks are `dev` or `test` as a whole.)
        root: folders outside that links and paths of images may lead to, such as the cache of the Hub: a path or a list.
        revision: branch, tag or commit of a data set of the Hub; None for `main`.
    """

    columns: ClassVar[Columns] = Columns()
    """The columns of questions, options and answers."""
    annotations: ClassVar[tuple[str, ...]] = ()
    """Names of the authors' JSON files, as shell patterns; empty if there is no such layout."""
    json_options: ClassVar[Mapping[str, Any]] = {}
    """Options of the json source for these files."""

    def __init__(
        self,
        path: str | Path | None,
        use_splits: bool | None = None,
        root: str | list[str] | None = None,
        revision: str | None = None,
    ) -> None:
        super().__init__(path, use_splits=use_splits)
        self.root = allowed_folders(self.name, root)
        if self.root:
            self.options["root"] = self.root
        self._fetched: DataFiles | None = None
        name, asked = name_or_path(self, path, revision)
        if name is not None:
            patterns = self.hub.files if self.hub is not None and self.hub.repo == name else ("*",)
            found = self._fetched = hub_folder(name, patterns, asked)
            assert found.repo is not None
            self.path = Path(found.repo)  # the manifest keeps the name, not a place on this machine
            self.options["revision"] = found.commit
            self.root = [*self.root, str(repo_folder(found.repo))]
        self.files = self._reader(self.existing_path(), use_splits)

    def existing_path(self) -> Path:
        if self._fetched is not None and self._fetched.folder is not None:
            return Path(self._fetched.folder)
        return super().existing_path()

    def about(self) -> dict[str, str]:
        fetched = self._fetched
        return {} if fetched is None else {"data set": str(fetched.repo), "commit": str(fetched.commit)}

    def _reader(self, place: Path, use_splits: bool | None) -> Source:
        """The source for the layout at the path."""
        names = [place.name] if place.is_file() else sorted(f.name for f in place.iterdir() if f.is_file())
        if any(name.lower().endswith(".tsv") for name in names):
            return TsvSource(place, split_column="split" if use_splits else None)
        if is_saved(place):
            return SavedSource(place, use_splits=use_splits)
        if place.suffix == ".parquet" or (place.is_dir() and parquet_files(place)):
            return ParquetSource(place, use_splits=use_splits, root=self.root)
        for pattern in self.annotations:
            if place.is_file():
                found = [place] if fnmatch(place.name, pattern) else []
            else:
                found = sorted(place.glob(pattern)) or sorted(place.glob(f"*/{pattern}"))
            if found:
                return JsonSource(found[0], root=self.root, **self.json_options)
        if place.is_file():
            raise SourceError(f"source {self.name!r}: {place} is not one of its files; {self.schema}")
        return self._folder(place, use_splits)

    def _folder(self, place: Path, use_splits: bool | None) -> Source:
        """The source for a folder of images alone."""
        return FolderSource(place, self.root)

    def adapted(self, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """A row's columns with the names in `columns`; None for a row that is not part of the benchmark."""
        return values

    def rows(self) -> Iterator[TableRow]:
        """The rows of the benchmark; none if there are only pictures."""
        if isinstance(self.files, TableSource):
            for row in self.files.rows():
                if (values := self.adapted(row.values)) is not None:
                    yield replace(row, values=values)

    def records(self) -> Iterator[Record]:
        return self.files.records()

    def stamp(self, ref: str) -> tuple[int, int]:
        size, modified = self.files.stamp(ref)
        return size, modified if self._fetched is None else 0  # as in source hf: a commit does not change

    def read(self, ref: str) -> bytes:
        return self.files.read(ref)

    def notes(self) -> list[str]:
        return self.files.notes()

    def questions(self) -> Iterator[Question]:
        return questions_of(self.rows(), self.columns, f"source {self.name!r}: {self.path}", expected=True)


class MMBench(Benchmark):
    """MMBench: 3000 questions in 20 categories (v1.0); the answers of the test split are withheld.

    Its files repeat each question with rotated options, for circular evaluation, with indices from a million on. These
    rows are left out: `QuestionRows` makes the same rotations for every benchmark.
    """

    name: ClassVar[str] = "mmbench"
    summary: ClassVar[str] = "MMBench: questions on perception and reasoning, in two levels of categories"
    schema: ClassVar[str] = (
        "TSV or parquet with index, question, hint, A to D, answer, category, l2-category, split, image"
    )
    licence: ClassVar[str] = "images from many sources; " + CARD.format("lmms-lab/MMBench")
    where: ClassVar[str] = (
        "get MMBench_DEV_EN.tsv from https://opencompass.openxlab.space/utils/VLMEval/MMBench_DEV_EN.tsv, or en/*.parquet "
        "from https://huggingface.co/datasets/lmms-lab/MMBench"
    )
    hub: ClassVar[Hub | None] = Hub("lmms-lab/MMBench", ("en/*.parquet",))

    FIRST_ROTATED: ClassVar[int] = 1_000_000
    """Row 241 with its options rotated n times has the index 241 + n million."""

    def adapted(self, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
        index = str(values.get("index"))
        return None if index.isdecimal() and int(index) >= self.FIRST_ROTATED else values


class SeedBench(Benchmark):
    """SEED-Bench: the nine dimensions on single images. The video dimensions are left out."""

    name: ClassVar[str] = "seedbench"
    summary: ClassVar[str] = "SEED-Bench: questions on single images, in nine dimensions"
    schema: ClassVar[str] = (
        "TSV (SEEDBench_IMG), parquet (question, choice_a to choice_d, answer, data_type, question_type_id, image), or "
        "SEED-Bench.json with the folder SEED-Bench-image"
    )
    licence: ClassVar[str] = "CC BY-NC 4.0 as published; images from CC3M; " + CARD.format("AILab-CVC/SEED-Bench")
    where: ClassVar[str] = (
        "get SEEDBench_IMG.tsv from https://opencompass.openxlab.space/utils/VLMEval/SEEDBench_IMG.tsv, parquet from "
        "https://huggingface.co/datasets/lmms-lab/SEED-Bench, or SEED-Bench.json and SEED-Bench-image.zip (unpacked) "
        "from https://huggingface.co/datasets/AILab-CVC/SEED-Bench"
    )
    hub: ClassVar[Hub | None] = Hub("lmms-lab/SEED-Bench", ("data/*.parquet",))
    annotations: ClassVar[tuple[str, ...]] = ("SEED-Bench*.json",)
    json_options: ClassVar[Mapping[str, Any]] = {"columns": ["data_id"], "image_folder": "SEED-Bench-image"}

    DIMENSIONS: ClassVar[tuple[str, ...]] = (
        "Scene Understanding", "Instance Identity", "Instance Attributes", "Instance Location", "Instances Counting",
        "Spatial Relation", "Instance Interaction", "Visual Reasoning", "Text Understanding",
    )  # fmt: skip
    """The dimensions on images; their `question_type_id` counts from 1."""

    def adapted(self, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if str(values.get("data_type", "image")) != "image":
            return None
        number = values.get("question_type_id")
        if isinstance(number, int) and 1 <= number <= len(self.DIMENSIONS):
            return {**values, "category": self.DIMENSIONS[number - 1]}
        return values

    def records(self) -> Iterator[Record]:
        """The pictures without frames of videos."""
        if isinstance(self.files, TsvSource | FolderSource):  # these have no frames of videos
            yield from self.files.records()
            return
        kept = {ref for row in self.rows() for ref in row.refs}
        yield from (record for record in self.files.records() if record.ref in kept)


class Blink(Benchmark):
    """BLINK: 14 tasks with one to four images a question; the answers of the test split are withheld."""

    name: ClassVar[str] = "blink"
    summary: ClassVar[str] = "BLINK: 14 tasks that people solve at a glance, with one to four images a question"
    schema: ClassVar[str] = (
        "TSV with a list of images a row, or parquet in one folder for each task (idx, question, image_1 to image_4, "
        "choices, answer, sub_task)"
    )
    licence: ClassVar[str] = "Apache-2.0 as published; images from many sources; " + CARD.format(
        "BLINK-Benchmark/BLINK"
    )
    where: ClassVar[str] = (
        "get BLINK.tsv from https://opencompass.openxlab.space/utils/VLMEval/BLINK.tsv, or parquet from "
        "https://huggingface.co/datasets/BLINK-Benchmark/BLINK"
    )
    hub: ClassVar[Hub | None] = Hub("BLINK-Benchmark/BLINK", ("*.parquet",))
    columns: ClassVar[Columns] = Columns(category=("sub_task", "category"), withheld=("hidden",))


class MMERealWorldLite(Benchmark):
    """MME-RealWorld-Lite: large images, 50 questions of each task, five options. E means that the image does not tell."""

    name: ClassVar[str] = "mme_realworld_lite"
    summary: ClassVar[str] = "MME-RealWorld-Lite: questions on details of large images"
    schema: ClassVar[str] = (
        "TSV with index, image, question, multi-choice options, answer, category, l2-category; parquet with the same "
        "columns and the image as base64 in bytes; or the authors' JSON with data/imgs"
    )
    licence: ClassVar[str] = CARD.format("yifanzhang114/MME-RealWorld-Lite")
    where: ClassVar[str] = (
        "get mme_realworld_lite.tsv from https://huggingface.co/datasets/yifanzhang114/MME-RealWorld-Base64, or data.zip "
        "(unpacked) from https://huggingface.co/datasets/yifanzhang114/MME-RealWorld-Lite"
    )
    hub: ClassVar[Hub | None] = Hub("yifanzhang114/MME-RealWorld-Base64", ("mme_realworld_lite.tsv",))
    annotations: ClassVar[tuple[str, ...]] = ("MME*RealWorld*.json",)
    # The finer category is `l2-category` in TSV and parquet, and `Category` (below `Subtask`) in the JSON.
    columns: ClassVar[Columns] = Columns(category=("l2-category", "category"), l2_category=("subtask", "category"))


class MMStar(Benchmark):
    """MMStar: 1500 questions that cannot be answered without the image."""

    name: ClassVar[str] = "mmstar"
    summary: ClassVar[str] = "MMStar: 1500 questions that need their image"
    schema: ClassVar[str] = (
        "TSV, or parquet with index, question (the options at its end), answer, category, l2_category, image"
    )
    licence: ClassVar[str] = "questions and images from other benchmarks; " + CARD.format("Lin-Chen/MMStar")
    where: ClassVar[str] = "get mmstar.parquet or MMStar.tsv from https://huggingface.co/datasets/Lin-Chen/MMStar"
    hub: ClassVar[Hub | None] = Hub("Lin-Chen/MMStar", ("mmstar.parquet",))
    columns: ClassVar[Columns] = Columns(category=("l2_category",), l2_category=("category",))


class RealWorldQA(Benchmark):
    """RealWorldQA: 765 questions on photographs, many out of a car; some are answered freely."""

    name: ClassVar[str] = "realworldqa"
    summary: ClassVar[str] = "RealWorldQA: 765 questions on photographs, many out of a car"
    schema: ClassVar[str] = "TSV, or parquet with image, question (the options at its end), answer"
    licence: ClassVar[str] = "CC BY-ND 4.0 as published; " + CARD.format("xai-org/RealworldQA")
    where: ClassVar[str] = (
        "get RealWorldQA.tsv from https://opencompass.openxlab.space/utils/VLMEval/RealWorldQA.tsv, or parquet from "
        "https://huggingface.co/datasets/xai-org/RealworldQA"
    )
    hub: ClassVar[Hub | None] = Hub("xai-org/RealworldQA", ("data/*.parquet",))


class VStar(Benchmark):
    """V* Bench: 191 questions on small things in large images."""

    name: ClassVar[str] = "vstar"
    summary: ClassVar[str] = "V* Bench: 191 questions on small things in large images"
    schema: ClassVar[str] = (
        "TSV (VStarBench), or test_questions.jsonl with image, text (the options at its end), category, label, "
        "question_id and the folders direct_attributes and relative_position"
    )
    licence: ClassVar[str] = "images from SA-1B; " + CARD.format("craigwu/vstar_bench")
    where: ClassVar[str] = (
        "get the files of https://huggingface.co/datasets/craigwu/vstar_bench, or VStarBench.tsv from "
        "https://huggingface.co/datasets/xjtupanda/VStar_Bench"
    )
    hub: ClassVar[Hub | None] = Hub(
        "craigwu/vstar_bench", ("test_questions.jsonl", "direct_attributes/*", "relative_position/*")
    )
    annotations: ClassVar[tuple[str, ...]] = ("test_questions.jsonl",)


class CapArena(Benchmark):
    """CapArena: images of DOCCI with two captions each, and the one that people prefer. Ties have no answer."""

    name: ClassVar[str] = "caparena"
    summary: ClassVar[str] = "CapArena: which of two detailed captions of an image people prefer"
    schema: ClassVar[str] = (
        "a folder of images, or caparena_annots_eval.json (img, caption1, caption2, source1, source2, winner) with the "
        "folder images"
    )
    licence: ClassVar[str] = "images from DOCCI (see https://google.github.io/docci/)"
    where: ClassVar[str] = (
        "the links to images and annotations are in https://github.com/njucckevin/CapArena; put the images into a folder "
        "`images` beside the annotations"
    )
    annotations: ClassVar[tuple[str, ...]] = ("caparena_annots_eval.json", "caparena_annots*.json")
    json_options: ClassVar[Mapping[str, Any]] = {"columns": ["img"]}

    def adapted(self, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if "caption1" not in values:
            return values
        winner = values.get("winner")
        sides = [letter for letter, key in (("A", "source1"), ("B", "source2")) if winner == values.get(key)]
        return {
            "question": "Which caption describes the image better?",
            "A": values.get("caption1"),
            "B": values.get("caption2"),
            "answer": sides[0] if len(sides) == 1 else None,
            "category": values.get("cluster"),
        }


class ImageNet(Benchmark):
    """ImageNet-1k: pictures, and optionally classification as multiple choice.

    A question shows a picture and the names of `choices` classes: its own and others. A hash of the picture's ref draws the
    others and the order. Free answers could not be graded exactly: the 1000 classes have several names each, and share some.
    There are questions on training pictures only if there are no other pictures. A picture without a class has no answer.

    Args:
        path: the folder or file.
        use_splits: as for every benchmark.
        choices: number of classes that a question names, 2 to 26; 0 for no questions.
    """

    name: ClassVar[str] = "imagenet"
    summary: ClassVar[str] = "ImageNet-1k (ILSVRC 2012): pictures, and classification with `choices`"
    schema: ClassVar[str] = (
        "train/nXXXXXXXX/*.JPEG with val/*.JPEG or val/nXXXXXXXX/*.JPEG (below ILSVRC/Data/CLS-LOC or not), or the parquet "
        "files of the Hugging Face Hub; questions need LOC_synset_mapping.txt beside the folders, and for val/*.JPEG "
        "LOC_val_solution.csv"
    )
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    licence: ClassVar[str] = "non-commercial research and education only (https://image-net.org/download)"
    where: ClassVar[str] = (
        "accept the terms and get the files at https://image-net.org/download or "
        "https://huggingface.co/datasets/ILSVRC/imagenet-1k"
    )
    hub: ClassVar[Hub | None] = Hub("ILSVRC/imagenet-1k", ("data/*.parquet",))

    def __init__(
        self,
        path: str | Path | None,
        use_splits: bool | None = None,
        choices: int = 0,
        root: str | list[str] | None = None,
        revision: str | None = None,
    ) -> None:
        super().__init__(path, use_splits, root, revision)
        if isinstance(choices, bool) or not isinstance(choices, int) or not (choices == 0 or 2 <= choices <= 26):
            raise SourceError(
                f"source {self.name!r}: choices must be 0 (no questions) or from 2 to 26, got {choices!r}"
            )
        self.options["choices"] = choices

    def _folder(self, place: Path, use_splits: bool | None) -> Source:
        inner = (place / folder for folder in ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC"))
        return ImageFolderSource(next((folder for folder in inner if folder.is_dir()), place), use_splits, self.root)

    def questions(self) -> Iterator[Question]:
        if not self.options["choices"]:
            return
        names, pictures = self._classified()
        every = sorted(set(names.values()))
        count = self.options["choices"]
        if len(every) < count:
            raise SourceError(f"source {self.name!r}: choices={count}, and {self.path} names {len(every)} classes")
        for ref, split, found in pictures:
            name = names.get(found)
            rng = rng_for("imagenet question", ref)
            options = rng.sample([other for other in every if other != name], count - 1) if name else []
            options.insert(rng.randrange(count), name or "")
            yield Question(
                id=ref,
                refs=(ref,),
                text="Which of these does the picture show?",
                options=tuple(options) if name else (),
                answer=string.ascii_uppercase[options.index(name)] if name else None,
                split=split,
            )

    def _classified(self) -> tuple[Mapping[Any, str], Iterator[tuple[str, str | None, Any]]]:
        """The names of the classes, and for each picture with a question its ref, split and class."""
        if isinstance(self.files, ArrowSource):
            names: Mapping[Any, str] = names_in(self.files.first_schema(), "label")
            if not names:
                raise SourceError(
                    f"source {self.name!r}: {self.path} has no column `label` with the names of its classes"
                )
            rows = [(row.refs[0], row.split, row.values.get("label")) for row in self.files.rows() if row.refs]
            return names, self._asked(rows)
        place = self.existing_path()
        folders = [place, *place.parents[:3]]
        names, solution = names_near(folders), solution_near(folders)
        found = ((record, PurePosixPath(record.ref)) for record in self.files.records())
        rows = [
            (record.ref, record.split, path.parent.name if path.parent.name in names else solution.get(path.stem))
            for record, path in found
        ]
        return names, self._asked(rows)

    @staticmethod
    def _asked(rows: list[tuple[str, str | None, Any]]) -> Iterator[tuple[str, str | None, Any]]:
        """All but the training pictures; all if there are no others."""
        others = [row for row in rows if not (row[1] or "").startswith("train")]
        return iter(others or rows)
