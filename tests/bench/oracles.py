"""How often the oracles agree with the truth on a folder of photographs.

    python tests/bench/oracles.py PHOTOS [TASK ...] [-n 500]

Tasks on videos and on depth are asked about the built-in sources.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from oracles import ARMS, BUILT_IN, agreement

from ssl4rl_plugin.analysis.statistics import wilson
from ssl4rl_plugin.data.samples import SampleError
from ssl4rl_plugin.tasks import get_task


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path)
    parser.add_argument("tasks", nargs="*")
    parser.add_argument("-n", type=int, default=500)
    given = parser.parse_args()
    for name, level in ARMS:
        if given.tasks and name not in given.tasks:
            continue
        where = ("folder", given.photos) if get_task(name).kind == "image" else BUILT_IN[name]
        start = time.perf_counter()
        try:
            found = agreement(name, level, *where, count=given.n)
        except SampleError as error:
            print(f"{name}:{level:24} {error}", flush=True)
            continue
        if not found.asked:
            print(f"{name + ':' + level:36} no oracle at this level", flush=True)
            continue
        share = wilson(found.asked - len(found.wrong), found.asked)
        seconds = time.perf_counter() - start
        print(
            f"{name + ':' + level:36} {share.mean:7.2%} [{share.low:.3f}, {share.high:.3f}] n={share.n} {seconds:.0f} s",
            flush=True,
        )
        for line in found.wrong[:5]:
            print(f"    {line}")


if __name__ == "__main__":
    main()
