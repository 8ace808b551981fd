"""Resolves a config into steps, knows each by its fingerprint, and runs what the store does not hold yet.

Knows nothing of Paddle, of networks, or of any one stage: a stage is a name, what it takes, gives and reads, and a
function.
"""
