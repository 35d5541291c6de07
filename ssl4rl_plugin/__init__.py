"""Self-supervised pretext tasks as verifiable rewards for reinforcement learning: a plugin for verl.

Keep this module empty of imports: torch and verl load it in every process (see `plugin` and `cpu.torchvision_ops`).
"""

__version__ = "0.1.0"
