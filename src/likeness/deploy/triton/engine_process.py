"""The process that holds the device for Triton's thin models: `python -m likeness.deploy.triton.engine_process`.

A composition root: it reads the settings (LIKENESS_BASE, LIKENESS_SLOTS, ...), loads the base, and answers at a socket
until the process that it watches is gone. The first model that needs it starts it (`artifacts.triton.engine_client`).
"""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ...artifacts.triton.engine_client import REFUSED
from ...config import settings_from
from ...errors import LikenessError
from ..archive_engine import archive_engine

if TYPE_CHECKING:
    from ...engine.local_server import LocalServer


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--socket", type=Path, required=True, help="appears when the engine answers")
    parser.add_argument("--base-sha256", required=True, help="the base that is asked for; another is refused")
    parser.add_argument("--watch-pid", type=int, required=True, help="the engine ends when this process does")
    args = parser.parse_args()
    try:
        run(args.socket, args.base_sha256, args.watch_pid)
    except LikenessError as error:
        sys.exit(f"{REFUSED}{error}")


def run(socket: Path, base_sha256: str, watch_pid: int) -> None:
    """Serve until process `watch_pid` has ended, or SIGTERM.

    Raises:
        WrongBase: the settings name another base than the one that is asked for.
        NotFound, CorruptBase, SettingsError: as `archive_engine` and `settings_from`.
    """
    watched = os.pidfd_open(watch_pid)  # before the slow part: a number may be given to another process later
    from ...engine.local_server import LocalServer

    with archive_engine(settings_from(), base_sha256=base_sha256) as (engine, encode):
        asyncio.run(_serve(LocalServer(engine, encode=encode), socket, watched))


async def _serve(server: "LocalServer", socket: Path, watched: int) -> None:
    loop, until = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(watched, until.set)  # a pidfd is readable when its process has ended (pidfd_open(2))
    for end in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(end, until.set)
    await server.serve(socket, until)


if __name__ == "__main__":
    main()
