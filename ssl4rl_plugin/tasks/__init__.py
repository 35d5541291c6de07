"""The pretext tasks, one file each, and the registry that finds tasks of all packages by entry point.

A package adds a task with one line:

    [project.entry-points."ssl4rl.tasks"]
    mirror = "my_package.mirror:Mirror"
"""

from __future__ import annotations

from typing import Any

from ssl4rl_plugin.core import Task
from ssl4rl_plugin.core.registry import Registry, RegistryError, foreign

registry: Registry[type[Task[Any]]] = Registry("ssl4rl.tasks", "task")


def get_task(name: str) -> Task[Any]:
    """The task of that name. Raises RegistryError for an unknown name; the message lists the known ones."""
    found = registry.get(name)
    with foreign(f"task {name!r} cannot be made"):
        if not (isinstance(found, type) and issubclass(found, Task)):
            raise RegistryError(
                f"task {name!r} is registered as {found!r}, which is not a subclass of ssl4rl_plugin.core.Task"
            )
        return found()


def resolve(name: str, level: str | None = None, options: dict[str, Any] | None = None) -> tuple[Task[Any], Any]:
    """A task and one of its levels, with `options` applied.

    Raises UserError for an unknown task, level or option; the message lists the known ones.
    """
    task = get_task(name)
    return task, task.level(level, **(options or {}))
