"""Update the table of recipes in docs/recipes.md: `python docs/make_recipes.py`."""

from __future__ import annotations

from pathlib import Path

from ssl4rl_plugin.cli.catalogue import recipe_table

PAGE = Path(__file__).parent / "recipes.md"
START, END = "<!-- recipes -->\n", "\n<!-- end of recipes -->"


def with_table(text: str) -> str:
    """The page with a new table between its two marks."""
    before, _, rest = text.partition(START)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{PAGE.name} lacks the lines {START.strip()} and {END.strip()}")
    return f"{before}{START}{recipe_table()}{mark}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
