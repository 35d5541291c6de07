"""Build the wheel, install it into a new virtual environment outside of the checkout, and use it there.

Run it with the environment of `make install`. Nothing is downloaded: the new environment reads the dependencies from
that one's site-packages through a .pth file. Python processes no .pth file of a folder that is added this way, so the
editable installation of the checkout stays out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("ssl4rl_plugin", "data_builders", "recipes", "pyproject.toml", "setup.py", "README.md", "LICENSE")
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
CHECK = """
import sys
from importlib.metadata import distribution, version
import ssl4rl_plugin
package, environment = ssl4rl_plugin.__path__[0], sys.argv[1]
assert package.startswith(environment), f"{package} is not the wheel's"
assert version("ssl4rl-plugin") == ssl4rl_plugin.__version__
for entry in distribution("ssl4rl-plugin").entry_points:
    entry.load()
"""


def build(folder: Path) -> Path:
    """Build from a copy of the sources: setuptools leaves files behind, and takes in what an earlier build left."""
    source = folder / "source"
    source.mkdir(parents=True)
    for name in SOURCES:
        origin = ROOT / name
        if origin.is_dir():
            shutil.copytree(origin, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin, source)
    subprocess.run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, environment: Path) -> Path:
    """Make the environment with the wheel in it; return its folder of programs."""
    venv.create(environment, symlinks=True)
    programs = environment / "bin"
    options = ["--no-deps", "--no-index", wheel]
    subprocess.run([*PIP, "--python", programs / "python", "install", *options], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return programs


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ssl4rl-wheel-") as name:
        folder = Path(name)
        wheel = build(folder)
        programs = install(wheel, folder / "venv")
        compose = "-m verl.trainer.main_ppo +plugin=ssl4rl recipe=cpu_demo --cfg job --resolve"
        commands = {
            "import it and load every entry point": ["python", "-c", CHECK, str(folder / "venv")],
            "list its tasks": ["ssl4rl", "tasks", "--json"],
            "list its recipes": ["ssl4rl", "recipes", "--json"],
            "compose a recipe with verl": ["python", *compose.split()],
        }
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        print(f"{wheel.name}, installed outside of the checkout:")
        for what, (program, *arguments) in commands.items():
            command = [programs / program, *arguments]
            done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"The wheel cannot {what} (exit code {done.returncode}):\n{done.stdout}\n{done.stderr}")
            print(f"  it can {what}")


if __name__ == "__main__":
    main()
