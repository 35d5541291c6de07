from ssl4rl_plugin.rewards import compute_score, encode_truth

truth = encode_truth(task="rotation", level="pair_45", options={}, truth=90, sample="train:0")
result = compute_score("ssl4rl/rotation", "<think>A quarter and a bit.</think><answer>135°</answer>", truth)
print(result["score"], result["acc"], result["format"])  # 0.325 0.0 1.0
