"""`ssl4rl demo`: a small but real vision-language model, made here and trained through unmodified verl on the CPU.

model     builds the model, its tokenizer and its processor
warm_up   teaches it the answer format, and nothing about the answers
run       starts verl's trainer, follows it, and ends with a table and a page
"""
