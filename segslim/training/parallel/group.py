"""The processes that train one network together, as one of them sees them."""

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segslim.paddle_compat import import_paddle
from segslim.training.parallel import star


@dataclass(frozen=True)
class Group:
    """Process `rank` of `size`. A process alone is its own group, and does nothing together."""

    rank: int = 0
    size: int = 1
    centre: star.Star | None = None

    @property
    def leads(self) -> bool:
        """Whether this is the process that evaluates, writes and tells."""
        return self.rank == 0

    def gathered(self, own: np.ndarray) -> np.ndarray:
        """What each process gives, along a new first axis: the same, bit for bit, in all."""
        if self.size == 1:
            return own[None]
        if self.centre is not None:
            everything = self.centre.exchange(self.rank, self.size, np.ascontiguousarray(own).tobytes())
            return np.frombuffer(everything, own.dtype).reshape(self.size, *own.shape)
        return self.gathered_tensor(import_paddle().to_tensor(own[None])).numpy()

    def gathered_tensor(self, own: Any) -> Any:
        """The tensors of all processes, along their first axis."""
        paddle = import_paddle()
        parts: list[Any] = []
        paddle.distributed.all_gather(parts, own)
        return paddle.concat(parts)

    def share_of(self, amount: float) -> float:
        """This process's `amount` as a fraction of all processes' together; of nothing it is nothing."""
        total = float(self.gathered(np.array([amount])).sum())
        return amount / total if total else 0.0

    def sum_gradients(self, parameters: Sequence[Any]) -> None:
        """Replaces each gradient by its sum over the processes, all in one message."""
        if self.size == 1:
            return
        paddle = import_paddle()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        together = paddle.concat([gradient.reshape([-1]) for gradient in gradients])
        paddle.distributed.all_reduce(together)
        parts = paddle.split(together, [gradient.size for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.set_value(part.reshape(gradient.shape))


ALONE = Group()


def join_group(device: str) -> Group:
    """The group that the variables PADDLE_TRAINER_... describe, as `paddle.distributed.launch` sets them."""
    size = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
    if size == 1:
        return ALONE
    distributed = import_paddle().distributed
    rank = int(os.environ["PADDLE_TRAINER_ID"])
    host, _, port_of_store = os.environ["PADDLE_TRAINER_ENDPOINTS"].split(",")[0].rpartition(":")
    if rank > 0 and "PADDLE_MASTER" not in os.environ:
        _wait_for(host, int(port_of_store))
    distributed.init_parallel_env()
    if device != "cpu":
        return Group(rank, size)
    server = star.listen(host) if rank == 0 else None
    port = server.getsockname()[1] if server else 0
    ports = Group(rank, size).gathered(np.array([port], np.int64))
    return Group(rank, size, star.centre(server, size) if server else star.ray(host, int(ports[0, 0]), rank))


def _wait_for(host: str, port: int) -> None:
    """Until process 0 listens. Paddle, too early, tries again after three seconds."""
    while True:
        try:
            socket.create_connection((host, port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
