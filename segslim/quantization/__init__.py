"""int8, decided on the deployed graph: ranges become QuantizeLinear/DequantizeLinear pairs in the float ONNX file.

spec.py             QuantizationSpec: the precision, the range of each activation, the scales of each weight
graph.py            lookups in an ONNX graph; batch norm folded into convolutions, as every engine does
placement.py        which nodes and tensors are int8, which tensors share one scale, what stays float and why
qdq.py              inserts the pairs
calibration.py      ranges measured on images: statistics of tensors, and the observers that turn them into ranges
equalization.py     channels of an activation brought to like ranges, the network's output being the same
rounding.py         weights rounded so that layers give what they gave
mixed_precision.py  which layers lose most to int8, and which of them to keep float
qat.py              fake-quantize layers for training; the only file that needs Paddle
This room knows neither engines nor data sets: images, and the function that evaluates a graph, are parameters.
"""
