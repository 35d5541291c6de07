"""A Ray cluster of two nodes on this machine, neither of which has this package: it comes with the job, as a wheel.

What `docs/clusters.md` says, done with its own files.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ssl4rl_plugin.demo import run as demo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500), pytest.mark.xdist_group("cluster")]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples" / "cluster"
STEPS = 2
SMALL = (
    "ssl4rl/algorithm=rloo",  # the other runs of these tests take grpo
    "ssl4rl.val_samples=4",
    "data.train_batch_size=8",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=16",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=16",
    f"trainer.total_training_steps={STEPS}",
    f"trainer.test_freq={STEPS}",
    "trainer.save_freq=-1",
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with everything that is installed here but this package: no code, no entry points."""
    folder = tmp_path_factory.mktemp("node")
    venv.create(folder, with_pip=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    taken = {path.name for path in packages.iterdir()} | {"__pycache__"}
    for place in (Path(place) for place in sys.path if Path(place).name == "site-packages"):
        for path in place.iterdir():
            # A .pth file can lead to any folder, this package's among them. What `cpu.setup` adds to vLLM's CPU build stays.
            if path.name not in taken and "ssl4rl_plugin" not in path.name and path.suffix != ".pth":
                (packages / path.name).symlink_to(path)
                taken.add(path.name)
    ray = folder / "bin" / "ray"
    ray.write_text(f"#!{folder}/bin/python\nimport sys\nfrom ray.scripts.scripts import main\nsys.exit(main())\n")
    ray.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This package as a wheel, from a copy of the sources: building leaves files behind."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("ssl4rl_plugin", "data_builders", "recipes"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", out]
    subprocess.run([*map(str, pip), str(source)], check=True, timeout=300)
    (made,) = out.glob("*.whl")
    return made


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture
def cluster(node: Path) -> Iterator[tuple[str, dict[str, str], list[Path]]]:
    """Two nodes with a logical GPU each: the dashboard's address, the environment, and the nodes' folders."""
    gcs, dashboard, client, *agents = free_ports(5)
    environment = {
        **{key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")},
        "PATH": f"{node / 'bin'}{os.pathsep}{os.environ['PATH']}",
        # Ray installs the wheel with pip, which would fetch what it depends on and the nodes have.
        "PIP_NO_DEPS": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
    }
    common = ["--block", "--num-cpus=16", "--num-gpus=1", "--object-store-memory=1000000000", "--disable-usage-stats"]
    head = ["--head", f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    # Ray puts sockets below these folders, whose names may have 107 characters at most.
    with (
        tempfile.TemporaryDirectory(prefix="n0-", dir="/tmp") as one,
        tempfile.TemporaryDirectory(prefix="n1-", dir="/tmp") as two,
    ):
        folders = [Path(one), Path(two)]
        nodes: list[subprocess.Popen[bytes]] = []
        try:
            for folder, own, agent in zip(folders, (head, [f"--address=127.0.0.1:{gcs}"]), agents, strict=True):
                places = [
                    "--node-ip-address=127.0.0.1",
                    f"--temp-dir={folder}",
                    f"--dashboard-agent-listen-port={agent}",
                ]
                with (folder / "ray.log").open("wb") as log:
                    nodes.append(
                        subprocess.Popen(
                            [str(node / "bin" / "ray"), "start", *own, *common, *places],
                            env=environment,
                            cwd=folder,
                            stdout=log,
                            stderr=log,
                            start_new_session=True,
                        )
                    )
                wait_for(gcs if own is head else agent, nodes[-1], folder)
            wait_for(dashboard, nodes[0], folders[0])
            yield f"http://127.0.0.1:{dashboard}", environment, folders
        finally:
            for one_node in reversed(nodes):
                demo.stop(one_node)


def wait_for(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert process.poll() is None, (folder / "ray.log").read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise AssertionError(f"nothing answers at port {port}: {(folder / 'ray.log').read_text()}")


def test_two_nodes_train_with_the_plugin_from_the_jobs_runtime_environment(
    node: Path,
    wheel: Path,
    cluster: tuple[str, dict[str, str], list[Path]],
    tmp_path: Path,
) -> None:
    dashboard, environment, folders = cluster

    # The nodes know nothing of this package.
    code = (
        "import importlib.metadata as m, importlib.util as u\n"
        "print(u.find_spec('ssl4rl_plugin'), [d.name for d in m.distributions() if 'ssl4rl' in d.name.lower()], "
        "len(m.entry_points(group='verl.plugins')))"
    )
    python = str(node / "bin" / "python")
    asked = subprocess.run(
        [python, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert asked.stdout.strip() == "None [] 0", asked.stderr

    short = demo.compose("cpu_demo", ["actor_rollout_ref.model.path=x", "ssl4rl.warm_up.steps=5"])
    demo.prepare_model(short, tmp_path / "model", seed=0)
    shutil.copy(EXAMPLES / "runtime_env.yaml", tmp_path)
    (given,) = yaml.safe_load((tmp_path / "runtime_env.yaml").read_text())["py_modules"]
    (tmp_path / given).parent.mkdir()
    shutil.copy(wheel, tmp_path / given)
    metrics = tmp_path / "metrics.jsonl"
    train = [
        "python", "-m", "verl.trainer.main_ppo", "+plugin=ssl4rl", "recipe=cpu_demo", "ssl4rl/hardware=cpu_2x1",
        f"actor_rollout_ref.model.path={tmp_path / 'model'}", f"hydra.run.dir={tmp_path / 'hydra'}",
        f"trainer.default_local_dir={tmp_path / 'checkpoints'}", *SMALL,
        f"+ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH={metrics}",
    ]  # fmt: skip
    submit = ["ray", "job", "submit", f"--address={dashboard}", "--runtime-env=runtime_env.yaml", "--submission-id=two"]
    log = tmp_path / "job.log"
    with log.open("wb") as output:
        job = subprocess.Popen(
            [*submit, "--", *train],
            cwd=tmp_path, env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        try:
            job.wait(timeout=1000)
        finally:
            demo.stop(job)
    said = log.read_text(errors="replace")
    assert job.returncode == 0, said[-6000:]

    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [row["step"] for row in rows if "critic/score/mean" in row["data"]] == list(range(1, STEPS + 1))
    last = rows[-1]["data"]
    assert "val-core/ssl4rl/channel_order/acc/mean@1" in last and abs(last["rollout_corr/k3_kl"]) < 1e-3

    # One rank of the actor on each node, and the package unpacked on each from the job's wheel.
    listed = subprocess.run(
        ["ray", "list", "actors", f"--address={dashboard}", "--format=json", "--limit=200", "--detail"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    actors = json.loads(listed.stdout)
    workers = [actor for actor in actors if "WorkerDict" in actor["class_name"]]
    assert len({worker["node_id"] for worker in workers}) == len(workers) == 2, [a["class_name"] for a in actors]
    for folder in folders:
        assert list(folder.glob("session_*/runtime_resources/py_modules_files/*/ssl4rl_plugin/plugin.py")), folder
        assert list(folder.glob("session_*/runtime_resources/py_modules_files/*/ssl4rl_plugin-*.dist-info")), folder
