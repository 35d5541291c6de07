"""Names are found by entry point, lazily, and what is broken says where it came from."""

import importlib
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from ssl4rl_plugin.core.registry import Registry, RegistryError
from ssl4rl_plugin.data.source import Source, SourceError, load_source
from ssl4rl_plugin.data.source import registry as sources


class Thing:
    pass


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a package with an entry point on the path: install(package, entry, module source)."""

    def add(package: str, entry: str, code: str) -> None:
        site = tmp_path / package
        info = site / f"{package}-1.5.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[ssl4rl.things]\n{entry}\n")
        (site / f"{package}.py").write_text(code)
        monkeypatch.syspath_prepend(str(site))
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, package, raising=False)

    return add


def things(base: type | None = None) -> Registry:
    return Registry("ssl4rl.things", "thing", base=base)


def test_found_lazily(install) -> None:
    install("pack_good", "kettle = pack_good:Kettle", "class Kettle: pass\n")
    registry = things()
    assert registry.names() == ["kettle"] and "pack_good" not in sys.modules
    assert registry.get("kettle").__name__ == "Kettle"
    assert registry.get("kettle") is registry.get("kettle")


def test_a_broken_entry_names_its_package_and_spares_the_others(install) -> None:
    install("pack_good", "kettle = pack_good:Kettle", "class Kettle: pass\n")
    install("pack_broken", "toaster = pack_broken:Toaster", "import no_such_module_anywhere\n")
    install("pack_gone", "lamp = pack_gone:Lamp", "")
    registry = things()
    with pytest.raises(RegistryError, match=r"'toaster'.*pack_broken:Toaster' of pack_broken 1\.5.*no_such_module"):
        registry.get("toaster")
    with pytest.raises(RegistryError, match="pack_gone"):
        registry.get("lamp")
    assert registry.get("kettle")


def test_unknown_names_get_a_hint(install) -> None:
    with pytest.raises(RegistryError, match="is ssl4rl-plugin installed"):
        things().get("kettle")
    install("pack_good", "kettle = pack_good:Kettle", "class Kettle: pass\n")
    with pytest.raises(RegistryError, match=r"unknown thing 'ketle' \(did you mean 'kettle'\?\); known: kettle"):
        things().get("ketle")


def test_a_name_offered_twice_names_both(install) -> None:
    install("pack_one", "kettle = pack_one:Kettle", "class Kettle: pass\n")
    install("pack_two", "kettle = pack_two:Kettle", "class Kettle: pass\n")
    with pytest.raises(RegistryError, match=r"offered by .*pack_(one|two) 1\.5 and .*pack_(one|two) 1\.5"):
        things().get("kettle")


def test_one_package_seen_twice_is_no_clash(install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install("pack_good", "kettle = pack_good:Kettle", "class Kettle: pass\n")
    info = tmp_path / "again" / "pack_good.egg-info"
    info.mkdir(parents=True)
    (info / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: pack-good-again\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text("[ssl4rl.things]\nkettle = pack_good:Kettle\n")
    monkeypatch.syspath_prepend(str(tmp_path / "again"))
    assert things().get("kettle").__name__ == "Kettle"


def test_the_kind_is_checked(install) -> None:
    install("pack_good", "kettle = pack_good:Kettle", "class Kettle: pass\n")
    with pytest.raises(RegistryError, match=r"'kettle' from .*pack_good 1\.5.*not a .*Thing"):
        things(Thing).get("kettle")


def test_register(install) -> None:
    install("pack_good", "kettle = pack_good:Kettle", "class Kettle: pass\n")
    registry = things(Thing)
    thing = Thing()
    registry.register("cup", thing)
    registry.register("cup", thing)
    assert registry.get("cup") is thing and registry.names() == ["cup", "kettle"]
    with pytest.raises(RegistryError, match="exists already"):
        registry.register("cup", Thing())
    with pytest.raises(RegistryError, match="exists already"):
        registry.register("kettle", thing)
    with pytest.raises(RegistryError, match="not a"):
        registry.register("plate", object())


def test_our_own_sources_are_entry_points() -> None:
    try:
        distribution("ssl4rl-plugin")
    except PackageNotFoundError:
        pytest.skip("ssl4rl-plugin is not installed here")
    assert {"folder", "tsv", "sample_photos"} <= set(sources.names())
    for name in sources.names():
        kind = sources.get(name)
        assert issubclass(kind, Source) and kind.name == name
        assert kind.summary and kind.schema and kind.licence and kind.where
    with pytest.raises(RegistryError, match="did you mean 'folder'"):
        load_source("foldr", "/")
    with pytest.raises(SourceError, match="no option 'colour'; its options are: crops, seed, min_side"):
        load_source("sample_photos", colour="red")
