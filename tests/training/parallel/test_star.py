import threading

from segslim.training.parallel import star


def test_every_process_gets_what_each_gave_in_their_order() -> None:
    server, heard = star.listen("127.0.0.1"), {}
    host, port = server.getsockname()

    def take_part(rank: int) -> None:
        connected = star.centre(server, 3) if rank == 0 else star.ray(host, port, rank)
        heard[rank] = [connected.exchange(rank, 3, bytes([10 * rank + turn]) * 100_000) for turn in range(3)]

    threads = [threading.Thread(target=take_part, args=[rank]) for rank in (2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [b"".join(bytes([10 * rank + turn]) * 100_000 for rank in range(3)) for turn in range(3)]
    assert heard == dict.fromkeys(range(3), expected)
