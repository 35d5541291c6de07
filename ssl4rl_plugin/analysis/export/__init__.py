"""Export for other tools.

mcq         pretext tasks as multiple-choice sets, in the TSV layout of VLMEvalKit
config      the JSON config that VLMEvalKit's run.py takes
vlmevalkit  runs an unmodified VLMEvalKit with a model whose answers it unwraps; imports very little
"""
