"""compress=front: networks from the dense one down, each by a plan of its own, and which of them is deployed.

A point is what another strategy makes at one ratio (none, ptq, prune_post, prune_post_ptq), and runs through the same
store: what points share is made once, a killed search goes on, and any point alone is a command that finds all its work
done. Points are made side by side, judged as they come, so that the next ratio lies where it tells most
(evaluation/front.py), and timed at the end, when nothing else runs.
"""

from segslim.front.points import first
from segslim.front.search import explore
from segslim.front.workers import Silent

__all__ = ["Silent", "explore", "first"]
