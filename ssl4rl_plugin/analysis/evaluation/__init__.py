"""Evaluation after training: a model answers benchmarks and pretext tasks through vLLM, scored as in training.

protocol        how questions are asked and answers scored
evaluation_set  the rows to ask: a run's validation, or benchmarks and tasks that the user names
model           a name, a folder, or a checkpoint of verl as a model that vLLM loads
worker          one process with one vLLM engine
engines         the processes, and which of them answers which question
predictions     the file with every response
results         figures by benchmark and category, and against a base model
run             all of it, in order
"""
