"""Runs a server in a network namespace with nothing but loopback: `unshare --net python isolated_network.py`.

Triton's SageMaker port and `likeness serve --sagemaker` bind every interface. Here there is only loopback: no server is
started if another interface is up. Ports are relayed to Unix sockets, which do not belong to a network namespace.

    isolated_network.py --relay PORT=SOCKET ... -- COMMAND ...

The server ends when standard input does, that is with the process that started this one, even if that was killed.
Source of the kernel requests: netdevice(7), prctl(2).
"""

import argparse
import asyncio
import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

_REQUEST = struct.Struct("16sH14x")  # struct ifreq with flags
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
LOOPBACK = "lo"
GRACE_S = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--relay", action="append", default=[], metavar="PORT=SOCKET")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    set_up(LOOPBACK)
    if others := interfaces_up() - {LOOPBACK}:
        sys.exit(f"refused: expected a network with nothing but loopback, got {len(others)} other interface(s) up")
    relays = {int(port): Path(path) for port, _, path in (word.partition("=") for word in args.relay)}
    sys.exit(asyncio.run(serve(args.command, relays)))


def interfaces_up() -> set[str]:
    """Names of the interfaces of this network namespace that are up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        return {name for _, name in socket.if_nameindex() if _flags(any_socket, name) & _UP}


def set_up(name: str) -> None:
    """Bring an interface up. Raises OSError where that is not allowed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        flags = _flags(any_socket, name)
        if not flags & _UP:
            fcntl.ioctl(any_socket, _SET_FLAGS, _REQUEST.pack(name.encode(), flags | _UP))


async def serve(command: Sequence[str], relays: dict[int, Path]) -> int:
    """Run the command until it, or standard input, ends; its exit status."""
    loop, until = asyncio.get_running_loop(), asyncio.Event()
    os.set_blocking(sys.stdin.fileno(), False)
    loop.add_reader(sys.stdin.fileno(), until.set)  # never written to: readable at its end only
    for end in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(end, until.set)
    server = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent
    )
    listeners = [await _relay(port, path) for port, path in relays.items()]
    ended, told = asyncio.ensure_future(server.wait()), asyncio.ensure_future(until.wait())
    await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
    for listener in listeners:
        listener.close()
    if server.returncode is None:
        server.terminate()
        try:
            await asyncio.wait_for(asyncio.shield(ended), GRACE_S)
        except TimeoutError:
            server.kill()
    return await ended


async def _relay(port: int, path: Path) -> asyncio.Server:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
        for side in (inner_writer, writer):
            side.close()

    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = await asyncio.start_unix_server(connected, path)
    path.chmod(0o600)
    return listener


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        if writer.can_write_eof():
            writer.write_eof()


def _flags(any_socket: socket.socket, name: str) -> int:
    flags: int = _REQUEST.unpack(fcntl.ioctl(any_socket, _GET_FLAGS, _REQUEST.pack(name.encode(), 0)))[1]
    return flags


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


if __name__ == "__main__":
    main()
