"""Name the packages: all of ssl4rl_plugin, and two top-level folders that live inside its namespace once installed.

Everything else is in pyproject.toml, whose find directive cannot rename what it finds.
Folders that hold only YAML or templates count as (namespace) packages, so that their files are installed.
"""

from setuptools import find_namespace_packages, setup

packages = find_namespace_packages(include=["ssl4rl_plugin*"], exclude=["*__pycache__*"])
mapped = find_namespace_packages(include=["data_builders*", "recipes*"], exclude=["*__pycache__*"])

setup(packages=packages + [f"ssl4rl_plugin.{name}" for name in mapped])
