"""Class ids of images from an export folder and nothing else: `python -m segslim predict RUN SOURCE`.

    from segslim.predict import open_predictor
    predictor = open_predictor(Path("export"))
    ids = predictor.predict(predictor.read(Path("street.jpg")))

An export folder may come from anybody: it is read as data (deploy.yaml without Python objects, transforms from a list
of those allowed) and no file outside it is opened. Paddle is imported only for the engine of that name, which runs what
a Paddle model tells it: do not use it on a folder that you do not trust.
"""

from segslim.predict.predictor import Predictor, open_predictor, read_image

__all__ = ["Predictor", "open_predictor", "read_image"]
