"""What verl lacks for training on a machine without an accelerator.

platform        the verl platform "cpu"; chosen by `ssl4rl_plugin.plugin` where torch is a CPU-only build
rollout         FSDP2 engine and vLLM rollout for that platform; named in `actor_rollout_ref.model.external_lib`
group_rollout   one vLLM request for the rollouts of a prompt; shared_pictures and token_probabilities: faster updates
fork_server     one process imports what all processes of a training need; fork_client is its command
vllm_worker     the extension of vLLM's worker that receives the actor's weights
torchvision_ops lets the torchvision wheel from PyPI import next to a CPU build of torch
setup           `python -m ssl4rl_plugin.cpu.setup` finishes an installation in ways that pip cannot express

Keep this module empty of imports: `import verl` loads it.
"""
