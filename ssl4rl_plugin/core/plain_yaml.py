"""YAML of a run or a data folder: refused by size before it is expanded.

An alias (`*a`) costs two bytes and stands for everything below its anchor (`&a`). Nine lines that each repeat the line
before nine times stand for a billion values. The parser shares them; whoever copies them, as OmegaConf does, does not.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from ssl4rl_plugin.core.errors import UserError

LARGEST = 2**19
"""Bytes of a file that is read. The composed config of a run has 30,000."""
MOST_VALUES = 50_000
"""Values of a text with its aliases expanded. That config has 1,500."""
DEEPEST = 100
"""Levels of nesting."""


class YamlError(UserError):
    """A YAML text is too large, or is no YAML; the message names its file and the reason."""


def read_yaml_text(path: Path) -> str:
    """The text of a YAML file, checked with `check_yaml`. Raises YamlError, OSError."""
    size = path.stat().st_size
    if size > LARGEST:
        raise YamlError(f"{path} has {size:,} bytes, more than a config can have ({LARGEST:,})")
    text = path.read_text(encoding="utf-8", errors="replace")
    check_yaml(text, path)
    return text


def check_yaml(text: str, where: object) -> None:
    """Check a YAML text without building its values, in time linear in its length.

    Args:
        text: the text.
        where: name of its file, for the message.

    Raises:
        YamlError: it is no YAML, nests too deeply, or its aliases stand for too many values.
    """
    counts = [0]  # values in each open mapping or sequence
    names: list[str] = []  # their anchors, or ""
    sizes: dict[str, int] = {}
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            anchor: str = getattr(event, "anchor", None) or ""
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.AliasEvent):
                if anchor in names:
                    raise YamlError(f"{where}: alias *{anchor} stands inside of its own anchor")
                counts[-1] += sizes.get(anchor, 1)
            elif isinstance(event, yaml.ScalarEvent):
                counts[-1] += 1
                sizes |= {anchor: 1} if anchor else {}
            elif isinstance(event, yaml.CollectionStartEvent):
                counts.append(1)
                names.append(anchor)
                if len(names) > DEEPEST:
                    raise YamlError(f"{where} nests more than {DEEPEST} levels deep at line {line}: it is no config")
            elif isinstance(event, yaml.CollectionEndEvent):
                size, name = counts.pop(), names.pop()
                counts[-1] += size
                sizes |= {name: size} if name else {}
            if sum(counts) > MOST_VALUES:
                raise YamlError(
                    f"{where} stands for more than {MOST_VALUES:,} values at line {line}, with its aliases expanded: it "
                    "is no config"
                )
    except YamlError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        raise YamlError(f"{where} is no valid YAML: {' '.join(str(error).split())}") from error
