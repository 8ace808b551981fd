"""Training: the losses, the loop, and what lets it go on after it was killed.

A network, batches and a judge come in as they are or as callables. It must not know data sets, engines, checkpoints or
the pipeline.
"""
