#!/bin/bash
# Two nodes of 8 GPUs under Slurm: a Ray cluster for this job, and the training on it. `sbatch slurm.sh`
#SBATCH --nodes=2 --ntasks-per-node=1 --gpus-per-node=8 --cpus-per-task=64 --time=24:00:00
set -euo pipefail

PORT=6379
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export PIP_NO_DEPS=1                                # Ray installs the wheel with pip; the nodes have the rest
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(openssl rand -hex 32)

srun --nodes=1 --ntasks=1 --overlap -w "$HEAD" ray start --head --port=$PORT --block &
sleep 30
srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --overlap --exclude="$HEAD" \
    ray start --address="$HEAD:$PORT" --block &
sleep 30

srun --nodes=1 --ntasks=1 --overlap -w "$HEAD" ray job submit --address=http://127.0.0.1:8265 \
    --runtime-env=runtime_env.yaml -- \
    python -m verl.trainer.main_ppo +plugin=ssl4rl recipe=mmbench_rotation_7b ssl4rl/hardware=gpu_2x8x80gb \
    ssl4rl.source.path=/shared/MMBench_DEV_EN.tsv ssl4rl.source.manifest=/shared/mmbench.parquet \
    trainer.default_local_dir=/shared/runs/mmbench_rotation_7b
