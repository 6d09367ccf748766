"""A PostgreSQL of the test's own: Debian's binaries, a fresh cluster, a free port, an unprivileged user."""

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import HANG_S

BINARIES = Path("/usr/lib/postgresql/15/bin")
USER = "postgres"


class Postgres:
    """A running cluster. `stop` and `start` are what a database administrator would do at night."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        if os.getuid() == 0:
            shutil.chown(folder, USER, USER)
        self._run("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", USER, "--no-sync")

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        self._run(
            "pg_ctl", "-D", str(self.folder / "data"), "-w", "-l", str(self.folder / "log"), "-o", options, "start"
        )

    def stop(self) -> None:
        """As a crash would: connections break, nothing is said."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *words: str) -> None:
        as_user: dict[str, Any] = {}
        if os.getuid() == 0:  # PostgreSQL does not run as root
            user = pwd.getpwnam(USER)
            as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        subprocess.run(
            [str(BINARIES / program), *words], check=True, capture_output=True, timeout=HANG_S, cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}, **as_user,
        )  # fmt: skip


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """A cluster while the block runs; skips the test where there are no binaries."""
    if not (BINARIES / "postgres").exists():
        pytest.skip("PostgreSQL 15 is not installed (Debian: apt-get install postgresql)")
    if os.getuid() == 0 and USER not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip("this is root, and there is no user postgres to run it as")
    folder.mkdir(mode=0o755)
    cluster = Postgres(folder)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()
