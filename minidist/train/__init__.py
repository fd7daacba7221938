"""Training a GPT: `minidist train` from its flags to the files of a run.

Read loop.py and step.py to see how a model is trained: loop.py builds a rank's model and yields one
record per step; step.py is the step. The other files stand around them:

- config.py: every flag, and the checks before a rank starts.
- run.py: the order of events of a run: resume, train, evaluate, save, sample.
- checkpoint.py, metrics.py, report.py: the files of a run: checkpoints, metrics.jsonl, loss.png.
- screen.py: what rank 0 prints.
- memory.py: the bytes of a rank, predicted and counted.
- sample.py: `minidist sample`. classify.py: the loop of the classifiers in tutorials/examples.

The learning rate follows `warmup_cosine` in optim/lr_scheduler.py, and the initial weights are
drawn by `GPT.reset_parameters` in models/gpt.py.
"""
