"""A data set of the Hub by its name: found, downloaded, read and refused, with the Hub answered on the loopback."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import BASE_SECTION
from hub_server import TOKEN, Hub, running_hub
from huggingface_hub import constants
from pictures import photo
from test_samples_and_dataset import dataset

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.source import Source, SourceError, load_source
from ssl4rl_plugin.data_builders.index.indexer import build_manifest
from ssl4rl_plugin.data_builders.sources.download import download
from ssl4rl_plugin.data_builders.sources.hub import download as hub_download
from ssl4rl_plugin.data_builders.sources.hub import layout
from ssl4rl_plugin.data_builders.sources.hub.errors import explained
from ssl4rl_plugin.data_builders.sources.hub.repository import hub_name
from ssl4rl_plugin.training.source_notes import source_notes

ROOT = Path(__file__).parent.parent
PROGRAM = str(Path(sys.executable).with_name("ssl4rl"))
CARD = b"---\nlicense: cc-by-4.0\n---\n# Pets\n"


@pytest.fixture(scope="module")
def pngs() -> list[bytes]:
    made = []
    for seed in range(20):
        file = io.BytesIO()
        photo(seed, 64, 48).save(file, "PNG")
        made.append(file.getvalue())
    return made


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, and what its environment variables set when the libraries are imported."""
    with running_hub() as running:
        use(monkeypatch, running.address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
        monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
        monkeypatch.setenv("SSL4RL_CACHE", str(tmp_path / "ssl4rl"))
        for name in ("HF_TOKEN", "HF_DATASETS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        datasets.disable_progress_bars()
        yield running
        datasets.enable_progress_bars()


def use(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """What HF_ENDPOINT sets."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", address)
    monkeypatch.setattr(
        datasets.config, "HUB_DATASETS_URL", f"{address}/datasets/{{repo_id}}/resolve/{{revision}}/{{path}}"
    )


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_HUB_OFFLINE sets."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def table(pictures: list[bytes], **columns: list) -> bytes:
    """A parquet file as `push_to_hub` writes it."""
    features = datasets.Features({"image": datasets.Image()} | {name: datasets.Value("string") for name in columns})
    data = {"image": [{"bytes": data, "path": None} for data in pictures], **columns}
    file = io.BytesIO()
    datasets.Dataset.from_dict(data, features).to_parquet(file)
    return file.getvalue()


def pets(pngs: list[bytes]) -> dict[str, bytes]:
    """A repository with two splits, one of two files."""
    return {
        "README.md": CARD,
        "data/train-00000-of-00002.parquet": table(pngs[:4]),
        "data/train-00001-of-00002.parquet": table(pngs[4:8]),
        "data/test-00000-of-00001.parquet": table(pngs[8:10]),
    }


def read_all(source: Source) -> list[bytes]:
    return [source.read(record.ref) for record in source.records()]


def fetched(hub: Hub) -> list[str]:
    """The data files that were sent, in order of their names."""
    return sorted(path for path in hub.sent if not path.startswith(("README", ".")))


def refused(hub: Hub, name: str, **options: object) -> str:
    with pytest.raises(SourceError) as found:
        load_source("hf", name, **options)
    text = str(found.value)
    assert "\n" not in text and text.startswith("source 'hf': "), text
    return text


# ---------------------------------------------------------------------------------------------------- by name


def test_a_data_set_by_its_name(hub: Hub, pngs: list[bytes], tmp_path: Path) -> None:
    repo = hub.add("org/pets", pets(pngs))
    source = load_source("hf", "org/pets")
    assert read_all(source) == pngs[:10]
    assert [record.split for record in source.records()] == ["train"] * 8 + ["test"] * 2
    manifest = build_manifest(source, tmp_path / "m.parquet", workers=1)
    assert (len(manifest.items("train")), len(manifest.items("val"))) == (8, 2)
    commit = repo.branches["main"]
    stated = {"data set": "org/pets", "commit": commit, "config": "default", "licence": "cc-by-4.0"}
    assert manifest.settings["about"] == source.about() == stated
    assert manifest.settings["path"] == "org/pets" and manifest.settings["options"]["revision"] == commit
    # The pictures are not copied: nothing in our cache is as large as one file of the data set.
    files = [file for file in (tmp_path / "ssl4rl").rglob("*") if file.is_file()]
    assert files and sum(file.stat().st_size for file in files) < min(len(data) for data in pngs)


def test_only_the_split_that_is_asked_for_is_downloaded(hub: Hub, pngs: list[bytes]) -> None:
    hub.add("org/pets", pets(pngs))
    source = load_source("hf", "org/pets", split="test")
    assert read_all(source) == pngs[8:10] and {record.split for record in source.records()} == {None}
    assert fetched(hub) == ["data/test-00000-of-00001.parquet"]
    assert read_all(load_source("hf", "org/pets", split=["train"])) == pngs[:8]
    assert len(fetched(hub)) == 3 and all(count == len(pets(pngs)[path]) for path, count in hub.sent.items())


def test_a_manifest_stays_at_its_commit(hub: Hub, pngs: list[bytes], tmp_path: Path) -> None:
    repo = hub.add("org/pets", pets(pngs))
    first = build_manifest(load_source("hf", "org/pets", split="train"), workers=1)
    newer = repo.commit({"README.md": CARD, "data/train-00000-of-00001.parquet": table(pngs[10:13])})
    again = Manifest.load(first.path)
    assert read_all(again.source) == pngs[:8] and again.digest == first.digest
    second = build_manifest(load_source("hf", "org/pets", split="train"), workers=1)
    assert second.path != first.path and second.settings["options"]["revision"] == newer
    assert read_all(second.source) == pngs[10:13]
    with pytest.raises(SourceError, match="is the manifest of source 'hf' at org/pets"):
        build_manifest(load_source("hf", "org/pets"), first.path, workers=1)
    old = load_source("hf", "org/pets", split="train", revision=first.settings["options"]["revision"])
    assert build_manifest(old, workers=1).path == first.path
    tagged = repo.commit({"README.md": CARD, "test.parquet": table(pngs[:2])}, branch="v1.0")
    for name in ("hf://datasets/org/pets@v1.0", f"{hub.address}/datasets/org/pets/tree/v1.0"):
        assert load_source("hf", name).about()["commit"] == tagged
    assert load_source("hf", "org/pets", revision="v1.0").options["revision"] == tagged


def test_another_machine_makes_the_same_manifest(
    hub: Hub, pngs: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/pets", pets(pngs))
    first = build_manifest(load_source("hf", "org/pets"), tmp_path / "one.parquet", workers=1)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cold"))
    monkeypatch.setenv("SSL4RL_CACHE", str(tmp_path / "cold_ssl4rl"))
    moved = Manifest.load(first.path)  # downloads that commit there
    assert read_all(moved.source) == pngs[:10]
    second = build_manifest(load_source("hf", "org/pets"), tmp_path / "two.parquet", workers=1)
    assert first.digest == second.digest


def test_copies_read_without_a_request(hub: Hub, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/pets", pets(pngs))
    source = load_source("hf", "org/pets")
    refs = [record.ref for record in source.records()]
    packed = pickle.dumps(source)
    assert len(packed) < 1000
    hub.asked.clear()
    copy = pickle.loads(packed)
    assert [copy.read(ref) for ref in refs] == pngs[:10] and [copy.stamp(ref)[1] for ref in refs] == [0] * 10
    assert read_all(load_source("hf", "org/pets", revision=source.options["revision"])) == pngs[:10]
    assert hub.asked == []
    child = "import pickle, sys; s = pickle.load(sys.stdin.buffer); print(len(s.read(next(s.records()).ref)))"
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": constants.HF_HUB_CACHE}
    worker = subprocess.run([sys.executable, "-c", child], input=packed, capture_output=True, env=environment, cwd=ROOT)
    assert worker.stdout.decode().strip() == str(len(pngs[0])), worker.stderr.decode()


@pytest.mark.slow
def test_the_first_batch_of_a_run(hub: Hub, pngs: list[bytes]) -> None:
    """verl's loader with two workers, over a data set that is named as in a run."""
    from torchdata.stateful_dataloader import StatefulDataLoader
    from verl.utils.dataset.rl_dataset import collate_fn

    hub.add("org/pets", pets(pngs))
    source = {**BASE_SECTION["source"], "name": "hf", "path": "org/pets", "options": {"split": "train"}}
    section = {**BASE_SECTION, "source": source, "options": {"side": 56}}
    rows = dataset(section)
    (note,) = source_notes(load_manifest(rows.settings))
    assert note == (
        f"data set org/pets, commit {hub.repos['org/pets'].branches['main']}, config default, licence cc-by-4.0"
    )
    sent = dict(hub.sent)
    loader = StatefulDataLoader(rows, batch_size=4, num_workers=2, drop_last=True, collate_fn=collate_fn)
    batch = next(iter(loader))
    assert len(batch["raw_prompt"]) == 4 and all("data/train-0000" in info["item"] for info in batch["extra_info"])
    assert hub.sent == sent


# ---------------------------------------------------------------------------------------------------- other layouts


def test_image_files_and_tars_of_a_repository(hub: Hub, pngs: list[bytes], tmp_path: Path) -> None:
    files = {f"train/cat/{i} [a].png": pngs[i] for i in range(4)} | {f"test/dog/{i}.png": pngs[i] for i in range(4, 6)}
    hub.add("org/loose", {"README.md": CARD, "train/metadata.csv": b"file_name,text\ncat/0 [a].png,x\n", **files})
    source = load_source("hf", "org/loose")
    assert sorted(read_all(source)) == sorted(pngs[:6])
    assert {(r.ref.partition("/")[0], r.split) for r in source.records()} == {("train", "train"), ("test", "test")}
    assert not any("metadata" in path for path in fetched(hub))
    assert len(build_manifest(source, workers=1).items("val")) == 2
    with pytest.raises(SourceError, match="does not lie below"):
        source.read("../../../secret.png")
    with pytest.raises(SourceError, match="leave out the option columns"):
        load_source("hf", "org/loose", columns=["image"])

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(3):
            archive.writestr(f"some/{number}.png", pngs[number])
    hub.add("org/zipped", {"train/images.zip": packed.getvalue(), "train/x.png": pngs[3], "test/y.png": pngs[4]})
    source = load_source("hf", "org/zipped")
    assert sorted(read_all(source)) == sorted(pngs[:5])
    splits = {record.ref: record.split for record in source.records()}
    assert splits["train/images.zip/some/0.png"] == splits["train/x.png"] == "train" and splits["test/y.png"] == "test"
    assert len(build_manifest(source, workers=1).items("train")) == 4

    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as shard:
        for number, data in enumerate(pngs[:3]):
            for name, content in ((f"{number}.png", data), (f"{number}.seg.png", pngs[10 + number])):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                shard.addfile(info, io.BytesIO(content))
    hub.add("org/shards", {"train-000.tar": tar.getvalue(), "test-000.tar": tar.getvalue()})
    source = load_source("hf", "org/shards")
    assert read_all(source) == pngs[:3] * 2 and [r.split for r in source.records()] == ["train"] * 3 + ["test"] * 3
    assert source.about()["licence"] == "not stated" and "seg.png 6" in source.notes()[0]
    assert read_all(load_source("hf", "org/shards", columns="seg.png")) == pngs[10:13] * 2


def test_arrow_files_of_a_repository(hub: Hub, pngs: list[bytes], tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image()})
    data = {"image": [{"bytes": data, "path": None} for data in pngs[:5]]}
    datasets.Dataset.from_dict(data, features).save_to_disk(tmp_path / "saved")
    files = {file.name: file.read_bytes() for file in (tmp_path / "saved").iterdir()}
    hub.add("org/saved", files)
    assert read_all(load_source("hf", "org/saved")) == pngs[:5]
    assert read_all(load_source("hf", tmp_path / "saved")) == pngs[:5]
    assert load_source("hf", tmp_path / "saved").options == {"columns": None, "split_column": None, "use_splits": None}


def test_a_clone_of_a_repository(hub: Hub, pngs: list[bytes], tmp_path: Path) -> None:
    """A local folder in the Hub's layout, and a snapshot in the Hub's cache given as a folder. No request is made."""
    clone = tmp_path / "clone"
    for name, data in pets(pngs).items():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes(data)
    source = load_source("hf", clone)
    assert read_all(source) == pngs[:10] and {r.split for r in source.records()} == {"train", "test"}
    assert source.about() == {"config": "default", "licence": "cc-by-4.0"}
    assert read_all(load_source("hf", clone, split="test")) == pngs[8:10]
    assert read_all(pickle.loads(pickle.dumps(source))) == pngs[:10]
    (clone / "data/test-00000-of-00001.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(SourceError, match=r"Git LFS pointer.*git lfs pull"):
        load_source("hf", clone, split="test")
    with pytest.raises(SourceError, match="option `revision` is for a name of the Hub"):
        load_source("hf", clone, revision="main")
    assert hub.asked == []
    hub.add("org/loose", {"a.png": pngs[0], "b.png": pngs[1]})
    snapshot = next(Path(constants.HF_HUB_CACHE).glob("*/snapshots/*"), None)
    assert snapshot is None and read_all(load_source("hf", "org/loose")) == pngs[:2]
    snapshot = next(Path(constants.HF_HUB_CACHE).glob("*/snapshots/*"))
    assert (snapshot / "a.png").is_symlink() and read_all(load_source("hf", snapshot)) == pngs[:2]
    (snapshot / "c.png").symlink_to(tmp_path / "clone/README.md")
    secret = [record for record in load_source("hf", snapshot).records() if record.ref == "c.png"]
    with pytest.raises(ImageError, match="outside_root"):
        load_source("hf", snapshot).read(secret[0].ref)


def test_the_hubs_own_conversion(hub: Hub, pngs: list[bytes], caplog: pytest.LogCaptureFixture) -> None:
    """A data set with a script is refused, and its conversion is read without the script."""
    repo = hub.add("org/old", {"README.md": CARD, "old.py": b"raise SystemExit"})
    assert "loading script, and no code" in (said := refused(hub, "org/old")) and "refs/convert/parquet" in said
    files = {"pets/train/0000.parquet": table(pngs[:2]), "pets/partial-test/0000.parquet": table(pngs[2:3])}
    commit = repo.commit(
        {".gitattributes": b"", **files, "birds/train/0000.parquet": table(pngs[5:7])}, "refs/convert/parquet"
    )
    assert "birds, pets" in refused(hub, "org/old", revision="refs/convert/parquet")
    source = load_source("hf", "org/old", revision="refs/convert/parquet", config="pets")
    assert read_all(source) == [pngs[2], *pngs[:2]] and source.options["revision"] == commit
    assert [record.split for record in source.records()] == ["test", "train", "train"]
    assert "only the first part of the split test" in caplog.text
    assert read_all(load_source("hf", "org/old", revision=commit, config="birds")) == pngs[5:7]


def test_a_benchmark_by_its_name_on_the_hub(hub: Hub, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the files that the benchmark needs, as validation in a run names them; other files in the cache do not count."""
    columns = {"question": ["q"] * 3, "A": ["a"] * 3, "B": ["b"] * 3, "answer": ["A"] * 3, "index": ["1", "2", "3"]}
    files = {"README.md": CARD, "en/dev-00000-of-00001.parquet": table(pngs[:3], **columns)}
    repo = hub.add("lmms-lab/MMBench", files | {"cn/dev-00000-of-00001.parquet": table(pngs[3:6], **columns)})
    assert len(read_all(load_source("hf", "lmms-lab/MMBench"))) == 6
    source = load_source("mmbench", download("mmbench", None))
    assert read_all(source) == pngs[:3] and len(list(source.questions())) == 3
    assert source.options == {"use_splits": None, "revision": repo.branches["main"]}
    manifest = build_manifest(source, workers=1)
    repo.commit({})
    hub.asked.clear()
    assert read_all(Manifest.load(manifest.path).source) == pngs[:3]
    assert read_all(pickle.loads(pickle.dumps(source))) == pngs[:3] and hub.asked == []
    go_offline(monkeypatch)
    assert read_all(load_source("mmbench", "lmms-lab/MMBench")) == pngs[:3]
    with pytest.raises(SourceError, match="is not in the cache"):
        load_source("mmstar", "Lin-Chen/MMStar")
    with pytest.raises(SourceError, match="does not exist; get MMBench_DEV_EN"):
        load_source("mmbench", "data/MMBench_DEV_EN.tsv")


# ---------------------------------------------------------------------------------------------------- configurations

CONFIGS = b"""---
license: other
license_name: house-rules
configs:
- config_name: cats
  data_files:
  - split: train
    path: cats/*.parquet
- config_name: "2019"
  data_files:
  - split: val
    path: old/*.parquet
---
"""


def test_configurations_and_splits(hub: Hub, pngs: list[bytes]) -> None:
    files = {"README.md": CONFIGS, "cats/a.parquet": table(pngs[:2]), "cats/b.parquet": table(pngs[2:4])}
    hub.add("org/two", {**files, "old/a.parquet": table(pngs[4:5])})
    assert "several configurations (cats, 2019); name one: --option config=NAME" in refused(hub, "org/two")
    assert "no configuration 'dogs', but: cats, 2019" in refused(hub, "org/two", config="dogs")
    source = load_source("hf", "org/two", config="cats")
    assert read_all(source) == pngs[:4] and source.about()["licence"] == "house-rules"
    assert fetched(hub) == ["cats/a.parquet", "cats/b.parquet"]
    assert read_all(load_source("hf", "org/two", config=2019)) == pngs[4:5]  # as --option reads it
    assert "has no split 'dev'; its splits are: train" in refused(hub, "org/two", config="cats", split="dev")
    assert "ssl4rl.source.train_size" in refused(hub, "org/two", config="cats", split="train[:10%]")
    default = CONFIGS.replace(b"config_name: cats\n", b"config_name: cats\n  default: true\n")
    hub.add("org/default", {**files, "README.md": default, "old/a.parquet": table(pngs[4:5])})
    assert load_source("hf", "org/default").options["config"] == "cats"


@pytest.mark.parametrize("path", ["/etc/*.conf", "../*.parquet", "hf://datasets/org/other/*.parquet"])
def test_a_card_names_only_files_of_its_data_set(hub: Hub, pngs: list[bytes], tmp_path: Path, path: str) -> None:
    card = CONFIGS.replace(b"cats/*.parquet", path.encode())
    (tmp_path / "clones").mkdir()
    (tmp_path / "clones/secret.parquet").write_bytes(table(pngs[:1]))
    hub.add("org/other", {"a.parquet": table(pngs[:1])})
    hub.add("org/bad", {"README.md": card, "cats/a.parquet": table(pngs[:2])})
    refused(hub, "org/bad", config="cats")
    clone = tmp_path / "clones/clone"
    clone.mkdir()
    (clone / "README.md").write_bytes(card)
    with pytest.raises(SourceError):
        load_source("hf", clone, config="cats")
    hub.add("lmms-lab/MMBench", {"en/../../../x.parquet": b""})
    with pytest.raises(SourceError, match="lies outside of it"):
        load_source("mmbench", "lmms-lab/MMBench")


@pytest.mark.parametrize("use", ["license: *a11", "configs: [{config_name: x, data_files: *a11}]"])
def test_a_card_that_would_grow_is_refused(hub: Hub, pngs: list[bytes], tmp_path: Path, use: str) -> None:
    """Aliases of aliases: a few hundred bytes that stand for 9^12 values, which a message would write out."""
    layers = "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    bomb = f"a0: &a0 [{','.join('x' * 9)}]\n{layers}{use}\n"
    hub.add("org/bomb", {"README.md": f"---\n{bomb}---\n".encode(), "a.png": pngs[0]})
    hub.add("org/bomb2", {".huggingface.yaml": bomb.encode(), "README.md": CARD, "a.png": pngs[0]})
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone/README.md").write_text(f"---\n{bomb}---\n")
    for path in ("org/bomb", "org/bomb2", tmp_path / "clone"):
        with pytest.raises(UserError, match="stands for more than"):
            load_source("hf", path)


# ---------------------------------------------------------------------------------------------------- one sentence each


def test_data_sets_without_pictures(hub: Hub, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "FOOTER", 4096)
    text = io.BytesIO()
    pq.write_table(pa.table({"question": [os.urandom(20_000).hex()], "answer": ["so"]}), text)
    hub.add("org/text", {"README.md": CARD, "train.parquet": text.getvalue()})
    assert "does not have a column with images; its columns are: question (string), answer" in refused(hub, "org/text")
    assert hub.sent["train.parquet"] == 4096  # only its end
    assert "does not have any column 'photo'" in refused(hub, "org/text", columns="photo")
    card = b"---\ndataset_info:\n  features:\n  - name: prompt\n    dtype: string\n---\n"
    hub.add("org/lines", {"README.md": card, "train.jsonl": b'{"prompt": "x"}\n'})
    assert "no pictures in its data files (json, such as train.jsonl); its columns are: prompt" in refused(
        hub, "org/lines"
    )
    hub.add("org/csv", {"train.csv": b"file,label\na.png,1\n"})
    assert "its columns are: file, label" in refused(hub, "org/csv")
    hub.add("org/empty", {"README.md": CARD})
    assert "no data files" in refused(hub, "org/empty")


def test_what_the_hub_refuses(
    hub: Hub, pngs: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub.add("org/pets", pets(pngs))
    assert "there is no folder org/nothing, and no data set org/nothing on the Hub, or it is private" in refused(
        hub, "org/nothing"
    )
    hub.add("org/gated", pets(pngs), gated=True)
    assert f"gated: accept its terms at {hub.address}/datasets/org/gated, then log in" in refused(hub, "org/gated")
    hub.add("org/private", pets(pngs), private=True)
    assert "or it is private" in refused(hub, "org/private")
    assert "no revision 'v9', but: main" in refused(hub, "org/pets", revision="v9")
    assert "no revision" in refused(hub, "org/pets", revision="0" * 40)
    hub.add("org/closed", pets(pngs), disabled=True)
    assert "has disabled the data set org/closed" in refused(hub, "org/closed")
    (tmp_path / "token").write_text("hf_wrong")
    assert "refuses your token" in refused(hub, "org/pets")
    (tmp_path / "token").write_text(TOKEN)
    assert read_all(load_source("hf", "org/private")) == pngs[:10]
    assert "wait until it is granted" in refused(hub, "org/gated")
    hub.renamed["old/name"] = hub.renamed["single"] = "org/pets"
    for old in ("old/name", "single"):
        source = load_source("hf", old)
        assert str(source.path) == "org/pets" and f"{old} is now called org/pets" in caplog.text
    with monkeypatch.context() as patch:
        go_offline(patch)
        assert load_source("hf", "old/name").options == source.options
    hub.status = 503
    assert "answers with HTTP 503" in refused(hub, "org/new")
    assert "the revision v, and the option w" in refused(hub, "hf://datasets/org/pets@v", revision="w")


@pytest.mark.parametrize("name", ["a/b/c", "a--b", "/no/such/folder", "./folder", "~/x", "a b", "org/na..me", ""])
def test_what_is_no_name_stays_a_path(name: str) -> None:
    assert hub_name(name) is None
    with pytest.raises(SourceError, match=r"does not exist|is not a data set|needs a path"):
        load_source("hf", name or None)


# ---------------------------------------------------------------------------------------------------- without a network


def test_offline_after_online(hub: Hub, pngs: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = hub.add("org/pets", pets(pngs))
    load_source("hf", "org/pets", split="train")
    go_offline(monkeypatch)
    hub.asked.clear()
    assert read_all(load_source("hf", "org/pets", split="train")) == pngs[:8]
    said = refused(hub, "org/pets")
    assert "1 of the 3 files of org/pets" in said and "HF_HUB_OFFLINE is set: index it once with a network" in said
    assert "is not in the cache" in refused(hub, "org/other") and "is not in the cache" in refused(
        hub, "org/pets", revision="v1"
    )
    assert "is not in the cache" in refused(hub, "org/pets", revision="1" * 40)
    assert hub.asked == [] and repo


def test_a_network_that_fails(
    hub: Hub, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    repo = hub.add("org/pets", pets(pngs))
    load_source("hf", "org/pets", split="train")
    use(monkeypatch, "http://127.0.0.1:9")
    source = load_source("hf", "org/pets", split="train")
    assert read_all(source) == pngs[:8] and source.options["revision"] == repo.branches["main"]
    assert "cannot be reached" in caplog.text and "is read from the cache, at commit" in caplog.text
    assert "the Hub (http://127.0.0.1:9) cannot be reached" in refused(hub, "org/other")
    assert "cannot be reached" in refused(hub, "org/pets", split="test")
    use(monkeypatch, hub.address)
    hub.status = 503
    assert read_all(load_source("hf", "org/pets", split="train")) == pngs[:8]


def test_a_cache_that_another_program_made(hub: Hub, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """As `hf download` leaves it: whole, and with one file of a series missing."""
    from huggingface_hub import snapshot_download

    hub.add("org/pets", pets(pngs))
    snapshot = Path(snapshot_download("org/pets", repo_type="dataset"))
    commit = hub.repos["org/pets"].branches["main"]
    with monkeypatch.context() as patch:  # a worker's machine: the commit, a shared cache, and no network
        use(patch, "http://127.0.0.1:9")
        assert read_all(load_source("hf", "org/pets", revision=commit)) == pngs[:10]
    go_offline(monkeypatch)
    assert read_all(load_source("hf", "org/pets")) == pngs[:10]
    monkeypatch.setenv("SSL4RL_CACHE", os.environ["SSL4RL_CACHE"] + "2")
    (snapshot / "data/train-00001-of-00002.parquet").unlink()
    assert "has 1 of the 2 files data/train-*-of-00002.parquet" in refused(hub, "org/pets")


def test_a_part_that_another_program_left_in_the_cache(
    hub: Hub, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Files without numbers: the listing in the cache tells that one is missing; without it, a warning says so."""
    from huggingface_hub import hf_hub_download, snapshot_download

    hub.add("org/loose", {"README.md": CARD, "a.parquet": table(pngs[:2]), "b.parquet": table(pngs[2:4])})
    snapshot = Path(snapshot_download("org/loose", repo_type="dataset"))
    (snapshot / "b.parquet").unlink()
    hub.add("org/one", {"README.md": CARD, "a.parquet": table(pngs[:2]), "b.parquet": table(pngs[2:4])})
    hf_hub_download("org/one", "a.parquet", repo_type="dataset")
    with monkeypatch.context() as patch:
        go_offline(patch)
        assert "files like a.parquet of org/loose are missing in the cache" in refused(hub, "org/loose")
        assert read_all(load_source("hf", "org/one")) == pngs[:2]
        assert "whether these are all cannot be checked" in caplog.text
    assert read_all(load_source("hf", "org/one")) == pngs[:4]  # the part was not kept as the whole


def test_a_folder_of_the_same_name(
    hub: Hub, pngs: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/pets", pets(pngs))
    monkeypatch.chdir(tmp_path)
    Path("org/pets").mkdir(parents=True)
    assert "For the data set of the Hub, give hf://datasets/org/pets" in refused(hub, "org/pets")
    source = load_source("hf", "hf://datasets/org/pets", split="all")
    assert read_all(source) == read_all(load_source("hf", "datasets/org/pets")) == pngs[:10]
    # What the manifest names is the Hub's, although there is a folder of that name.
    assert read_all(Manifest.load(build_manifest(source, workers=1).path).source) == pngs[:10]


# ---------------------------------------------------------------------------------------------------- downloads


def test_an_interrupted_download_resumes(hub: Hub, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    files = pets(pngs)
    repo = hub.add("org/pets", files)
    first, second = "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"
    # Within a file: the connection breaks, and the rest is asked for.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.cut[first] = 5500
    load_source("hf", "org/pets", split="train")
    assert any(text.startswith(f"{first} bytes=") for text in hub.ranges) and hub.sent[first] < len(files[first]) + 1000
    # Between files: the run is killed after the first file, and the second run fetches only what is missing.
    cached = Path(constants.HF_HUB_CACHE) / "datasets--org--pets/snapshots" / repo.branches["main"]
    (cached / second).resolve().unlink()
    (cached / second).unlink()
    hub.sent.clear()
    source = load_source("hf", "org/pets", split="train")
    assert read_all(source) == pngs[:8] and hub.sent == {second: len(files[second])}


@pytest.mark.slow
def test_a_stopped_download_is_not_taken_for_the_whole(
    hub: Hub, pngs: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the Hub is silent: the process ends, the finished file stays, and a part of a split is never read."""
    files = pets(pngs)
    repo = hub.add("org/pets", files)
    first, second = "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"
    hub.silent.add(second)
    environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HUB_CACHE": constants.HF_HUB_CACHE}
    command = [PROGRAM, "index", "hf", "--path", "org/pets", "--option", "split=train"]
    environment["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"
    running = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    cached = Path(constants.HF_HUB_CACHE) / "datasets--org--pets/snapshots" / repo.branches["main"]
    end = time.monotonic() + 60
    while not ((cached / first).exists() and hub.sent.get(second)) and time.monotonic() < end:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=15)
    assert running.returncode not in (0, 2) and "Traceback" not in said, said
    assert (cached / first).exists() and not (cached / second).exists()
    with monkeypatch.context() as patch:
        go_offline(patch)
        commit = repo.branches["main"]
        assert "1 of the 2 files" in refused(hub, "org/pets", split="train", revision=commit)
    hub.silent.clear()
    hub.sent.clear()
    assert read_all(load_source("hf", "org/pets", split="train")) == pngs[:8]
    assert hub.sent == {second: len(files[second])}


def test_progress_of_xet_downloads() -> None:
    """With the reporter that `huggingface_hub` uses where files come from Xet storage: bytes count once."""
    from huggingface_hub.utils import tqdm
    from huggingface_hub.utils._xet_progress_reporting import XetDownloadProgressReporter

    stop = threading.Event()
    with tqdm(total=100, disable=False, file=io.StringIO()) as bar:
        part = hub_download.part_of(bar, stop)
        with XetDownloadProgressReporter(reconstruction_desc="x", total=100, log_level=20, tqdm_class=part) as reporter:
            for count in (30, 100):
                state = SimpleNamespace(
                    total_bytes_completed=count, total_transfer_bytes_completed=count, total_bytes=100,
                    total_bytes_completion_rate=1.0, total_transfer_bytes_completion_rate=None,
                )  # fmt: skip
                reporter.update_progress(state)
                assert bar.n == count
        stop.set()
        with pytest.raises(InterruptedError):
            part(total=1).update(1)


def test_a_full_disk(hub: Hub, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the download, and in the middle of it, when another program has filled the disk."""
    hub.add("org/pets", pets(pngs))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
        assert "3 files of org/pets have" in (said := refused(hub, "org/pets")) and "set HF_HOME" in said
    assert fetched(hub) == []
    for number, message in ((errno.ENOSPC, "finished files are kept"), (errno.EROFS, "a folder that you may write")):
        with pytest.raises(SourceError, match=message), explained("org/pets", "main"):
            raise OSError(number, os.strerror(number))


@pytest.mark.slow
def test_one_command_indexes_it(hub: Hub, pngs: list[bytes], tmp_path: Path) -> None:
    """In a process of its own, with the environment variables that users set."""
    repo = hub.add("org/pets", pets(pngs))
    environment = {
        **os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "SSL4RL_CACHE": str(tmp_path / "c"),
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    }  # fmt: skip

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [PROGRAM, "index", "hf", "--path", "org/pets", *arguments]
        return subprocess.run(command, env={**environment, **more}, capture_output=True, text=True, cwd=ROOT)

    found = run("--option", "split=train", "--json")
    summary = json.loads(found.stdout)
    assert summary["images"] == 8 and summary["about"]["licence"] == "cc-by-4.0", found.stderr
    assert summary["about"]["commit"] == repo.branches["main"]
    shown = run("--option", "split=train", HF_HUB_OFFLINE="1")
    assert shown.returncode == 0 and "licence cc-by-4.0" in shown.stderr and repo.branches["main"] in shown.stderr
    failed = run(HF_HUB_OFFLINE="1")
    assert failed.returncode == 2 and "HF_HUB_OFFLINE is set" in failed.stderr and "Traceback" not in failed.stderr
