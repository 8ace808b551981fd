"""`python -m segslim.store`: what the store holds, why a stage would run again, whether all is whole, what may go."""
