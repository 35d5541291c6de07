"""The manifest: one row per picture of a source, saying where it is, what it is like, and whether and where it is used.

Building it is the only time that every picture is decoded. Duplicates and near-duplicates share a group, a group never
straddles the two splits, and what cannot be used stays in the table with its reason.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from PIL import Image

from ssl4rl_plugin.core import RGBD, Clip
from ssl4rl_plugin.data_builders.source import Box, Record, Source, SourceError, load_source
from ssl4rl_plugin.images import MAX_SOURCE_PIXELS, ImageError, contrast, entropy, open_rgb, shrink
from ssl4rl_plugin.seeding import unit_for

# pyarrow, imagehash (scipy) and rich are imported where they are used: data-loader workers import this module.
if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1
"""Of the table's layout and of every figure in it; raised whenever either changes, so that no old row is reused."""

MIN_SIDE = 28
"""Pixels along the shorter side below which a picture is `too_small`: one visual token of Qwen2.5-VL."""
MAX_ASPECT = 20
"""Longer side over shorter side above which a picture is rejected (`aspect`)."""
BLANK_CONTRAST = 0.01
"""Contrast below which a picture is `blank`: one colour, with faint noise at most. A page with one line has 0.03."""
NEAR_DUPLICATE_BITS = 4
"""Perceptual hashes (64 bits) that differ in at most so many bits count as the same picture."""

FIGURE_PIXELS = 256 * 256
"""Perceptual hash, entropy and contrast are those of the picture averaged down to about so many pixels (under four
times as many): they say the same, and cost a fraction of the time on a photograph of many megapixels."""

_METADATA_KEY = b"ssl4rl.manifest"
_CHUNK = 32  # records measured by one call of a worker
_BLOCK = 4096  # rows kept as Python objects before they become a compact Arrow batch
_UNSTABLE = ("unreadable", "outside_root", "duplicate_of_validation")  # reasons that say nothing about the bytes


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            ("ref", pa.string()),
            ("bytes", pa.int64()),
            ("mtime_ns", pa.int64()),
            ("sha256", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("mode", pa.string()),
            ("exif_orientation", pa.int8()),
            ("phash", pa.string()),
            ("entropy", pa.float32()),
            ("contrast", pa.float32()),
            ("group", pa.string()),
            ("split", pa.string()),
            ("box", pa.list_(pa.int32())),
            ("reason", pa.string()),
            ("detail", pa.string()),
        ]
    )


@dataclass(frozen=True)
class ManifestItem:
    """One usable picture."""

    id: str
    """Stable identity inside the source; the same text as `ref`."""
    ref: str
    """Where the source finds the bytes."""
    group: str
    """Pictures of the same thing share a group; groups never straddle splits."""
    split: str
    """`train` or `val`."""
    width: int
    """Pixels of the upright picture, after `box` is cut out."""
    height: int
    """Pixels of the upright picture, after `box` is cut out."""
    box: Box | None
    """The part of the upright picture that is the item; None for all of it."""


class Manifest:
    """An indexed source, read from its parquet file.

    Pickling one costs a few hundred bytes: the copy reads the file again when it is first used, and refuses if the
    file is no longer the same.

    Args:
        path: the parquet file.
        source: the source it was built from; None opens the one that the file names.
        digest: SHA-256 that the file must have, where it is known.
    """

    def __init__(self, path: Path, source: Source | None = None, digest: str | None = None) -> None:
        self.path = path
        self._expected = digest
        self.source = source or self._open_source()

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Open a manifest and the source that it names.

        Raises:
            SourceError: no manifest there, one of another version, or its source is gone.
        """
        return cls(Path(path).resolve())

    @property
    def digest(self) -> str:
        """SHA-256 of the file: the same digest, the same items in the same order."""
        return self._content[1]

    @property
    def table(self) -> pa.Table:
        """The whole table, rejected rows included; `build_manifest` says what the columns are."""
        return self._content[0]

    @property
    def settings(self) -> dict[str, Any]:
        """What it was built with: version, source, path, options, seed, val_fraction, max_source_pixels."""
        return _settings_of(self.table)

    @cached_property
    def rejected(self) -> Counter[str]:
        """How many pictures are left out, by reason."""
        return Counter(self.table["reason"].drop_null().to_pylist())

    def items(self, split: str) -> Sequence[ManifestItem]:
        """The usable pictures of a split (`train` or `val`), in the source's order; made one at a time when asked for.

        Raises ValueError for any other name.
        """
        if split not in ("train", "val"):
            raise ValueError(f"split must be 'train' or 'val', got {split!r}")
        return _Items(self, split)

    def open(self, item: ManifestItem, max_pixels: int | None = None) -> Image.Image | RGBD | Clip:
        """What a task gets as `Item.data`: a picture, or what else the source's kind of item is.

        Raises:
            ImageError: it was good when it was indexed, but cannot be read now.
        """
        return self.source.item(item.ref, lambda: self.picture(item, max_pixels), max_pixels)

    def picture(self, item: ManifestItem, max_pixels: int | None = None) -> Image.Image:
        """The item's picture: upright RGB, its box cut out, shrunk to at most `max_pixels` pixels where given.

        Raises:
            ImageError: it was good when it was indexed, but cannot be read now.
        """
        data = self.source.read(item.ref)
        limit = self._limit
        if item.box is None:
            return open_rgb(data, max_source_pixels=limit, max_pixels=max_pixels)
        image = _whole(data, limit)
        return shrink(image.crop(_checked(item.box, image)), max_pixels)

    @cached_property
    def _limit(self) -> int:
        return int(self.settings["max_source_pixels"])

    @cached_property
    def _content(self) -> tuple[pa.Table, str]:
        table, digest = _read(self.path)
        if self._expected not in (None, digest):
            raise SourceError(f"{self.path} was rebuilt while it was in use; start the run again")
        return table, digest

    def _open_source(self) -> Source:
        settings = self.settings
        return load_source(settings["source"], settings["path"], **settings["options"])

    def __reduce__(self) -> tuple[Any, ...]:
        return Manifest, (self.path, self.source, self.digest)


@lru_cache(maxsize=8)
def _whole(data: bytes, limit: int) -> Image.Image:
    """A picture that many boxes are cut out of, decoded once; not to be changed in place."""
    return open_rgb(data, max_source_pixels=limit)


class _Items(Sequence[ManifestItem]):
    """The usable rows of one split, as a sequence over the manifest's columns."""

    def __init__(self, manifest: Manifest, split: str) -> None:
        self._manifest = manifest
        self._split = split

    @cached_property
    def _rows(self) -> np.ndarray[Any, Any]:
        """Row numbers in the table."""
        import pyarrow.compute as pc

        table = self._manifest.table
        good = pc.and_(pc.is_null(table["reason"]), pc.equal(table["split"], self._split))
        return np.flatnonzero(pc.fill_null(good, False).to_numpy())

    @cached_property
    def _columns(self) -> list[Any]:
        table = self._manifest.table
        return [table[name].combine_chunks() for name in ("ref", "group", "width", "height", "box")]

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> ManifestItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[ManifestItem]: ...
    def __getitem__(self, index: int | slice) -> ManifestItem | list[ManifestItem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = int(self._rows[index])
        ref, group, width, height, box = (column[row].as_py() for column in self._columns)
        return ManifestItem(ref, ref, group, self._split, width, height, tuple(box) if box is not None else None)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Items, (self._manifest, self._split)


def build_manifest(
    source: Source,
    out: Path | None = None,
    *,
    val_fraction: float = 0.1,
    seed: int = 0,
    max_source_pixels: int = MAX_SOURCE_PIXELS,
    workers: int | None = None,
    progress: bool = False,
) -> Manifest:
    """Index a source, or bring its manifest up to date: only what changed since the last time is read again.

    Columns: ref; bytes and mtime_ns (the source's stamp); sha256 of the encoded picture; width, height (upright, box
    cut out); mode (stored pixel format); exif_orientation; phash (64-bit perceptual hash, hex); entropy (bits, of the
    luma) and contrast ([0, 0.5]), see FIGURE_PIXELS; group; split (train, val); box; reason (null if usable) and
    detail. The settings are in the schema's metadata. Equal input gives an equal file, byte for byte, whatever the
    workers.

    Groups: pictures of equal content, of nearly equal perceptual hash, or of one group of the source. A crop (a record
    with a box) is not compared by perceptual hash: that of a smooth part of a picture says little.

    Splits: the source's own where it names one (`train...` is train; `val...`, `dev...`, `test...`, `eval...` are
    val). Otherwise a hash of seed and group decides, so that adding pictures moves none of the others, unless they
    join an older one's group. Where a group has training and validation pictures by the source's word, the training
    ones are rejected as `duplicate_of_validation`.

    Args:
        source: what to index.
        out: the parquet file; None for a file in the cache (`$SSL4RL_CACHE` or ~/.cache/ssl4rl).
        val_fraction: share of the groups that become validation where the source does not say, in [0, 1).
        seed: changes which groups those are.
        max_source_pixels: pictures that declare more pixels are rejected unread.
        workers: threads; None for one per available core, at most 8.
        progress: show a progress bar on work of more than a second.

    Raises:
        SourceError: no usable picture at all (the message counts them by reason), an `out` that is something else or
            cannot be written, a split that is neither training nor validation.
    """
    if not 0 <= val_fraction < 1:
        raise SourceError(f"val_fraction must be in [0, 1), got {val_fraction}")
    settings: dict[str, Any] = {
        "version": VERSION,
        "source": source.name,
        "path": None if source.path is None else str(source.path),
        "options": source.options,
        "max_source_pixels": max_source_pixels,
        "seed": seed,
        "val_fraction": val_fraction,
    }
    settings = json.loads(json.dumps(settings))  # as it will be read back: tuples become lists
    target, previous = _place(settings, out)
    records = list(source.records())
    if not records:
        raise SourceError(f"source {source.name!r} lists no images{f' at {source.path}' if source.path else ''}")
    table = _measure_all(source, records, previous, max_source_pixels, workers, progress)
    table = _assign(table, records, seed, val_fraction)
    if table["reason"].null_count == 0:
        counts = Counter(table["reason"].to_pylist())
        listed = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
        detail = table["detail"][0].as_py()
        raise SourceError(
            f"source {source.name!r}{f' at {source.path}' if source.path else ''}: none of its {len(table)} images can "
            f"be used ({listed}; the first: {table['ref'][0].as_py()}: {detail})"
        )
    table = table.replace_schema_metadata({_METADATA_KEY: json.dumps(settings, sort_keys=True).encode()})
    unchanged = previous is not None and _settings_of(previous) == settings and previous.equals(table)
    if not (unchanged and target.exists()):
        _write(table, target)
    return Manifest(target, source)


# ---------------------------------------------------------------------------------------------------- the file


def _place(settings: Mapping[str, Any], out: Path | None) -> tuple[Path, pa.Table | None]:
    """Where the manifest goes, and an older table of the same source and limits, if there is one."""
    if out is not None:
        out = Path(out).expanduser().resolve()
        if not out.exists():
            return out, None
        table = _read(out)[0]
        there = _settings_of(table)
        if any(there[key] != settings[key] for key in ("source", "path", "options")):
            raise SourceError(
                f"{out} is the manifest of source {there['source']!r} at {there['path']} with options "
                f"{there['options']}; choose another output, or delete it"
            )
        return out, table if there["max_source_pixels"] == settings["max_source_pixels"] else None
    # Runs that divide the same source differently must not overwrite each other's file, but they share the figures.
    shared = {key: settings[key] for key in ("version", "source", "path", "options", "max_source_pixels")}
    prefix = f"{settings['source']}-{_short_hash(shared)}"
    target = cache_dir() / "manifests" / f"{prefix}-{_short_hash(dict(settings))}.parquet"
    for candidate in [target, *sorted(target.parent.glob(f"{prefix}-*.parquet"))]:
        try:
            return target, _read(candidate)[0]
        except SourceError:
            continue  # missing or damaged: the cache is ours to rebuild
    return target, None


def cache_dir() -> Path:
    """`$SSL4RL_CACHE`, or ~/.cache/ssl4rl."""
    return Path(os.environ.get("SSL4RL_CACHE") or "~/.cache/ssl4rl").expanduser().resolve()


def _short_hash(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path) -> tuple[pa.Table, str]:
    """A manifest's table and the SHA-256 of its file. Raises SourceError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"manifest {path} cannot be read: {error.strerror}; every run makes the one that it needs"
        ) from error
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path} is not a parquet file ({error})") from error
    version = _settings_of(table).get("version")
    if version is None:
        raise SourceError(
            f"{path} is a parquet file, but not a manifest; name another file, or delete it and the run makes one"
        )
    if version != VERSION or not table.schema.equals(_schema()):
        raise SourceError(f"manifest {path} has version {version}, this package reads {VERSION}; delete and rebuild it")
    return table, hashlib.sha256(data).hexdigest()


def _settings_of(table: pa.Table) -> dict[str, Any]:
    metadata = (table.schema.metadata or {}).get(_METADATA_KEY)
    return json.loads(metadata) if metadata else {}


def _write(table: pa.Table, target: Path) -> None:
    """Write aside, sync, rename: a half-written manifest is never visible, and the last of two writers wins."""
    import pyarrow.parquet as pq

    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(aside, "xb") as file:
                pq.write_table(table, file, compression="zstd", row_group_size=65_536)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, target)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise SourceError(f"manifest {target} cannot be written: {error.strerror or error}") from error


# ---------------------------------------------------------------------------------------------------- the figures


def _measure_all(
    source: Source,
    records: Sequence[Record],
    previous: pa.Table | None,
    max_source_pixels: int,
    workers: int | None,
    progress: bool,
) -> pa.Table:
    """A row for every record, in order, with everything but group and split; unchanged rows come from `previous`."""
    import pyarrow as pa

    known = _Known(previous)
    threads = workers or min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
    chunks = [records[i : i + _CHUNK] for i in range(0, len(records), _CHUNK)]
    batches: list[pa.RecordBatch] = []
    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(threads, "ssl4rl-index") as pool, _Progress(len(records), progress) as bar:
        # A bounded number of chunks is under way, and they are taken in order: memory and bytes stay the same.
        waiting: deque[Future[list[dict[str, Any]]]] = deque()
        pending = iter(chunks)
        try:
            while True:
                while len(waiting) < 2 * threads and (chunk := next(pending, None)) is not None:
                    waiting.append(pool.submit(_measure_chunk, source, chunk, known, max_source_pixels))
                if not waiting:
                    break
                done = waiting.popleft().result()
                bar.advance(len(done))
                rows += done
                if len(rows) >= _BLOCK:
                    batches.append(pa.RecordBatch.from_pylist(rows, _schema()))
                    rows = []
        finally:
            for future in waiting:
                future.cancel()
    batches.append(pa.RecordBatch.from_pylist(rows, _schema()))
    table = pa.Table.from_batches(batches).combine_chunks()
    refs = Counter(table["ref"].to_pylist())
    if len(refs) < len(table):
        raise SourceError(f"source {source.name!r} lists {refs.most_common(1)[0][0]!r} more than once; refs are unique")
    return table


class _Known:
    """Rows of an older manifest, by ref."""

    def __init__(self, table: pa.Table | None) -> None:
        self._table = table
        self._row = {ref: i for i, ref in enumerate(table["ref"].to_pylist())} if table is not None else {}

    def find(self, record: Record, stamp: tuple[int, int]) -> dict[str, Any] | None:
        """The old row without group and split, if it still holds."""
        number = self._row.get(record.ref)
        if number is None or self._table is None:
            return None
        row: dict[str, Any] = self._table.slice(number, 1).to_pylist()[0]
        box = None if record.box is None else list(record.box)
        if (row["bytes"], row["mtime_ns"], row["box"]) != (*stamp, box):
            return None
        if row["reason"] in _UNSTABLE:
            if row["reason"] != "duplicate_of_validation":
                return None
            row |= {"reason": None, "detail": None}
        return row | {"group": None, "split": None}


def _measure_chunk(
    source: Source, records: Sequence[Record], known: _Known, max_source_pixels: int
) -> list[dict[str, Any]]:
    rows = []
    decoded = _Decoder(source, max_source_pixels)
    for record in records:
        row: dict[str, Any] = {"ref": record.ref, "box": None if record.box is None else list(record.box)}
        try:
            stamp = source.stamp(record.ref)
            row["bytes"], row["mtime_ns"] = stamp
            row = known.find(record, stamp) or _measure(source, record, row, decoded)
        except ImageError as error:
            # File names that are not UTF-8 may be part of the text; parquet takes UTF-8 only.
            detail = error.detail[:500].encode("utf-8", "backslashreplace").decode()
            row |= {"reason": error.reason, "detail": detail}
        rows.append(row)
    return rows


class _Decoder:
    """Decodes, and remembers the last picture: crops of one picture come one after another."""

    def __init__(self, source: Source, max_source_pixels: int) -> None:
        self.source = source
        self.max_source_pixels = max_source_pixels
        self._last: tuple[str, Any] = ("", None)

    def __call__(self, ref: str, sha256: str, data: bytes) -> Any:
        if self._last[0] != sha256:
            self._last = sha256, self.source.inspect(ref, data, self.max_source_pixels)
        return self._last[1]


def _measure(source: Source, record: Record, row: dict[str, Any], decoded: _Decoder) -> dict[str, Any]:
    """Fill in `row`. Raises ImageError, after what was found out by then is in `row`."""
    import imagehash

    if (
        source.kind == "image" and row["bytes"] > 8 * decoded.max_source_pixels + 2**20
    ):  # more than 16 bits in four channels need: not read at all
        raise ImageError("too_large", f"{row['bytes']} bytes")
    data = source.read(record.ref)
    row["sha256"] = hashlib.sha256(data).hexdigest()
    info, image = decoded(record.ref, row["sha256"], data)
    box = _checked(record.box, image)
    width, height = box[2] - box[0], box[3] - box[1]
    row |= {"width": width, "height": height, "mode": info.mode, "exif_orientation": info.orientation}
    if min(width, height) < MIN_SIDE:
        raise ImageError("too_small", f"{width} x {height}, shorter side below {MIN_SIDE} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError("aspect", f"{width} x {height}, more than {MAX_ASPECT} to 1")
    small = image.reduce(max(1, math.isqrt(width * height // FIGURE_PIXELS)), box=box)
    row |= {"phash": str(imagehash.phash(small)), "entropy": entropy(small), "contrast": contrast(small)}
    if row["contrast"] < BLANK_CONTRAST:
        raise ImageError("blank", f"contrast {row['contrast']:.4f} is below {BLANK_CONTRAST}")
    return row


def _checked(box: Box | None, image: Image.Image) -> Box:
    """The box, or that of the whole picture. Raises ImageError if it does not lie inside."""
    left, upper, right, lower = box or (0, 0, *image.size)
    if not (0 <= left < right <= image.width and 0 <= upper < lower <= image.height):
        raise ImageError("bad_box", f"box {box} does not lie inside of {image.width} x {image.height}")
    return left, upper, right, lower


class _Progress:
    """A Rich progress bar on stderr that appears after a second, or nothing."""

    def __init__(self, total: int, wanted: bool) -> None:
        self._total, self._wanted = total, wanted
        self._done = 0
        self._start = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int) -> None:
        self._done += count
        if self._bar is None:
            if not self._wanted or time.monotonic() - self._start < 1:
                return
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("indexing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._bar.start()
            self._bar.add_task("indexing", total=self._total)
        self._bar.update(self._bar.task_ids[0], completed=self._done)


# ------------------------------------------------------------------------------------------- groups and splits


def _assign(table: pa.Table, records: Sequence[Record], seed: int, val_fraction: float) -> pa.Table:
    """Fill in group and split of the usable rows, and reject the training copies of validation pictures."""
    reasons, details = table["reason"].to_pylist(), table["detail"].to_pylist()
    hashes = table["sha256"].to_pylist()
    phashes = table["phash"].to_pylist()
    good = [i for i, reason in enumerate(reasons) if reason is None]
    merged = _UnionFind(len(records))
    _unite_equal(merged, ((hashes[i], i) for i in good))
    _unite_equal(merged, ((record.group, i) for i in good if (record := records[i]).group is not None))
    whole = [i for i in good if records[i].box is None]
    for a, b in near_duplicates(np.array([int(phashes[i], 16) for i in whole], dtype=np.uint64)):
        merged.unite(whole[a], whole[b])
    members: dict[int, list[int]] = defaultdict(list)
    for i in good:
        members[merged.find(i)].append(i)
    groups: list[str | None] = [None] * len(records)
    splits: list[str | None] = [None] * len(records)
    sides = {name: _side(name) for name in {record.split for record in records} if name is not None}
    for rows in members.values():
        key = min(hashes[i] for i in rows)
        stated = {i: sides[name] for i in rows if (name := records[i].split) is not None}
        if stated:
            split = "val" if "val" in stated.values() else "train"
        else:
            split = "val" if unit_for(seed, "split", key) < val_fraction else "train"
        for i in rows:
            groups[i] = key[:16]
            if split == "val" and stated.get(i) == "train":
                other = next(records[j].ref for j in rows if stated.get(j) == "val")
                reasons[i], details[i] = "duplicate_of_validation", f"shows the same as {other}"
            else:
                splits[i] = split
    for name, values in (("group", groups), ("split", splits), ("reason", reasons), ("detail", details)):
        table = _with_column(table, name, values)
    return table


def _with_column(table: pa.Table, name: str, values: Sequence[str | None]) -> pa.Table:
    import pyarrow as pa

    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), pa.array(values, pa.string()))


def _side(split: str) -> str:
    """`train` or `val` for a source's name of a split. Raises SourceError."""
    name = split.lower()
    if name.startswith("train"):
        return "train"
    if name.startswith(("val", "dev", "test", "eval", "heldout", "held_out", "minival")):
        return "val"
    raise SourceError(
        f"split {split!r} is neither training (train...) nor validation (val..., dev..., test..., eval...); "
        "rename it in the source, or tell the source not to use its splits (leave split_column away for tsv)"
    )


class _UnionFind:
    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def unite(self, i: int, j: int) -> None:
        a, b = self.find(i), self.find(j)
        # The smaller number is the root, so that the result does not depend on the order of the calls.
        self._parent[max(a, b)] = min(a, b)


def _unite_equal(merged: _UnionFind, pairs: Iterable[tuple[str | None, int]]) -> None:
    first: dict[str | None, int] = {}
    for key, i in pairs:
        merged.unite(first.setdefault(key, i), i)


def near_duplicates(hashes: np.ndarray[Any, Any], bits: int = NEAR_DUPLICATE_BITS) -> Iterator[tuple[int, int]]:
    """Pairs of positions whose 64-bit hashes differ in at most `bits` bits, enough of them to connect all such pairs.

    Banding instead of all pairs: the 64 bits are cut into `bits + 2` bands. Two hashes that differ in at most `bits`
    bits agree in at least two whole bands, so for every two bands only hashes that agree in both are compared.

    Args:
        hashes: uint64 array of shape (n,).
        bits: largest Hamming distance, 0 to 62.
    """
    unique, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    for i, u in enumerate(inverse.tolist()):
        if first[u] != i:
            yield int(first[u]), i
    edges = np.linspace(0, 64, bits + 3).astype(int)
    masks = [((1 << int(high)) - 1) ^ ((1 << int(low)) - 1) for low, high in pairwise(edges)]
    for one, other in combinations(masks, 2):
        key = unique & np.uint64(one | other)
        order = np.argsort(key, kind="stable")
        key, value, step = key[order], unique[order], 1
        # Neighbours in sorted order at growing distance, as long as any two of them still share the key.
        left = np.flatnonzero(key[1:] == key[:-1])
        while len(left):
            near = left[np.bitwise_count(value[left] ^ value[left + step]) <= bits]
            for i in near.tolist():
                yield int(first[order[i]]), int(first[order[i + step]])
            step += 1
            left = left[left + step < len(key)]
            left = left[key[left] == key[left + step]]
