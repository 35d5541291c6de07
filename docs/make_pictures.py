"""Make the pictures of README and docs anew: `python docs/make_pictures.py`.

Each is the contact sheet of one `ssl4rl preview` command, with fewer colours and pixels so that the repository stays small.
`python docs/make_pictures.py --learn runs/learn` draws the curve of a finished `make learn` instead.
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
COLOURS = 200
"""Size of the palette."""


def learning_curve(run: str) -> None:
    """Held-out accuracy with its 95 % interval, and the training reward, over the steps of a run."""
    import matplotlib.pyplot as plt

    from ssl4rl_plugin.analysis.runlog import RunLog

    log = RunLog(run)
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    steps, rewards = log.curve("critic/score/mean")
    axes.plot(steps, rewards, color="#b8bfca", linewidth=1, label="reward in training")
    for arm, points in log.arms.items():
        at = [point.step for point in points]
        axes.fill_between(at, [p.rate.low for p in points], [p.rate.high for p in points], color="#3b62d6", alpha=0.2)
        axes.plot(at, [p.rate.mean for p in points], "o-", color="#3b62d6", label=f"held-out accuracy, {arm.label}")
        axes.axhline(arm.chance or 0, color="#5d6470", linestyle=":", label="chance")
    axes.set(xlabel="step", ylim=(0, 1.02))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center right")
    figure.savefig(ASSETS / "learning_curve.png", dpi=120)


def main() -> None:
    if sys.argv[1:2] == ["--learn"]:
        return learning_curve(sys.argv[2])
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
