"""What README and docs/ show is true: commands parse, keys and recipes exist, tables and snippets match the code."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import random
import re
import shlex
import zipfile
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml
from pictures import photo

from ssl4rl_plugin.cli import app
from ssl4rl_plugin.cli.catalogue import recipe_entries
from ssl4rl_plugin.core import Item, Rejection, Sample
from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.data.images import open_rgb
from ssl4rl_plugin.tasks import get_task, registry
from ssl4rl_plugin.training.verl.search_path import TABLE, RecipeTable

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
README = TEXTS["README.md"]
OURS = [name for name in registry.names() if type(get_task(name)).__module__.startswith("ssl4rl_plugin.")]
"""The tasks of this package; the machine that runs the tests may have others installed."""


def _commands() -> list[tuple[str, str]]:
    """(page, command) of every line in a bash block, continued lines joined."""
    found = []
    for page, text in TEXTS.items():
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
            found += [(page, line.strip()) for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    return [(page, line) for page, line in found if not line.startswith("#")]


COMMANDS = _commands()


def _words(command: str) -> list[str]:
    """The words of a command without variables set before it and without the comment behind it."""
    words = shlex.split(command, comments=True)
    return list(itertools.dropwhile(lambda word: re.fullmatch(r"[A-Z_]+=\S*", word), words))


def _schema() -> dict[str, Any]:
    """The `ssl4rl:` section of the base recipe, every key dotted."""
    section = yaml.safe_load((ROOT / "recipes" / "ssl4rl" / "base.yaml").read_text())["ssl4rl"]

    def walk(node: dict[str, Any], prefix: str) -> dict[str, Any]:
        keys: dict[str, Any] = {}
        for name, value in node.items():
            keys |= (
                walk(value, f"{prefix}.{name}") if isinstance(value, dict) and value else {f"{prefix}.{name}": value}
            )
        return keys

    return walk(section, "ssl4rl")


def _exists(name: str) -> bool:
    """Whether `name` is a module, or something in one."""
    parent, _, last = name.rpartition(".")
    try:
        if importlib.util.find_spec(name):
            return True
    except ModuleNotFoundError:  # the parent is a module and no package
        pass
    return hasattr(importlib.import_module(parent), last)


def _module(path: Path) -> ModuleType:
    """An example, imported from its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------------------------- commands


def test_there_is_something_to_check() -> None:
    assert len(PAGES) > 15 and len(COMMANDS) > 25


@pytest.mark.parametrize(("page", "command"), [c for c in COMMANDS if _words(c[1])[:1] == ["ssl4rl"]])
def test_our_commands_parse(page: str, command: str) -> None:
    group = typer.main.get_command(app)
    context = group.make_context("ssl4rl", _words(command)[1:], resilient_parsing=False)
    name, sub, arguments = group.resolve_command(context, [*context._protected_args, *context.args])
    sub.make_context(name, arguments, parent=context)  # raises on an unknown option or a wrong value


def test_commands_named_in_the_text_exist() -> None:
    known = set(typer.main.get_command(app).commands)
    for page, text in TEXTS.items():
        named = set(re.findall(r"`ssl4rl ([a-z]+)", text))
        assert named <= known, f"{page}: {named - known}"
    listed = set(re.findall(r"^\| `ssl4rl ([a-z]+)`", TEXTS["docs/cli.md"], re.MULTILINE))
    assert listed == known, "docs/cli.md lists every command"


@pytest.mark.parametrize(
    ("page", "command"), [c for c in COMMANDS if "verl.trainer.main_ppo" in c[1] and "..." not in c[1]]
)
def test_training_commands_name_what_exists(page: str, command: str) -> None:
    words = _words(command)
    words = words[words.index("python") :]  # it may be submitted to a cluster
    assert words[:3] == ["python", "-m", "verl.trainer.main_ppo"] and "+plugin=ssl4rl" in words
    folders = [word.partition("=")[2] for word in words if word.startswith("--config-dir=")]
    known = {entry["name"] for entry in recipe_entries()}
    known |= {file.stem for folder in folders for file in (ROOT / folder / "recipe").glob("*.yaml")}
    chosen = [word.partition("=")[2] for word in words if word.startswith("recipe=")]
    assert len(chosen) == 1 and chosen[0] in known


def test_recipes_named_in_the_text_exist() -> None:
    known = {entry["name"] for entry in recipe_entries()} | {"holiday"}
    for page, text in TEXTS.items():
        named = set(re.findall(r"\brecipe=([a-z0-9_]+)", text))
        assert named <= known, f"{page}: {named - known}"
    page = TEXTS["docs/recipes.md"]
    assert _module(ROOT / "docs" / "make_recipes.py").with_table(page) == page, "run make gallery"


def test_groups_named_in_the_text_exist() -> None:
    files = {f"ssl4rl/{f.parent.name}={f.stem}" for f in (ROOT / "recipes" / "ssl4rl").glob("*/*.yaml")}
    table = RecipeTable("ssl4rl", TABLE)
    made = ("ssl4rl/source", "ssl4rl/benchmark")  # an option for each source
    files |= {f"{group}={name}" for group in made for name in table.list(group, None)}
    for page, text in TEXTS.items():
        named = set(re.findall(r"\bssl4rl/[a-z]+=[a-z0-9_]+", text))
        assert named <= files, f"{page}: {named - files}"
    rows = dict(re.findall(r"^\| `(ssl4rl/[a-z]+)` \| (.+?) \| ", TEXTS["docs/recipes.md"], re.MULTILINE))
    for group, cell in rows.items():
        if group not in made:
            assert {f"{group}={name}" for name in re.findall(r"`(\w+)`", cell)} == {
                name for name in files if name.startswith(f"{group}=")
            }, group


def test_make_targets_and_modules_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page, text in TEXTS.items():
        named = set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", text, re.MULTILINE))
        assert named <= targets, f"{page}: {named - targets}"
        for module in set(re.findall(r"\bssl4rl_plugin(?:\.[a-z_0-9]+)+(?=\s|`|$)", text, re.MULTILINE)):
            assert _exists(module), f"{page}: {module}"


# ------------------------------------------------------------------------------------------------- settings


def test_every_key_shown_is_declared() -> None:
    schema = set(_schema())
    sections = {"ssl4rl.source", "ssl4rl.options"}
    groups = {"ssl4rl.tasks", "ssl4rl.sources", "ssl4rl.indexers", "ssl4rl.policies"}  # entry points
    level_fields = {f.name for name in OURS for f in fields(get_task(name).level())}
    for page, text in TEXTS.items():
        for key in set(re.findall(r"(?<![\w/.-])ssl4rl\.[a-z_]+(?:\.[a-z_]+)*", text)):
            if key in schema | sections | groups or key.startswith("ssl4rl.source.options."):
                continue
            parent, _, leaf = key.rpartition(".")
            assert parent == "ssl4rl.options" and leaf in level_fields, f"{page}: {key}"


def test_the_table_of_settings_is_complete_and_states_the_defaults() -> None:
    rows = dict(re.findall(r"^\| `(ssl4rl\.[a-z_.]+)` \| (.+?) \|", TEXTS["docs/recipes.md"], re.MULTILINE))
    schema = _schema()
    assert set(rows) == set(schema)
    for key, value in schema.items():
        if value == "???":
            assert rows[key] == "must be given"
        else:
            assert yaml.safe_load(rows[key].strip("`")) == value, key


def test_cpu_page_explains_every_setting() -> None:
    tree = yaml.safe_load((ROOT / "recipes" / "ssl4rl" / "hardware" / "cpu.yaml").read_text())
    text = TEXTS["docs/cpu.md"]

    def leaves(node: Any) -> list[str]:
        return [leaf for key, value in node.items() for leaf in (leaves(value) if isinstance(value, dict) else [key])]

    missing = [leaf for leaf in leaves(tree) if not re.search(rf"`[\w.]*\b{leaf}`", text)]
    assert not missing


# --------------------------------------------------------------------------------------------- tables, snippets


def test_there_are_as_many_tasks_as_promised() -> None:
    kinds = [get_task(name).kind for name in OURS]
    assert kinds.count("image") + kinds.count("rgbd") >= 20 and kinds.count("video") >= 5
    assert kinds.count("graph") >= 10
    assert all(len(get_task(name).levels) >= 3 for name in OURS)


def test_task_tables_match_the_registry() -> None:
    gallery = _module(ROOT / "docs" / "make_gallery.py")
    for path, link in gallery.TABLES.items():
        text = path.read_text(encoding="utf-8")
        assert gallery.with_table(text, link) == text, f"{path.name}: run make gallery"


def test_gallery_shows_every_task_and_level() -> None:
    text = TEXTS["docs/gallery.md"]
    pictures = {file.name for file in (ROOT / "docs" / "assets" / "gallery").iterdir()}
    drawn = [name for name in OURS if get_task(name).kind != "graph"]
    wanted = {f"{name}-{level}.webp" for name in drawn for level in get_task(name).levels}
    assert pictures == wanted
    gallery = _module(ROOT / "docs" / "make_gallery.py")
    for name in OURS:
        assert gallery.story(get_task(name)) in text, f"{name}: run make gallery"
        for level in get_task(name).levels:
            assert f"assets/gallery/{name}-{level}.webp" in text or (
                name not in drawn and f"#### {name}:{level}" in text
            )
    assert sum((ROOT / "docs" / "assets" / "gallery" / name).stat().st_size for name in pictures) < 6_000_000


def test_a_tasks_file_names_its_refusals() -> None:
    for name in OURS:
        module = inspect.getmodule(type(get_task(name)))
        for reason in set(re.findall(r'Rejection\(\s*"(\w+)"', inspect.getsource(module))):
            assert f"`{reason}`" in (module.__doc__ or ""), f"{name}: {reason}"


def test_readme_shows_the_example_task_as_it_is() -> None:
    assert (EXAMPLES / "mirror_task" / "mirror_task.py").read_text() in README
    line = 'mirror = "mirror_task:Mirror"'
    assert line in README and line in (EXAMPLES / "mirror_task" / "pyproject.toml").read_text()


def test_snippets_links_and_pictures_exist() -> None:
    for page, text in TEXTS.items():
        for name in re.findall(r'--8<-- "(.+?)"', text):
            assert (ROOT / name).is_file(), f"{page}: {name}"
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose):
            assert "://" in link or ((ROOT / page).parent / link).exists(), f"{page}: {link}"
    for file in (ROOT / "docs" / "assets").iterdir():
        assert file.stat().st_size < 300_000, f"{file.name} is too large for a repository"


def test_the_command_under_the_contact_sheet_made_it() -> None:
    sheets = _module(ROOT / "docs" / "make_pictures.py").SHEETS
    for page in ("README.md", "docs/index.md"):
        assert f"`ssl4rl preview {' '.join(sheets['samples'])} --out samples.png`" in TEXTS[page]


def test_nothing_of_one_machine_is_shown() -> None:
    for page, text in TEXTS.items():
        assert not re.search(r"/(?:home|root|work|tmp)/|localhost", text), page


# ------------------------------------------------------------------------------------------------- examples


def test_the_example_task_works() -> None:
    task = _module(EXAMPLES / "mirror_task" / "mirror_task.py").Mirror()
    assert task.name == "mirror" and task.default_level in task.levels
    for level in (task.level(name, side=84) for name in task.levels):
        truths = []
        for number in range(40):
            item = Item(f"item{number}", photo(number % 8, 160, 120))
            made, again = (task.generate(item, level, rng_for(0, number)) for _ in range(2))
            if isinstance(made, Rejection):
                assert made == again
                continue
            assert isinstance(again, Sample) and [i.tobytes() for i in made.images] == [
                i.tobytes() for i in again.images
            ]
            assert made.question.count("<image>") == len(made.images) and made.truth in made.question
            assert task.score(task.gold(made.truth, level), made.truth, level).value == 1.0
            truths.append(made.truth)
        assert len(set(truths)) == 4 and len(truths) > 20
    flat = Item("flat", photo(0, 160, 120).resize((1, 1)).resize((160, 120)))
    assert isinstance(task.generate(flat, task.level(), random.Random(0)), Rejection)


def test_the_example_source_works(tmp_path: Path) -> None:
    kind = _module(EXAMPLES / "zip_source" / "zip_source.py").ZipSource
    photo(1, 160, 120).save(tmp_path / "one.png")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(tmp_path / "one.png", "holiday/one.png")
        archive.writestr("notes.txt", "no image")
    source = kind(tmp_path / "photos.zip", folder="holiday/")
    assert [record.ref for record in source.records()] == ["holiday/one.png"]
    assert open_rgb(source.read("holiday/one.png")).size == (160, 120)
    assert source.stamp("holiday/one.png")[0] == (tmp_path / "one.png").stat().st_size
    with pytest.raises(ValueError, match="not a ZIP archive"):
        kind(tmp_path / "one.png")


def test_the_scored_answer_is_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    path = EXAMPLES / "score_an_answer.py"
    _module(path)
    assert capsys.readouterr().out.strip() == path.read_text().rpartition("# ")[2].strip()
