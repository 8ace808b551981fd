"""How good and how fast: scores from a confusion matrix, and fair timing. Needs numpy alone."""

from segslim.evaluation.confusion import ConfusionMatrix, Scores
from segslim.evaluation.evaluate import evaluate, resize_nearest
from segslim.evaluation.latency import Latency, measure

__all__ = ["ConfusionMatrix", "Latency", "Scores", "evaluate", "measure", "resize_nearest"]
