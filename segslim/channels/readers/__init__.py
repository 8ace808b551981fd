"""One thin reader for each of Paddle's intermediate representations; both give the same neutral operators.

Here alone Paddle's representation is known; no reader knows of channels.
"""
