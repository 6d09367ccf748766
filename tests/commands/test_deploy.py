"""`likeness deploy triton --local` as a process of its own, over a front that is only played."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.test_serve import SRC, port_of

PLAYED = """
import sys
from contextlib import contextmanager
from pathlib import Path

from likeness.cli import app
from likeness.deploy.triton import local

@contextmanager
def front(likeness, *, most_models):
    weights = Path(sys.argv[1])
    weights.write_text("of a person")
    yield object()
    weights.unlink()

local.local_front = front
app(["deploy", "triton", "--local", "--port", "0"])
"""


@pytest.mark.services
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_whoever_ends_the_server_leaves_nobodys_weights_behind(tmp_path: Path, end: signal.Signals) -> None:
    weights = tmp_path / "weights"
    environment = os.environ | {"LIKENESS_HOME": str(tmp_path / "home"), "PYTHONPATH": SRC}
    with (tmp_path / "server.log").open("w") as said:
        call = [sys.executable, "-c", PLAYED, str(weights)]
        with subprocess.Popen(call, env=environment, stderr=said, stdout=subprocess.PIPE) as process:
            try:
                port_of(process, tmp_path / "server.log")
                assert weights.exists()
                process.send_signal(end)
                assert process.wait() == 0
                assert not weights.exists()
            finally:
                process.kill()
