"""The recipes, as YAML; installed as `ssl4rl_plugin.recipes`.

plugin/            the config that `+plugin=ssl4rl` loads
recipe/            a file for each recipe that is not in the table
paper_grid.yaml    the table of the recipes for the paper's experiments
ssl4rl/            the base of all recipes, and the files of the groups `ssl4rl/model`, `ssl4rl/hardware`, ...
"""
