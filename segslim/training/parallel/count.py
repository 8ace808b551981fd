"""How many processes train a network."""

from segslim.hardware import cores
from segslim.paddle_compat import import_paddle

WORTH_IT = 5_000_000  # pixels: starting processes takes as long as training Fast-SCNN on so many


def count_processes(asked: int | str, device: str, batch_size: int, pixels: int) -> int:
    """`asked`, or for "auto" as many as there are GPUs, or CPU cores of this process, and the batch divides by.

    `pixels` is what the training sees, in all its iterations: on the CPU "auto" is 1 for less than WORTH_IT.
    """
    if asked != "auto":
        return int(asked)
    if device == "cpu":
        available = cores() if pixels >= WORTH_IT else 1
    else:
        available = import_paddle().device.cuda.device_count()
    return max(count for count in range(1, max(available, 1) + 1) if batch_size % count == 0)
