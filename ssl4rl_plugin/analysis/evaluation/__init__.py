"""Evaluation after training: benchmarks and pretext tasks put to a model through vLLM, scored as in training.

protocol     what is asked, and how
model        a name, a folder, or a checkpoint of verl as a model that vLLM loads
worker       one process with one vLLM engine
engines      the processes, and who answers which question
predictions  the file with every response
results      figures by benchmark and category, and against a base model
run          all of it, in order
"""
