"""`ssl4rl demo`: builds a tiny vision-language model and trains it with unmodified verl on the CPU.

model     builds the model, its tokenizer and its processor
warm_up   teaches it the answer format, and nothing about the answers
run       starts verl's trainer, shows its progress, and prints and writes the results
"""
