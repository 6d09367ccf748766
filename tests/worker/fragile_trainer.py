"""A child process that trains nothing: started as the trainer is, it ends with a signal at the job named 'poison'.

As in the trainer, a job that is alone shares the process with no other: while one works, the others wait.
"""

import os
import signal
import sys

from likeness.jobs.job import read_order
from likeness.worker.child_process import Inbox, attach


def main() -> None:
    line, options = attach(sys.argv)
    inbox = Inbox(line, options["lease_s"])
    line.send(event="ready")
    working: list[str] = []
    while True:
        for said in inbox.take(None):
            if said["do"] == "leave":
                line.send(event="left", job=said["job"])
            if said["do"] == "work" and not (said["alone"] and read_order(said["order"]).name != "poison"):
                working.append(said["job"])
                line.send(event="began", job=said["job"])
                line.send(event="joined", job=said["job"], alone=said["alone"], together=len(working))
                if read_order(said["order"]).name == "poison":
                    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
