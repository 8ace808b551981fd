"""The processes that train one network together, and what they exchange.

Gradients and logits go through Paddle: gloo on the CPU, NCCL on GPUs. On the CPU, the small arrays of batch norm go
through sockets of their own: gloo takes 0.9 to 1.8 ms for 128 floats between two processes, a socket a tenth of that,
and each batch norm layer exchanges two such arrays a step.
"""

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from segslim.paddle_compat import import_paddle


@dataclass(frozen=True)
class ProcessGroup:
    """Process `rank` of `size`. The default is one process that trains alone.

    `connections` are, on the CPU, those of process 0 to each other one, by rank, and that of each other one to it.
    """

    rank: int = 0
    size: int = 1
    connections: tuple[Connection, ...] = ()

    @property
    def leads(self) -> bool:
        """Whether this is the process that evaluates, writes files and reports."""
        return self.rank == 0

    def all_gather(self, own: np.ndarray) -> np.ndarray:
        """Returns the arrays of all processes, stacked along a new first axis: bit-identical in all of them."""
        if self.size == 1:
            return own[None]
        if not self.connections:
            return self.all_gather_tensor(import_paddle().to_tensor(own[None])).numpy()
        data = np.ascontiguousarray(own).tobytes()
        if self.rank == 0:
            data += b"".join(connection.recv_bytes() for connection in self.connections)
            for connection in self.connections:
                connection.send_bytes(data)
        else:
            self.connections[0].send_bytes(data)
            data = self.connections[0].recv_bytes()
        return np.frombuffer(data, own.dtype).reshape(self.size, *own.shape)

    def all_gather_tensor(self, own: Any) -> Any:
        """Returns the tensors of all processes, concatenated along their first axis; without a gradient."""
        paddle = import_paddle()
        parts: list[Any] = []
        paddle.distributed.all_gather(parts, own)
        return paddle.concat(parts)

    def sum_gradients(self, parameters: Sequence[Any]) -> None:
        """Replaces each gradient by its sum over the processes, all in one message."""
        if self.size == 1:
            return
        paddle = import_paddle()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = paddle.concat([gradient.reshape([-1]) for gradient in gradients])
        paddle.distributed.all_reduce(flat)
        for gradient, part in zip(gradients, paddle.split(flat, [each.size for each in gradients]), strict=True):
            gradient.set_value(part.reshape(gradient.shape))


ALONE = ProcessGroup()


def join_process_group(device: str) -> ProcessGroup:
    """Joins the group that the variables PADDLE_TRAINER_... describe, which `paddle.distributed.launch` sets, too."""
    size = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
    if size == 1:
        return ALONE
    rank = int(os.environ["PADDLE_TRAINER_ID"])
    host, _, store_port = os.environ["PADDLE_TRAINER_ENDPOINTS"].split(",")[0].rpartition(":")
    while rank > 0 and "PADDLE_MASTER" not in os.environ:
        # Paddle retries only after three seconds where process 0 does not listen yet: wait for it here
        try:
            socket.create_connection((host, int(store_port))).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    import_paddle().distributed.init_parallel_env()
    if device != "cpu":
        return ProcessGroup(rank, size)
    server = socket.create_server((host, 0)) if rank == 0 else None
    ports = ProcessGroup(rank, size).all_gather(np.array([server.getsockname()[1] if server else 0], np.int64))
    return ProcessGroup(rank, size, connect(server or (host, int(ports[0, 0])), rank, size))


def connect(server: socket.socket | tuple[str, int], rank: int, size: int) -> tuple[Connection, ...]:
    """Returns the connections of a ProcessGroup.

    Args:
        server: for process 0, the socket that listens, which is closed; for the others, its address.
        rank: of this process.
        size: of the group.
    """
    if isinstance(server, socket.socket):
        with server:
            accepted = [_connection(server.accept()[0]) for _ in range(size - 1)]
        by_rank = {int.from_bytes(connection.recv_bytes(), "big"): connection for connection in accepted}
        return tuple(by_rank[rank] for rank in range(1, size))  # they come in any order
    connection = _connection(socket.create_connection(server))
    connection.send_bytes(rank.to_bytes(4, "big"))
    return (connection,)


def _connection(connected: socket.socket) -> Connection:
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else a small message may wait for 40 ms
    return Connection(connected.detach())
