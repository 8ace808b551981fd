"""`python -m segslim.store`: what the store holds, why a stage would run again, whether all is whole, what may go.

It reads the store as the pipeline writes it, and plans as a run does; it makes no artifact.
"""
