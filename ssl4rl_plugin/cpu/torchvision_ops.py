"""Let the torchvision wheel from PyPI import next to a CPU build of torch.

On Linux that wheel is linked against CUDA. Next to a CPU build of torch its C++ library does not load, which
torchvision tolerates, but its import then fails because two operators have no schema ("operator torchvision::nms does
not exist"). Without torchvision, transformers has no image processor for Qwen-VL models, and verl drops the images with only
a warning. So this module declares the two schemas. They have no implementation, and this package does not call them.

torch calls `declare_missing_ops` at the end of every `import torch` (entry-point group `torch.backends`): it has to be
fast, import nothing heavy, and never raise. If torch cannot load an entry point, `import torch` fails for every program of
the environment. So the entry point is not this package's. `ssl4rl_plugin.cpu.setup` copies this file into the distribution
"vllm" that it installs for the CPU, with an entry point to the copy. The copy works without this package. An installation
for GPUs has no such entry point. This file therefore imports nothing of the package by itself.
"""

from __future__ import annotations

import importlib.util
import mmap
import os
from typing import Any

_NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept_alive: list[Any] = []  # torch withdraws a schema once its Library object is collected


def declare_missing_ops() -> None:
    """Declare torchvision::nms and torchvision::qnms where torchvision's own library cannot."""
    try:
        from ssl4rl_plugin.core.first_word import say

        say()  # here, since torch is the first of a run's imports to load this package
    except (Exception, SystemExit):  # the package may be broken or gone
        pass
    try:
        import torch

        if torch.version.cuda is None and torch.version.hip is None and not _kept_alive and _library_needs_cuda():
            library = torch.library.Library("torchvision", "FRAGMENT")
            for name in ("nms", "qnms"):
                library.define(name + _NMS)
            _kept_alive.append(library)
    except (Exception, SystemExit):  # an error here would break `import torch` for every program in this environment
        pass


def _library_needs_cuda() -> bool:
    """True if the installed torchvision's C++ library is linked against CUDA.

    Only then are the schemas missing. Declaring them beside a library that does load would register them twice, and
    torch ends the process on that.
    """
    spec = importlib.util.find_spec("torchvision")  # finds the package without importing it
    if spec is None or spec.origin is None:
        return False
    path = os.path.join(os.path.dirname(spec.origin), "_C.so")
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"libtorch_cuda.so") != -1
