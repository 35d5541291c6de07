"""Draw attention on the picture that the model saw; several models side by side, on one colour scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ssl4rl_plugin.analysis.attention.traces import AttentionTrace, ImageBox
from ssl4rl_plugin.analysis.report.page import readable, write_output

PANEL = 4.6
"""Longer side of a picture in inches."""


def draw(shown: Sequence[tuple[str, AttentionTrace, np.ndarray]], box: ImageBox | None, out: Path) -> None:
    """Write the overlay as a PNG: title, trace and heat (`AttentionTrace.heat`) of each model.

    Heat is drawn as a multiple of its mean over the picture. So 1 is evenly spread attention, independent of the grid and of
    the attention to the text. All panels share the scale.

    Raises WriteError: the file cannot be written.
    """
    relative = [heat / heat.mean() if heat.mean() > 0 else heat for _, _, heat in shown]
    norm = Normalize(0.0, max(2.0, *(float(heat.max()) for heat in relative)))
    width, height = shown[0][1].size
    scale = PANEL / max(width, height)
    figure = Figure(
        figsize=(max(2.4, width * scale) * len(shown) + 1.0, max(1.6, height * scale) + 1.0), layout="constrained"
    )
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (title, trace, _), heat in zip(panels, shown, relative, strict=True):
        extent = (0, width, height, 0)  # in pixels of the input image
        axes.imshow(trace.seen, extent=extent)
        # The picture is dark where attention is low.
        axes.imshow(heat, extent=extent, cmap="inferno", norm=norm, alpha=0.6, interpolation="nearest")
        if box is not None:
            corner, size = (box.x0, box.y0), (box.x1 - box.x0, box.y1 - box.y0)
            axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor="#4fd1ff", linewidth=1.8))
        axes.set_title(title, fontsize=9, parse_math=False)
        said = readable(trace.answer.replace("\n", " "), 90)
        axes.set_xlabel(said, fontsize=8, wrap=True, parse_math=False)
        axes.set_xticks([])
        axes.set_yticks([])
    bar = figure.colorbar(ScalarMappable(norm, "inferno"), ax=list(panels), shrink=0.85)
    bar.set_label("attention, as a multiple of its mean over the picture", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    write_output(out, lambda file: figure.savefig(file, dpi=150, format="png"))
