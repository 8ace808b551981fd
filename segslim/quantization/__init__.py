"""int8, decided on the deployed graph: ranges become QuantizeLinear/DequantizeLinear in the float ONNX file.

table.py      what is known: the range of each activation, the scales of each weight
placement.py  which nodes and tensors of a graph are int8, which tensors share one scale, what stays float and why
fold.py       batch norm into convolutions, as every engine does, so that a weight's scales are those of its kernel
qdq.py        inserts the pairs
observers.py, calibrate.py   ranges measured on images
Only qat.py needs Paddle. It must not know engines nor data sets: images and what judges a graph come in.
"""
