"""The outcome of a check of `ssl4rl doctor`, and what installed distributions require of each other."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement


@dataclass(frozen=True)
class Check:
    """The outcome of one check."""

    name: str
    status: str
    """`ok`, `warn` (training may work) or `fail` (training will not work)."""
    detail: str
    remedy: str = ""
    """How to fix it; empty for `ok`."""


def requirement(of: str, name: str) -> Requirement | None:
    """The requirement of the installed distribution `of` for another one; None if it has none."""
    try:
        asked = [Requirement(text) for text in metadata.requires(of) or []]
    except metadata.PackageNotFoundError:
        return None
    # verl's trainer needs this extra.
    plain = (needs for needs in asked if needs.marker is None or needs.marker.evaluate({"extra": "verl-core"}))
    return next((needs for needs in plain if needs.name.lower() == name.lower()), None)
