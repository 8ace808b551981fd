"""Training: losses, optimizer, loop, snapshots, and several processes that train as one.

The network, the batches and the evaluation are passed in. It does not know data sets, engines, checkpoints or the
pipeline.
"""
