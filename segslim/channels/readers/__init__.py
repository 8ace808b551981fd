"""One thin reader for each of Paddle's intermediate representations; both give the same neutral operators."""
