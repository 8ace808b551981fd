"""Runs that `python -m paddle.distributed.launch` started, on one host or several, which train together.

Each takes part with one process. The first run leads: it does all that is no training, and the others start a process
for each of its trainings. What they say to each other goes through a connection of each to the first, which stays open
from before any work to the end: so no run takes part in a launch that is not its own, and none outlives the first.
"""

import json
import os
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from textwrap import shorten
from typing import Any

from segslim.errors import Interrupted, UserError, deferred
from segslim.streams import complain
from segslim.training.processes import Member, start, supervise

PATIENCE = 10.0  # seconds, before it is said what is waited for
LIMIT = 600.0  # seconds within which all runs of a launch have to begin
GREETING = 5  # seconds within which who has begun to speak has to say who it is
ANSWER = 60  # seconds within which the first run answers: others may speak before
LOOKING = 5.0  # seconds in which a new file becomes visible on a shared file system
GRACE = 5.0  # seconds in which another host says why its process ended
LARGEST = 1 << 26  # bytes of a message


class Peer:
    """Another run of the launch: messages (kind, content) to it and from it, plain values as JSON."""

    def __init__(self, connected: socket.socket) -> None:
        self.rank, self.host = 0, "?"
        connected.setblocking(True)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):  # otherwise a host without power is missed after two hours
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._connection = Connection(connected.detach())

    def fileno(self) -> int:
        return self._connection.fileno()

    def send(self, kind: str, content: Any = None) -> None:
        """Raises OSError where it has ended."""
        self._connection.send_bytes(json.dumps([kind, content]).encode())

    def recv(self) -> tuple[str, Any]:
        """Waits for a message. Raises EOFError, OSError or ValueError where it has ended."""
        kind, content = json.loads(self._connection.recv_bytes(LARGEST))
        return str(kind), content

    def says(self, seconds: float) -> bool:
        return self._connection.poll(seconds)

    def wait_at_most(self, seconds: int) -> None:
        """From now on `recv` raises OSError where nothing comes for so long; with 0 it waits."""
        with socket.socket(fileno=os.dup(self.fileno())) as connected:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, 0))

    def close(self) -> None:
        self._connection.close()


@dataclass
class Launch:
    """The place of this run among those that Paddle's launcher started.

    `addresses` are HOST:PORT of each, by rank, as the launcher gave them. `peers` are, of the first run, the others by
    rank, and of another the first, from `together` on.
    """

    rank: int
    addresses: Sequence[str]
    peers: list[Peer] = field(default_factory=list)

    @classmethod
    @cache  # since its connections last as long as this process
    def of_this_process(cls) -> "Launch | None":
        """By the variables that Paddle's launcher sets; None for a run by itself."""
        if int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) == 1:
            return None
        return cls(int(os.environ["PADDLE_TRAINER_ID"]), os.environ["PADDLE_TRAINER_ENDPOINTS"].split(","))

    @property
    def size(self) -> int:
        return len(self.addresses)

    def check(self, stage: str, batch_size: int) -> None:
        """Raises UserError when a batch cannot be divided equally."""
        if batch_size % self.size:
            raise UserError(
                f"{stage}.batch_size={batch_size}: should be a multiple of {self.size}, the launched processes"
            )

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within it all runs of the launch are connected; how this one ends, the others are told.

        Raises UserError where one of them does not begin.
        """
        self.peers = self._accept() if self.rank == 0 else [self._connect()]
        try:
            self._check_own_name()
            yield
        except Interrupted as stopped:
            self._tell("stopped", [stopped.exit_code - 128, stopped.reached])
            raise
        except UserError as error:
            self._tell("error", str(error))
            raise
        except BaseException:
            self._tell("error", f"{self._name(self.rank, socket.gethostname())} has failed: its log says why")
            raise
        else:
            self._tell("end")
        finally:
            _close(self.peers)

    def _check_own_name(self) -> None:
        """Raises UserError where the name of this host leads the others to themselves: Paddle's gloo (2.6 to 3.3) gives
        it to them, whatever addresses the launcher knows.
        """
        own = self.addresses[self.rank].rpartition(":")[0]
        if len({address.rpartition(":")[0] for address in self.addresses}) == 1:
            return
        with suppress(OSError):
            found = socket.gethostbyname(socket.gethostname())
            if found.startswith("127."):
                raise UserError(
                    f"launch: the name of this host, {socket.gethostname()}, means {found} here, by which no other host"
                    f" reaches it: give it {own} in /etc/hosts"
                )

    def _tell(self, kind: str, content: Any = None) -> None:
        for peer in self.peers:
            with suppress(OSError):  # it has ended
                peer.send(kind, content)

    def _accept(self) -> list[Peer]:
        host, _, port = self.addresses[0].rpartition(":")
        try:
            server = socket.create_server((host, int(port)))
        except OSError as error:
            raise UserError(
                f"launch: {self.addresses[0]}, the address of the first process, cannot be used ({error.strerror}):"
                " does another launch run? Give --start_port another number"
            ) from None
        found: dict[int, Peer] = {}
        silent: list[Peer] = []  # who has connected, and not said who it is
        begun, told = time.monotonic(), False
        with ExitStack() as stack:
            stack.enter_context(server)
            stack.callback(_close, silent)
            server.settimeout(1.0)
            while len(found) < self.size - 1:
                heard: list[Any] = [server, *silent]
                speakers: list[Any] = wait(heard, 1.0)
                for speaker in speakers:
                    if speaker is server:
                        with suppress(OSError):  # it has gone again
                            silent.append(Peer(server.accept()[0]))
                        continue
                    silent.remove(speaker)
                    if self._greeted(speaker) and speaker.rank not in found:
                        found[speaker.rank] = speaker
                    else:
                        speaker.close()
                waited = time.monotonic() - begun
                missing = [self._name(rank, self.addresses[rank]) for rank in range(1, self.size) if rank not in found]
                if missing and waited > PATIENCE and not told:
                    complain(f"launch: waiting for {', '.join(missing)}")
                    told = True
                if missing and waited > LIMIT:
                    raise UserError(f"launch: {', '.join(missing)} did not begin within {LIMIT:.0f} seconds")
        return [found[rank] for rank in sorted(found)]

    def _greeted(self, peer: Peer) -> bool:
        """Whether who has connected is a run of this launch; otherwise it is a stranger, who may say anything."""
        try:
            peer.wait_at_most(GREETING)
            kind, content = peer.recv()
            if kind != "segslim" or content["size"] != self.size or not 0 < content["rank"] < self.size:
                return False
            peer.rank, peer.host = content["rank"], str(content["host"])
            peer.send("segslim", socket.gethostname())
            if peer.recv()[0] != "here":  # otherwise it may have given up meanwhile, and connect again
                return False
            peer.wait_at_most(0)
        except (EOFError, OSError, ValueError, TypeError, KeyError):
            return False
        return True

    def _connect(self) -> Peer:
        host, _, port = self.addresses[0].rpartition(":")
        begun, told = time.monotonic(), False
        while True:
            with suppress(OSError, EOFError, ValueError):  # it has not begun
                peer = Peer(socket.create_connection((host, int(port)), timeout=PATIENCE))
                peer.send("segslim", {"rank": self.rank, "size": self.size, "host": socket.gethostname()})
                peer.wait_at_most(ANSWER)
                kind, content = peer.recv()
                if kind == "segslim":
                    peer.host = str(content)
                    peer.send("here")
                    peer.wait_at_most(0)
                    return peer
            waited = time.monotonic() - begun
            if waited > PATIENCE and not told:
                complain(f"launch: waiting for {self._name(0, self.addresses[0])}")
                told = True
            if waited > LIMIT:
                raise UserError(
                    f"launch: {self._name(0, self.addresses[0])} did not begin within {LIMIT:.0f} seconds, or cannot be"
                    " reached from here: hosts of a launch need all ports to each other"
                )
            time.sleep(0.1)

    def _name(self, rank: int, host: str) -> str:
        return f"process {rank} of {self.size}, on {host}"

    def agree(self, facts: Mapping[str, Any], store: Path) -> None:
        """Called by every run before it works: whether all would train the same, into one store.

        Args:
            facts: {what: plain value}, all that a training depends on, its causes before what follows from them.
            store: the folder.

        Raises UserError, in all of them, for the first difference, and where one does not see the store of the first.
        """
        facts = json.loads(json.dumps(facts))  # as the others get them: a tuple is a list
        if self.rank > 0:
            first = self.peers[0]
            self._say(first, "facts", facts)
            _, probe = self._heard(first, "probe")
            self._say(first, "sees", _becomes_visible(Path(probe)))
            self._heard(first, "agreed")
            return
        for peer in self.peers:
            (_, theirs), name = self._heard(peer, "facts"), self._name(peer.rank, peer.host)
            for key in [*facts, *(theirs.keys() - facts.keys())]:
                there, here = (shorten(str(one.get(key, "none")), 60, placeholder="...") for one in (theirs, facts))
                if theirs.get(key) != facts.get(key):
                    raise UserError(
                        f"launch: {key} is {there} for {name}, and {here} for process 0: give the same command, on the"
                        " same data, to every host"
                    )
        with tempfile.NamedTemporaryFile(dir=store, prefix=".launch-") as probe:
            for peer in self.peers:
                self._say(peer, "probe", probe.name)
            for peer in self.peers:
                if self._heard(peer, "sees") != ("sees", True):
                    raise UserError(
                        f"store={store}: {self._name(peer.rank, peer.host)} does not see what process 0, on"
                        f" {socket.gethostname()}, writes there: give store=DIR on a file system that all hosts share"
                    )
        for peer in self.peers:
            self._say(peer, "agreed")

    def _say(self, peer: Peer, kind: str, content: Any = None) -> None:
        try:
            peer.send(kind, content)
        except OSError:
            self._heard(peer)  # raises why it has ended, if it said so

    def _heard(self, peer: Peer, *kinds: str) -> tuple[str, Any]:
        """What it says next, of these kinds, waited for. Raises UserError or Interrupted where it ends instead."""
        try:
            while True:
                kind, content = peer.recv()
                if kind == "error":
                    raise UserError(str(content))
                if kind == "stopped":
                    raise Interrupted(*content)
                if kind in kinds:
                    return kind, content
        except (EOFError, OSError, ValueError):
            raise UserError(
                f"launch: {self._name(peer.rank, peer.host)} has ended, or cannot be reached: what is finished is kept;"
                " the same command goes on from there"
            ) from None

    def train(
        self,
        command: Sequence[str],
        job: Mapping[str, Any],
        device: str,
        on_message: Callable[[str, Any], None],
        stop: Callable[[], int],
    ) -> Any:
        """Called by the first run: a training by all. As `run_processes`, with one process of each run."""
        host = self.addresses[0].rpartition(":")[0]
        with socket.create_server((host, 0)) as free:  # that of the launcher was this run's own
            address = f"{host}:{free.getsockname()[1]}"
        asked: list[int] = []

        def listen(kind: str, content: Any) -> None:
            if kind == "stop":
                asked.append(int(content))
            else:
                on_message(kind, content)

        for peer in self.peers:
            self._say(peer, "train", {"job": dict(job), "device": device, "address": address})
        with start(command, job, device, 0, [address, *self.addresses[1:]]) as own:
            own.name = self._name(0, socket.gethostname())
            others = [Member(self._name(peer.rank, peer.host), peer) for peer in self.peers]
            return supervise([own, *others], listen, lambda: stop() or (asked[0] if asked else 0), GRACE)

    def follow(self, command: Sequence[str]) -> None:
        """Called by the other runs: takes part in each training, until the first run ends."""
        first = self.peers[0]
        ahead: list[tuple[str, Any]] = []  # what the first run said before the process of this one was done
        while True:
            kind, content = ahead.pop() if ahead else self._heard(first, "train", "end")
            if kind == "end":
                return
            self._take_part(command, content, first, ahead)

    def _take_part(
        self, command: Sequence[str], asked: Mapping[str, Any], first: Peer, ahead: list[tuple[str, Any]]
    ) -> None:
        addresses, signalled = [asked["address"], *self.addresses[1:]], False
        leader = Member(self._name(0, first.host), first)

        def listen(kind: str, content: Any) -> None:
            if kind in ("train", "end"):  # the rest is how far this run's process is
                ahead.append((kind, content))
            if kind == "end":  # it closes its connection then
                leader.ending = "result", None

        def stop() -> int:
            """It is the first run's process that saves: a signal that comes here is passed on."""
            nonlocal signalled
            if came() and not signalled:
                signalled = True
                self._say(first, "stop", came())
            return 0

        with deferred() as came, start(command, asked["job"], asked["device"], self.rank, addresses) as own:
            own.name = self._name(self.rank, socket.gethostname())
            try:
                supervise([own, leader], listen, stop)
            except Exception:
                if leader.ending[0] or leader.closed:
                    raise
                self._say(first, *(("killed", own.how_it_ended) if own.how_it_ended else own.ending))
                if first.says(2 * GRACE):
                    self._heard(first)  # raises what the first run makes of it: all say the same
                raise


def _close(peers: Iterable[Peer]) -> None:
    for peer in peers:
        peer.close()


def _becomes_visible(file: Path) -> bool:
    until = time.monotonic() + LOOKING
    while not file.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


@contextmanager
def together(launch: Launch | None) -> Iterator[None]:
    """The launch's `together`, where there is one."""
    with ExitStack() as stack:
        if launch is not None:
            stack.enter_context(launch.together())
        yield
