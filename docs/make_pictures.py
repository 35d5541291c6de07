"""Make the pictures of README and docs anew: `python docs/make_pictures.py`.

Each is the contact sheet of one `ssl4rl preview` command, with fewer colours and pixels so that the repository stays small.
`python docs/make_pictures.py --curves runs/demo demo_curves` draws the curves of a finished run instead, as
docs/assets/demo_curves.png.
"""

import subprocess
import sys
from pathlib import Path

from PIL import Image

ASSETS = Path(__file__).parent / "assets"
SHEETS = {
    "samples": ["rotation:pair_45", "altered_patch:2x2_invert", "position", "contrastive", "-n", "3", "--seed", "64"],
    "rotation": ["rotation:pair_90", "rotation:single_30", "-n", "3", "--seed", "281"],
    "jigsaw": ["jigsaw:2x2", "jigsaw:3x3_composed", "-n", "2", "--seed", "45"],
    "position": ["position:quadrants", "position:3x3_augmented", "-n", "3", "--seed", "281"],
    "contrastive": ["contrastive:standard", "contrastive:strong", "-n", "3", "--seed", "253"],
    "altered_patch": ["altered_patch:2x2_invert", "altered_patch:3x3_blur", "-n", "3", "--seed", "45"],
}
"""File name -> arguments of `ssl4rl preview`."""
SCALE = 0.75
"""Pixels kept along each side."""
LINES = ("#3b62d6", "#c2571a", "#2f855a", "#8a3ffc")
"""Colours of the tasks in a plot."""
COLOURS = 200
"""Size of the palette."""


def curves(run: str, name: str) -> None:
    """Held-out accuracy of each task with its 95 % interval and chance, over the steps of a run; its rewards in training."""
    import matplotlib.pyplot as plt

    from ssl4rl_plugin.analysis.runlog import RunLog

    log = RunLog(run)
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    steps, rewards = log.curve("critic/score/mean")
    axes.plot(steps, rewards, color="#b8bfca", linewidth=1, label="reward in training")
    for colour, (arm, points) in zip(LINES, log.arms.items(), strict=False):
        at = [point.step for point in points]
        axes.fill_between(at, [p.rate.low for p in points], [p.rate.high for p in points], color=colour, alpha=0.2)
        axes.plot(at, [p.rate.mean for p in points], "o-", color=colour, label=f"held-out accuracy, {arm.label}")
        axes.axhline(arm.chance or 0, color=colour, linestyle=":", label=f"chance, {arm.label}")
    axes.set(xlabel="step", ylim=(0, 1.02))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    figure.savefig(ASSETS / f"{name}.png", dpi=120)


def main() -> None:
    if sys.argv[1:2] == ["--curves"]:
        return curves(sys.argv[2], sys.argv[3])
    for name in sys.argv[1:] or SHEETS:
        path = ASSETS / f"{name}.png"
        ssl4rl = Path(sys.executable).with_name("ssl4rl")
        subprocess.run([ssl4rl, "preview", *SHEETS[name], "--out", path], check=True)
        sheet = Image.open(path)
        size = tuple(round(side * SCALE) for side in sheet.size)
        small = sheet.resize(size, Image.Resampling.LANCZOS)
        small.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
