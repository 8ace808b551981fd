"""How good and how fast: scores from a confusion matrix, and fair timing.

Predictions and runs come in as callables, and numbers go out. It needs numpy alone, and must not know where a
prediction comes from.
"""

from segslim.evaluation.confusion import ConfusionMatrix, Scores, mean_iou
from segslim.evaluation.evaluate import evaluate, resize_nearest
from segslim.evaluation.label_counts import LabelCounts
from segslim.evaluation.latency import Latency, measure

__all__ = ["ConfusionMatrix", "LabelCounts", "Latency", "Scores", "evaluate", "mean_iou", "measure", "resize_nearest"]
