"""Hydra YAML, and nothing else: installed as `ssl4rl_plugin.recipes`, and on Hydra's search path as `pkg://ssl4rl_plugin.recipes`."""
