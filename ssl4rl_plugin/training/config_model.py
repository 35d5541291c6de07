"""The base of the models that check the config, and their errors in the user's terms."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from ssl4rl_plugin.core.errors import UserError

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""No conversions (a string is no number), no unknown keys, no NaN."""

Options = Annotated[dict[str, Any], BeforeValidator(lambda value: {} if value is None else value)]
"""A free mapping: its reader checks the keys. Null is an empty one."""

M = TypeVar("M", bound="ConfigModel")


class ConfigModel(BaseModel):
    """A mapping in the config."""

    model_config = STRICT

    @classmethod
    def read(cls: type[M], values: Any, place: str, error: type[UserError]) -> M:
        """The checked mapping. `place` is its key (`ssl4rl.source`). Raises `error`, which names each wrong key."""
        try:
            return cls.model_validate(values)
        except ValidationError as problem:
            raise error(explained(problem, place, cls.model_fields)) from None


def explained(error: ValidationError, place: str, known: Iterable[str] = ()) -> str:
    """One line for each wrong key below `place`: the key, what was given, and what is possible.

    An unknown key comes with the most similar one of `known`.
    """
    lines = []
    for problem in error.errors():
        key = ".".join([place, *map(str, problem["loc"])])
        match problem["type"]:
            case "missing":
                lines.append(f"{key} is missing")
            case "extra_forbidden":
                close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
                lines.append(f"there is no key {key} ({hint})")
            case "value_error":
                lines.append(f"{key}: {problem['ctx']['error']}")
            case "model_type" | "dict_type":
                lines.append(f"{key} must be a mapping, got {problem['input']!r}")
            case _:
                lines.append(f"{key} {problem['msg'].replace('Input should', 'must')}, got {problem['input']!r}")
    return "\n".join(lines)
