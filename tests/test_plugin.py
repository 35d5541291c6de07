"""The entry point that verl imports: what it registers, that it never raises, and what it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
import warnings
from importlib.metadata import entry_points

import pytest

import ssl4rl_plugin.plugin as plugin
from ssl4rl_plugin.training.verl.search_path import RecipeSearchPath


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "", "HOME": "/tmp", **environment},
        capture_output=True,
        text=True,
        timeout=180,
    )


class FakeSearchPath:
    def __init__(self):
        self.entries: list[tuple[str, str]] = []

    def append(self, provider: str, path: str) -> None:
        self.entries.append((provider, path))


def test_entry_points_name_what_exists():
    (entry,) = entry_points(group="verl.plugins", name="ssl4rl")
    assert entry.load() is plugin
    for entry in entry_points(group="torch.backends", name="ssl4rl_torchvision_ops"):
        entry.load()()


@pytest.mark.parametrize(
    "order",
    [
        "import verl, hydra",
        "import hydra, verl",
        "import verl, importlib.util; importlib.util.find_spec('hydra')",  # looked for, but not imported yet
    ],
)
def test_importing_verl_registers_the_search_path_in_hydra(order):
    code = (
        f"import sys; {order}; loaded_hydra = 'hydra' in sys.modules"
        + """
assert not any(type(finder).__name__ == "_AfterHydra" for finder in sys.meta_path) == loaded_hydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
names = [found.__name__ for found in Plugins.instance().discover(SearchPathPlugin)]
assert names.count("RecipeSearchPath") == 1, names
from hydra import compose, initialize_config_module
with initialize_config_module("verl.trainer.config", version_base=None):
    config = compose("ppo_trainer", return_hydra_config=True)
sources = [(source.provider, source.path) for source in config.hydra.runtime.config_sources]
assert sources[-3:-1] == [("ssl4rl", "ssl4rl_plugin.recipes"), ("schema", "paper_grid")], sources
print("found")
"""
    )
    done = run_python(code)
    assert done.stdout.strip().endswith("found"), done.stderr[-3000:]


def test_search_path_names_the_recipes():
    search_path = FakeSearchPath()
    RecipeSearchPath().manipulate_search_path(search_path)
    assert search_path.entries == [("ssl4rl", "pkg://ssl4rl_plugin.recipes"), ("schema", "ssl4rl://paper_grid")]


def test_a_failure_while_the_search_path_is_built_warns():
    with pytest.warns(RuntimeWarning, match="search path"):
        RecipeSearchPath().manipulate_search_path(None)


@pytest.mark.parametrize("step", ["_register_recipes", "_register_cpu_platform"])
def test_a_failing_registration_warns_and_lets_the_other_go_on(monkeypatch, step):
    """Hydra is loaded here, so that both are registered at once."""
    ran = []

    def fail():
        raise ImportError("a broken dependency")

    for name in ("_register_recipes", "_register_cpu_platform"):
        monkeypatch.setattr(plugin, name, fail if name == step else lambda: ran.append(True))
    with pytest.warns(RuntimeWarning) as caught:
        plugin.register()
    assert len(caught) == 1 and ran == [True]
    message = str(caught[0].message)
    assert "a broken dependency" in message and "VERL_USE_EXTERNAL_PLUGINS=none" in message


def test_verl_itself_survives_a_broken_plugin_and_the_user_is_warned():
    code = """
import sys
sys.modules["ssl4rl_plugin.cpu.platform"] = None  # importing it fails
import verl
print("verl", verl.__version__)
"""
    done = run_python(code, VERL_PLATFORM="cpu")
    assert done.stdout.startswith("verl"), done.stderr[-3000:]
    assert "ssl4rl-plugin could not register the CPU platform" in done.stderr


def test_hydra_survives_a_broken_search_path_plugin_and_the_user_is_warned():
    code = """
import sys
sys.modules["ssl4rl_plugin.training.verl.search_path"] = None  # importing it fails
import verl, hydra
print("hydra", hydra.__version__)
"""
    done = run_python(code)
    assert done.stdout.startswith("hydra"), done.stderr[-3000:]
    assert "ssl4rl-plugin could not register its recipes with Hydra" in done.stderr


def test_registering_again_changes_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plugin.register()


def test_plugin_imports_little_and_fast():
    """With a generous bound. tests/bench/import_time.py measures the claim itself: 50 ms on `import verl`."""
    code = """
import gc, os, sys, time
os.environ["VERL_USE_EXTERNAL_PLUGINS"] = "none"
import verl
before = set(sys.modules)
gc.disable()  # collecting what verl has loaded takes longer than the import
start = time.process_time()  # of the processor: other programs do not count
import ssl4rl_plugin.plugin
seconds = time.process_time() - start
print((seconds, sorted({name.split(".")[0] for name in set(sys.modules) - before})))
"""
    done = run_python(code)
    seconds, packages = ast.literal_eval(done.stdout.strip().splitlines()[-1])
    assert set(packages) <= {"ssl4rl_plugin", "resource"}
    assert seconds < 0.150
