"""CSV: for a spreadsheet, pandas, or `tail -f`."""

from pathlib import Path


class CsvLogger:
    """scalars.csv in the run's folder: one line `tag,step,value` for every number."""

    def __init__(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._stream = (Path(folder) / "scalars.csv").open("w", encoding="utf-8", buffering=1)
        self._stream.write("tag,step,value\n")

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._stream.write(f"{tag},{step},{value:.9g}\n")

    def close(self) -> None:
        self._stream.close()
