"""Resolves a config into steps, knows each by its fingerprint, and runs what the store does not hold yet.

A stage is a name, what it takes, gives and reads, and a function. It must not know any one stage, any room, the
schema of the config, or Paddle.
"""
