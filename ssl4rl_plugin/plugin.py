"""The entry point that verl imports at the end of `import verl`, in the driver and in every Ray worker.

It registers two things and nothing else:

- a Hydra search path, so that `+plugin=ssl4rl recipe=NAME` finds the recipes on an unmodified verl;
- the platform "cpu", only where torch is built without accelerator support, or where VERL_PLATFORM=cpu asks for it.

What changes for plain verl: nothing in its configuration (the search path only adds names that it does not use), and
nothing on machines with an accelerator. With a CPU-only torch, verl takes the platform "cpu" where it would have
warned and fallen back to "nvidia", which cannot run there; VERL_PLATFORM=nvidia brings that back. A CPU-only machine
whose torch is built for CUDA (say, the head node of a GPU cluster) keeps verl's own choice.

verl hides a plugin's failure (it is logged at DEBUG level), so failures are caught here and turned into warnings.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def register() -> None:
    """Register the recipes and, where needed, the CPU platform. Safe to call more than once."""
    _attempt("register the CPU platform", _register_cpu_platform)
    # Importing Hydra takes longer than all the rest, and many workers never do: wait until somebody else has.
    if "hydra" in sys.modules:
        _attempt("register its recipes with Hydra", _register_recipes)
    elif not any(isinstance(finder, _AfterHydra) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterHydra())


def _register_cpu_platform() -> None:
    # The module registers itself. Importing it and no name from it also works while it is being imported, which is
    # the case where a program imports it before verl: it imports verl, and verl this plugin.
    import ssl4rl_plugin.cpu.platform  # noqa: F401


def _register_recipes() -> None:
    from hydra.core.plugins import Plugins

    from ssl4rl_plugin.training.verl.search_path import RecipeSearchPath

    Plugins.instance().register(RecipeSearchPath)


def _attempt(what: str, action: Callable[[], None]) -> None:
    """Run `action`; on failure warn in plain words instead of raising."""
    try:
        action()
    except Exception as error:
        warnings.warn(
            f"ssl4rl-plugin could not {what} ({type(error).__name__}: {error}), so `+plugin=ssl4rl` will not work as "
            "documented; verl itself is not affected. Check the installation with `ssl4rl doctor`, or turn the plugin "
            "off with VERL_USE_EXTERNAL_PLUGINS=none.",
            RuntimeWarning,
            stacklevel=2,
        )


class _AfterHydra(MetaPathFinder):
    """Registers the recipes right after `import hydra` has run, then gets out of the way."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "hydra":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            self._follow(spec.loader)
        return spec

    def _follow(self, loader: Any) -> None:
        """Let `loader` register the recipes after it has executed its module."""
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            _attempt("register its recipes with Hydra", _register_recipes)

        _attempt("watch for Hydra", lambda: setattr(loader, "exec_module", exec_module))


register()
