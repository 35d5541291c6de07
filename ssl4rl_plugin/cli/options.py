"""Parse `KEY=VALUE` options."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.plain_yaml import check_yaml

REPEATED = ("root", "fields", "columns")
"""Options of sources that may be given several times, and are then a list."""


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def key_values(given: Iterable[str] | None, option: str) -> dict[str, Any]:
    """`["crops=4", "split_column=null"]` as `{"crops": 4, "split_column": None}`; values are read as YAML. Those in
    REPEATED may be given several times.

    Raises UserError, which names `option`, the option of these values.
    """
    found: dict[str, Any] = {}
    for text in given or ():
        key, sign, value = text.partition("=")
        if not key or not sign:
            raise UserError(f"{option} {text}: write it as KEY=VALUE")
        if key in found and key not in REPEATED:
            raise UserError(f"{option} {key} is given twice")
        try:
            check_yaml(value, f"{option} {key}")
            read = yaml.safe_load(value)
            found[key] = [*_listed(found[key]), *_listed(read)] if key in found else read
        except yaml.YAMLError as error:
            raise UserError(f"{option} {text}: the value is no valid YAML: {error}") from error
    return found
