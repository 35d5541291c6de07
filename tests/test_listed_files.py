"""Lists of image files, as people have them: CSV with and without a header, one path a line, JSON. A list is read in the
only way it can be meant, or refused with both; each line is used, or counted by its reason.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import photo
from typer.testing import CliRunner

from ssl4rl_plugin.cli import app
from ssl4rl_plugin.data.choose_source import source_of
from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.index.indexer import build_manifest
from ssl4rl_plugin.data_builders.sources.jsonl import JsonSource
from ssl4rl_plugin.data_builders.sources.lists import ListSource


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("listed")
    for place in ("images", "sub dir"):
        (root / place).mkdir()
    for i in range(4):
        photo(i).save(root / f"images/{i}.jpg")
        photo(10 + i).save(root / f"sub dir/b {i}.png")
    return root


def refs(source: ListSource | JsonSource) -> list[str]:
    return [record.ref for record in source.records()]


TWO = ["images/0.jpg", "images/1.jpg"]
BLANKS = ["images/0.jpg", "sub dir/b 1.png"]

READ: dict[str, tuple[str, list[str]]] = {
    "header": ("path,label\nimages/0.jpg,cat\nimages/1.jpg,dog\n", TWO),
    "mark, CR LF, blanks, folder beside": ("\ufefffilename, label\r\n 0.jpg , 1\r\n1.jpg, 2\r\n\r\n", TWO),
    "no header": ("images/0.jpg,cat\nimages/1.jpg,dog\n", TWO),
    "no header, second column": ("0,images/0.jpg\n1,images/1.jpg\n", TWO),
    "semicolons, quotes, words in the header": (
        'id;Image Path;x\n1;images/0.jpg;3\n2;"sub dir/b 1.png";4\n', BLANKS,
    ),
    "a header that says nothing": ("kind,where it is\ncat,images/0.jpg\ndog,images/1.jpg\n", TWO),
    "one column": ("file\nimages/0.jpg\nimages/1.jpg\n", TWO),
    "one path a line": ("# mine\nimages/0.jpg\n\n./images/0.jpg\nsub dir/b 1.png\n", BLANKS),
    "a path and a label": ("images/0.jpg 0\nsub dir/b 1.png 3\n", BLANKS),
    "a path, a tab and a label": ("images/0.jpg\t0\nimages/1.jpg\t2\n", TWO),
    "Windows": ("images\\0.jpg\nimages\\1.jpg\n", TWO),
    "two pictures a line": ("image1,image2,question\nimages/0.jpg,images/1.jpg,same?\n", TWO),
    "a mask beside": ("image,mask\nimages/0.jpg,images/3.jpg\nimages/1.jpg,images/2.jpg\n", TWO),
    "a cell of two lines": ('image,caption\nimages/0.jpg,"a, b\n# c"\nimages/1.jpg,x\n', TWO),
    "an empty last column": ("path,label,\nimages/0.jpg,1,\nimages/1.jpg,2,\n", TWO),
    "the index of pandas": (",path,label\n0,images/0.jpg,1\n1,images/1.jpg,2\n", TWO),
    "bars": ("a|images/0.jpg\nb|images/1.jpg\n", TWO),
    "same file under two names": ("name,path\n0.jpg,images/0.jpg\n1.jpg,images/1.jpg\n", TWO),
}  # fmt: skip
"""Name -> content of the list, refs of its pictures."""


@pytest.mark.parametrize("name", READ)
def test_lists_are_read_as_meant(folder: Path, name: str) -> None:
    text, expected = READ[name]
    for ending in (".csv", ".txt"):
        (folder / f"list{ending}").write_bytes(text.encode())
        source = ListSource(folder / f"list{ending}")
        assert refs(source) == expected
        assert all(source.read(ref)[:2] in (b"\xff\xd8", b"\x89P") for ref in expected)
    (folder / "list.csv").write_bytes(text.removeprefix("\ufeff").encode("utf-16"))
    assert refs(ListSource(folder / "list.csv")) == expected
    assert source_of(folder / "list.csv") == source_of(folder / "list.txt") == "list"


REFUSED = {
    "two columns of pictures": (
        "left,right\nimages/0.jpg,images/1.jpg\n",
        "in the columns left, right: choose .*`columns`",
    ),
    "two delimiters": ("a.jpg;1,b.jpg\nc.jpg;1,d.jpg\n", "2 columns with ',' or 2 columns with ';': .*delimiter"),
    "an open quote": ('path,label\nimages/0.jpg,"cat\nimages/1.jpg,dog\n', "quote that does not close"),
    "an open quote below": ('path,label\nimages/0.jpg,1\nimages/1.jpg,"cat\nimages/2.jpg,dog\n', "never closed"),
    "text": ("hello\nworld\n", "does not look like a list of image files: its first line is 'hello'"),
    "edges of a graph": ("u,v\n1,2\n3,4\n", "--source graph"),
    "pictures in base64": ("index,image\n1," + "A" * 200_000 + "\n", r"base64 belong into a \.tsv file"),
    "short ones in base64": ("index,image\n1," + "A" * 5000 + "\n", "too long for a path, perhaps base64 1"),
    "nothing": ("\n\n", "is empty"),
    "only a header": ("path,label\n", "list"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_its_reason(folder: Path, name: str) -> None:
    text, message = REFUSED[name]
    (folder / "bad.csv").write_text(text)
    with pytest.raises(SourceError, match=message):
        refs(ListSource(folder / "bad.csv"))


def test_an_option_decides_where_a_list_has_two_readings(folder: Path) -> None:
    (folder / "pair.csv").write_text("left,right,part\nimages/0.jpg,images/1.jpg,val\n")
    source = ListSource(folder / "pair.csv", columns=["left", "right"], split_column="part")
    assert [(r.ref, r.split, r.group) for r in source.records()] == [(ref, "val", TWO[0]) for ref in TWO]
    (folder / "pair.csv").write_text("images/0.jpg,images/1.jpg\n")
    assert refs(ListSource(folder / "pair.csv", columns=2)) == TWO[1:]  # type: ignore[arg-type]  # as YAML reads it
    (folder / "pair.csv").write_text("a.jpg;1,b.jpg\nc.jpg;1,d.jpg\n")
    assert refs(ListSource(folder / "pair.csv", delimiter=",", columns="2")) == ["b.jpg", "d.jpg"]
    (folder / "pair.csv").write_text("images/0.jpg,images/1.jpg\n")
    for options, message in (
        ({"columns": "depth"}, "under depth; its keys are: 1, 2"),
        ({"columns": ["1", "x"]}, "no column 'x'"),
        ({"delimiter": "ab"}, "one character"),
    ):
        with pytest.raises(SourceError, match=message):
            ListSource(folder / "pair.csv", **options)


def test_every_line_is_used_or_counted(folder: Path) -> None:
    text = "path,label\nimages/0.jpg,cat\nimages/1.jpg\nimages/2.jpg,a,b\n,x\nimages/0.jpg,again\ngone.jpg,1\n"
    (folder / "counted.csv").write_text(text)
    source = ListSource(folder / "counted.csv")
    assert refs(source) == ["images/0.jpg", "gone.jpg"]
    (note,) = source.notes()
    assert "not 2 columns (line 3 first) 2" in note and "without an image 1" in note and "named again 1" in note
    with pytest.raises(ImageError, match="unreadable"):
        source.read("gone.jpg")


_name = st.text(st.characters(codec="utf-8", exclude_characters="/\0\r\n"), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(_name, st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)),
                  min_size=1, max_size=6),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    damage=st.lists(st.sampled_from(["short", "long", "comment", "blank"]), max_size=4),
)  # fmt: skip
def test_no_path_is_invented_and_none_is_lost(
    tmp_path: Path, rows: list[tuple[str, str]], delimiter: str, damage: list[str]
) -> None:
    """Whatever is written by the module `csv` is read back, and damaged lines are counted: used + refused = lines."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(["label", "image_path"])
    named = [f"{name.strip() or 'x'}.jpg" for name, _ in rows]
    for path, (_, label) in zip(named, rows, strict=True):
        writer.writerow([f"L{label}", path])
    bad = {"short": "only one\n", "long": delimiter.join("abcd") + "\n", "comment": "# x\n", "blank": " \n"}
    (tmp_path / "l.csv").write_text(
        out.getvalue() + "".join(bad[kind] for kind in damage), encoding="utf-8", newline=""
    )
    source = ListSource(tmp_path / "l.csv", columns="image_path", delimiter=delimiter)
    entries = list(source._entries())
    assert [entry["image_path"] for entry in entries] == [path.strip() for path in named]
    refused = sum(count for reason, count in source._left_out.items() if reason.startswith("not 2 columns"))
    # The constructor has read the lines once, so each refused one is counted twice before `records` begins anew.
    assert refused == 2 * sum(kind in ("short", "long") for kind in damage)


def test_paths_out_of_the_folder_need_root(tmp_path: Path) -> None:
    data, lists = tmp_path / "data/deep", tmp_path / "lists"
    data.mkdir(parents=True)
    lists.mkdir()
    for i in range(3):
        photo(i).save(data / f"{i}.jpg")
    (lists / "a.csv").write_text(f"path\n{data}/0.jpg\n../data/deep/1.jpg\nfile://{data}/2.jpg\n")
    (lists / "a.json").write_text(json.dumps([{"image": f"{data}/0.jpg"}, {"image": "../data/deep/1.jpg"}]))
    for kind, name in ((ListSource, "a.csv"), (JsonSource, "a.json")):
        source = kind(lists / name)
        for ref in refs(source):
            with pytest.raises(ImageError, match=rf"outside_root: .*give the option root={data}"):
                source.read(ref)
        with pytest.raises(SourceError, match=rf"none of its . images can be used .*root={data} allows"):
            build_manifest(source, tmp_path / "m.parquet")
        for root in (str(data), [str(tmp_path / "lists"), str(tmp_path / "data")]):
            allowed = kind(lists / name, root=root)
            assert all(allowed.read(ref)[:2] == b"\xff\xd8" for ref in refs(allowed))
        with pytest.raises(ImageError, match="outside_root"):
            kind(lists / name, root=str(lists)).read(refs(source)[0])
        with pytest.raises(SourceError, match=r"root=.* is not a folder"):
            kind(lists / name, root=str(tmp_path / "gone"))
    (lists / "relative.txt").write_text("0.jpg\n1.jpg\n")  # relative to the folder given as root
    source = ListSource(lists / "relative.txt", root=str(data))
    assert [source.read(ref)[:2] for ref in refs(source)] == [b"\xff\xd8"] * 2


def test_addresses_are_counted_and_not_fetched(folder: Path) -> None:
    (folder / "urls.csv").write_text("url,path\nhttp://127.0.0.1:9/a.jpg,\n")
    source = ListSource(folder / "urls.csv", columns=["url", "path"])
    with pytest.raises(ImageError, match=r"url: .*not downloaded"):
        source.read(refs(source)[0])


def test_questions_of_a_csv_file(folder: Path) -> None:
    (folder / "q.csv").write_text(
        "image,question,A,B,answer\nimages/0.jpg,what?,cat,dog,B\nimages/1.jpg,which?,x,y,A\n"
    )
    questions = list(ListSource(folder / "q.csv").questions())
    assert [(q.text, q.options, q.answer) for q in questions] == [
        ("what?", ("cat", "dog"), "B"),
        ("which?", ("x", "y"), "A"),
    ]


def test_the_command_reads_a_list(folder: Path, tmp_path: Path) -> None:
    (folder / "list.csv").write_text(READ["header"][0])
    out = tmp_path / "m.parquet"
    result = CliRunner().invoke(app, ["index", str(folder / "list.csv"), "--json", "--out", str(out)])
    assert result.exit_code == 0 and json.loads(result.stdout)["images"] == 2
    (folder / "d.xyz").write_text("?")
    result = CliRunner().invoke(app, ["index", str(folder / "d.xyz")])
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2 and "d.xyz: unknown kind of file; known: .csv " in said and " .zip" in said
