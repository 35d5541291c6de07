"""Endings of file names: which are pictures, and what to do with kinds of files that a source does not read."""

from __future__ import annotations

import re
from collections.abc import Mapping

IMAGES = (b".jpg", b".jpeg", b".jpe", b".jfif", b".png", b".webp", b".gif", b".bmp", b".tif", b".tiff", b".ppm", b".pgm",
          b".pbm", b".pnm", b".apng", b".avif", b".avifs", b".heic", b".heif", b".hif")  # fmt: skip
"""Endings of pictures, in lower case."""

VIDEOS = (b".mp4", b".m4v", b".mov", b".avi", b".mkv", b".webm", b".mpg", b".mpeg", b".ogv", b".flv",
          b".wmv", b".3gp")  # fmt: skip
"""Endings of videos, in lower case."""

_RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw", ".pef", ".srw")
_PACKED_TAR = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")

REMEDIES: dict[str, str] = {
    **dict.fromkeys((ending.decode() for ending in VIDEOS), "source video"),
    **dict.fromkeys((".ts", ".mts", ".m2ts"), "convert it to MP4 for source video"),
    **dict.fromkeys(_RAW, "a camera's raw data: convert it to JPEG or PNG"),
    **dict.fromkeys(_PACKED_TAR, "unpack it, or repack it as a plain .tar for source webdataset"),
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"), "unpack it"),
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".jxl", ".psd", ".psb", ".svg", ".svgz", ".eps", ".ai", ".ico", ".icns",
                     ".tga", ".dds", ".xcf", ".bpg", ".pcx", ".wmf", ".emf", ".hdr", ".dcm", ".nii"),
                    "convert it to PNG or JPEG"),
    ".exr": "convert it to NPY (source rgbd) or PNG",
    ".pdf": "convert its pages to PNG",
    ".zip": "source zip",
    ".tar": "source webdataset",
    ".parquet": "source parquet",
    ".arrow": "source hf",
    ".tfrecord": "convert it to WebDataset or parquet",
    ".lmdb": "convert it to WebDataset or parquet",
    ".mdb": "convert it to WebDataset or parquet",
    ".h5": "convert it to files or parquet",
    ".hdf5": "convert it to files or parquet",
}  # fmt: skip
"""Endings that may hold pictures or videos that the user counts on -> what to do."""

_BESIDE = (".csv", ".tsv", ".json", ".jsonl", ".txt", ".lst")
"""Lists, which source list, tsv or json reads. They also lie beside pictures as captions and labels."""

_NO_PHOTOGRAPHS = """
seg segs segm segmentation semantic semseg sem instance instances inst panoptic parsing mask masks msk matte matting
alpha trimap depth depths disp disparity disparities normal normals flow edge edges canny hed lineart scribble sketch
contour contours boundary boundaries label labels labelmap labelids annotation annotations annot anno ann gt
groundtruth target targets pred prediction predictions heatmap heatmaps saliency sal attention openpose keypoints
densepose skeleton albedo shading specular roughness metallic reflectance lidar thermal infrared ir nir confidence
conf uncertainty overlay vis visualization viz cond conditioning palette bbox bboxes boxes sam
"""
NO_PHOTOGRAPHS = frozenset(_NO_PHOTOGRAPHS.split())
"""Words in the names of pictures that show no photograph: masks, labels, depth maps, drawings made of another picture."""

_SHOWN = 8


def ending_of(name: str) -> str:
    """The ending of a file name in lower case, with its dot: `.tar.gz` and its like whole, empty without one."""
    name = name.lower()
    packed = next((ending for ending in _PACKED_TAR if name.endswith(ending)), None)
    stem, dot, last = name.rpartition(".")
    return packed or (f".{last}" if dot and stem else "")


def is_photograph(name: str) -> bool:
    """Whether no word of a field or column (`seg.png`, `depth_map`, `left.jpg`) stands for a mask, a depth map, ..."""
    inner = [part for part in name.lower().split(".") if f".{part}".encode() not in IMAGES]
    words = {word.rstrip("0123456789") for part in inner for word in [part, *re.split(r"[_\-\s]+", part)]}
    return not words & NO_PHOTOGRAPHS


def other_files(counts: Mapping[str, int], every: bool = False) -> str:
    """`12 files with other endings: 10 .psd (convert it to PNG or JPEG), 2 .mov (source video)`; empty if there are none.

    Args:
        counts: number of files by `ending_of`.
        every: also if there are only files that usually lie beside pictures (captions, labels).
    """
    wanted = {ending: count for ending, count in counts.items() if ending in REMEDIES}
    if not counts or not (wanted or every):
        return ""
    rest = {ending: count for ending, count in counts.items() if ending not in wanted}
    listed = [f"{count:,} {ending} ({REMEDIES[ending]})" for ending, count in _largest(wanted)]
    for ending, count in _largest(rest)[:_SHOWN]:
        reader = {".json": "json", ".jsonl": "json", ".tsv": "tsv"}.get(ending, "list")
        hint = f" (source {reader}, if it lists images)" if every and ending in _BESIDE else ""
        listed.append(f"{count:,} {ending or 'without an ending'}{hint}")
    left = sum(count for _, count in _largest(rest)[_SHOWN:])
    total = sum(counts.values())
    files = "1 file with another ending" if total == 1 else f"{total:,} files with other endings"
    return f"{files}: {', '.join(listed)}" + (f", {left:,} others" if left else "")


def _largest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
