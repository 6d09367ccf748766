"""A child process that trains nothing: started as the trainer is, it ends with a signal at the job named 'poison'."""

import os
import signal
import sys

from likeness.jobs.job import read_order
from likeness.jobs.process import Inbox, attach


def main() -> None:
    line, options = attach(sys.argv)
    inbox = Inbox(line, options["lease_s"])
    line.send(event="ready")
    working: list[str] = []
    while True:
        for said in inbox.take(None):
            if said["do"] == "leave":
                line.send(event="left", job=said["job"])
            if said["do"] == "work":
                working.append(said["job"])
                line.send(event="began", job=said["job"])
                line.send(event="joined", job=said["job"], alone=said["alone"], together=len(working))
                if read_order(said["order"]).name == "poison":
                    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
