from ssl4rl_plugin.data.ground_truth import encode_truth
from ssl4rl_plugin.training.rewards import compute_score

truth = encode_truth(task="rotation", level="pair_45", options={}, truth=90, sample="train:0")
result = compute_score("ssl4rl/rotation", "<think>A quarter and a bit.</think><answer>135°</answer>", truth)
print(result["score"], result["acc"], result["format"])  # 0.325 0.0 1.0
