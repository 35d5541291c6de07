"""Make the pictures of README and docs anew: `python docs/make_pictures.py`.

Each is the contact sheet of one `ssl4rl preview` command, with fewer colours and pixels so that the repository stays small.
`python tests/bench/demo_seeds.py` draws the curves.
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


def main() -> None:
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
