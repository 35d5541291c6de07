"""The composed config of a run."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from ssl4rl_plugin.analysis.runlog.files import RunError
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.plain_yaml import read_yaml_text
from ssl4rl_plugin.training.settings import Settings, SettingsError


class RunConfig:
    """The composed config that Hydra wrote into a run folder.

    Args:
        file: its `config.yaml`; None if the run has none.
        folder: the run folder, for messages.
    """

    def __init__(self, file: Path | None, folder: Path) -> None:
        self.file = file
        self.folder = folder

    @cached_property
    def text(self) -> str:
        """The config as YAML; empty if there is none, or `problem` says why it cannot be used."""
        return self._read[0]

    @property
    def problem(self) -> str:
        """Why the config cannot be used; empty if it can, or there is none."""
        return self._read[2]

    def value(self, key: str) -> Any:
        """The value of a dotted key, e.g. `data.train_batch_size`; None if it is missing or cannot be resolved."""
        from omegaconf import OmegaConf

        try:
            value = OmegaConf.select(self._config, key)
            return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except Exception:  # the run's environment variables and resolvers need not exist here
            return None

    @cached_property
    def values(self) -> dict[str, Any]:
        """The config as nested values, with interpolations unresolved; empty if there is none or it cannot be parsed."""
        from omegaconf import OmegaConf

        try:
            values = OmegaConf.to_container(self._config, resolve=False)
        except Exception:  # YAML and OmegaConf have many exception classes
            return {}
        return {str(key): value for key, value in values.items()} if isinstance(values, dict) else {}

    @cached_property
    def settings(self) -> Settings:
        """The `ssl4rl:` section of the config.

        Raises:
            RunError: there is no config, or it was not made by a recipe of this package.
            SettingsError: it names a task or level that is not installed here.
        """
        section = self.value("ssl4rl")
        if self.problem:
            raise RunError(f"{self.problem}. So the pictures of {self.folder} cannot be made again")
        if not isinstance(section, dict):
            raise RunError(
                f"{self.folder} has no hydra/.hydra/config.yaml with an `ssl4rl` section, so its pictures cannot be "
                "made again; start runs with hydra.run.dir=RUN/hydra"
            )
        places = [
            section, section.get("source") or {}, *(section.get("sources") or []), *(section.get("benchmarks") or []),
        ]  # fmt: skip
        for place in places:
            for key in ("path", "manifest", "data"):
                if isinstance(place, dict) and isinstance(place.get(key), str):
                    place[key] = self._from_start_folder(place[key])
        try:
            return Settings.from_config(section)
        except (KeyError, TypeError) as error:
            raise SettingsError(f"the `ssl4rl` section of {self.file} is not complete: {error!r}") from error

    @property
    def _config(self) -> Any:
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[str, Any, str]:
        """The text, the config, and why it cannot be used."""
        from omegaconf import OmegaConf

        from ssl4rl_plugin.training import resolvers

        resolvers.register()
        if self.file is None:
            return "", OmegaConf.create({}), ""
        try:
            text = read_yaml_text(self.file)
            return text, OmegaConf.create(text or "{}"), ""
        except UserError as error:
            problem = str(error)
        except Exception as error:  # YAML and OmegaConf have many exception classes
            problem = f"{self.file} cannot be read: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return "", OmegaConf.create({}), problem

    def _from_start_folder(self, path: str) -> str:
        """A relative path of the config, resolved against the folder in which the run was started."""
        from omegaconf import OmegaConf

        if path == "???":  # not set, as `ssl4rl.source.path` in a run with several sources
            return path
        if self.file is None or Path(path).expanduser().is_absolute() or Path(path).exists():
            return path
        try:
            cwd = OmegaConf.create(read_yaml_text(self.file.with_name("hydra.yaml"))).hydra.runtime.cwd
        except Exception:  # Hydra's own file may be missing or broken
            return path
        return str(Path(str(cwd)) / path)
