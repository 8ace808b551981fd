"""A trained network becomes the files that ship: Paddle inference model, deploy.yaml, ONNX.

A network and its options come in, files checked against it go out. It must not know how fast an engine runs them, nor
how the network was made. `export` needs Paddle and is imported from `segslim.deployment.export`.
"""
