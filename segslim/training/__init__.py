"""Training: the losses, the loop, and what lets it go on after it was killed."""
