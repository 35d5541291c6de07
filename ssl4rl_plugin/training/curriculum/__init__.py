"""The curriculum: chooses the (task, level) of the next training prompts by what the model can still learn there.

    ssl4rl.tasks=[rotation,jigsaw,position] ssl4rl.curriculum=goldilocks

An *arm* is a task at a level. After every step the sampler (`ssl4rl_plugin.training.verl.sampler`) collects the results
of each arm (`evidence`). The policy (`policies`) weights the arms, and the director (`director`) adds warm-up, floors and
ceilings. The resulting probabilities reach the dataset through a table in shared memory (`schedule`). They depend only on
the seed and on the evidence. The journal (`journal`) records the evidence, and a resumed run replays it and continues
identically. `simulator` compares policies on synthetic learners in seconds.
"""
