"""Which (task, level) is trained on next: the part of a run that finds the right difficulty by itself.

    ssl4rl.tasks=[rotation,jigsaw,position] ssl4rl.curriculum=goldilocks

An *arm* is a task at a level. After every step the sampler (`sampler`) reads what the step showed of each arm
(`evidence`), the policy (`policies`) says how much each arm is worth (`director` adds warm-up, floors and ceilings), and
the decision goes to the dataset through a table in shared memory (`schedule`). All of it is a function of the seed and of
what was observed, and the journal (`journal`) keeps the latter, so a resumed run replays it and goes on identically.
`simulator` has synthetic learners on which policies are compared in seconds.
"""
