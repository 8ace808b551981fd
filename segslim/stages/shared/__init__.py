"""What several stages do in one way. Nothing here knows a stage."""

#: Packages whose version a stage's result depends on.
PADDLE = ("paddlepaddle", "paddlepaddle-gpu", "paddleseg")
ENGINES = ("onnxruntime", "openvino", "paddlepaddle", "paddlepaddle-gpu", "MNN", "ncnn")

#: What names and draws classes: no part of a network.
NAMES = ("dataset.classes", "dataset.colours")
