"""The rate of a bare socket on this machine, at this moment: what a state transfer can reach.

python -m benchmarks.reform.sockets BYTES
"""

import asyncio
import os
import socket
import sys
import time

from benchmarks.publish import ROOT


def main(size: int) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    if os.fork() == 0:
        with socket.create_connection(listener.getsockname()) as sender:
            sender.sendall(bytes(size))
        os._exit(0)
    connection, _ = listener.accept()
    buffer = memoryview(bytearray(size))
    started = time.monotonic()
    while len(buffer):
        buffer = buffer[connection.recv_into(buffer) :]
    print(size / (time.monotonic() - started))
    os.wait()


async def bytes_per_second(size: int) -> float:
    """Return the rate between two processes over loopback."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.reform.sockets", str(size)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return float(output)


if __name__ == "__main__":
    main(int(sys.argv[1]))
