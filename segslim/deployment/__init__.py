"""A trained network becomes the files that ship: Paddle inference model, deploy.yaml, ONNX.

`export` needs Paddle and is imported from `segslim.deployment.export`; `onnx_cost` needs only onnx.
"""
