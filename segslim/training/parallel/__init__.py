"""One training by several processes: each takes its share of every batch, to the result of one process.

The gradients are summed, batch norm and dropout are those of the whole batch, and a loss that is no mean over pixels is
taken of the whole batch's logits. So the number of processes changes the order of sums of floats, and nothing else. No
file here knows what the job of a process is: it gets it as plain values.
"""
