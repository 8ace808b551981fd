"""TensorBoard: `tensorboard --logdir outputs` (or multirun) shows every run below."""

from pathlib import Path

from segslim.loggers.files import fresh_folder, require


class TensorBoardLogger:
    """Event files in `tensorboard/` in the run's folder, by tensorboardX, which needs no TensorFlow."""

    def __init__(self, folder: str) -> None:
        require("tensorboard", "tensorboardX", group="tensorboard")
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(fresh_folder(Path(folder) / "tensorboard")), flush_secs=5)

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._writer.add_scalar(tag, value, step)

    def close(self) -> None:
        self._writer.close()
