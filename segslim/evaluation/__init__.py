"""How good and how fast a network is: metrics from confusion matrices, and fair timing.

Predictions and runs are callables that are passed in, and numbers come out. It needs numpy alone, and knows no engine.
"""

from segslim.evaluation.latency import Latency, measure
from segslim.evaluation.metrics import ConfusionMatrix, LabelCounts, Metrics, evaluate, mean_iou, resize_nearest

__all__ = ["ConfusionMatrix", "LabelCounts", "Latency", "Metrics", "evaluate", "mean_iou", "measure", "resize_nearest"]
