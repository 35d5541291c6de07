"""Self-supervised pretext tasks as verifiable rewards for reinforcement learning: a plugin for verl.

Keep this module light: verl loads it in every process (see `plugin`).
"""

import importlib
import sys
import types
import warnings
from importlib.machinery import ModuleSpec

__version__ = "0.2.0"

MOVED = {
    "rewards": "training.rewards",
    "settings": "training.settings",
    "preflight": "training.preflight",
    "dataset": "training.verl.dataset",
    "curriculum.sampler": "training.verl.sampler",
    "curriculum.rows": "training.curriculum_rows",
    "curriculum": "training.curriculum",
    "samples": "data.samples",
    "rows": "data.rows",
    "images": "data.images",
    "registry": "core.registry",
    "seeding": "core.seeding",
    "answers": "grading.formats",
    "runlog": "analysis.runlog",
    "data_builders.source": "data.source",
    "data_builders.manifest": "data.manifest",
    "data_builders.folder": "data_builders.sources.folder",
    "data_builders.sources.graph_file": "data_builders.sources.graphs.graph_file",
    "data_builders.sources.sample_graphs": "data_builders.sources.graphs.sample_graphs",
    "data_builders.sources.hf": "data_builders.sources.hub.hf",
    "graphs.graph": "core.graph",
    "graphs.source": "data.graphs",
}
"""Modules of version 0.1 that configs and other packages name, and where they are now. Importing the old name warns and
gives the new module."""


def moved_to(name: str) -> str | None:
    """The full new name of a module of version 0.1, e.g. of `ssl4rl_plugin.rewards`; None if it has not moved."""
    package, _, rest = name.partition(".")
    if package != __name__:
        return None
    for old, new in MOVED.items():
        if rest == old or rest.startswith(f"{old}."):
            return f"{__name__}.{new}{rest.removeprefix(old)}"
    return None


class _Moved:
    """An import finder and loader: a moved module is its new self, never a second copy."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, _Moved) if moved_to(name) else None  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> types.ModuleType:
        new = moved_to(spec.name)
        assert new is not None
        warnings.warn(f"{spec.name} has moved: write {new}", FutureWarning, stacklevel=2)
        module = importlib.import_module(new)
        spec.loader_state = module.__spec__
        return module

    @staticmethod
    def exec_module(module: types.ModuleType) -> None:
        # It has run under its new name; only its own spec has to come back.
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


# First, since the folder of a package that moved would offer second copies of its modules.
sys.meta_path.insert(0, _Moved)
