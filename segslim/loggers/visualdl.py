"""VisualDL: `visualdl --logdir outputs` shows every run below, as after PaddleSeg's --use_vdl."""

from pathlib import Path

from segslim.loggers.files import fresh_folder


class VisualDlLogger:
    """Records in `visualdl/` in the run's folder. PaddleSeg has the package installed."""

    def __init__(self, folder: str) -> None:
        from visualdl import LogWriter

        self._writer = LogWriter(logdir=str(fresh_folder(Path(folder) / "visualdl")), flush_secs=5)

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._writer.add_scalar(tag=tag, value=value, step=step)

    def close(self) -> None:
        self._writer.close()
