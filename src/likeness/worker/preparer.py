"""The child process that reads uploaded photographs: archive in, prepared photographs out, one job at a time.

It is a process of its own because decoders and face detectors are native code: a crash ends no training, and since it
works on one job at a time, it is known which photographs caused it.
"""

import sys
from typing import Any

from ..errors import LikenessError, OutOfMemory, StorageUnavailable
from ..jobs.inputs import read_input, refuse_without_photos, with_config
from ..jobs.job import read_order
from ..types import Advance
from .child_process import Document, Inbox, Line, attach


def main(argv: list[str]) -> None:
    """Serve one worker until it ends."""
    line, options = attach(argv)
    inbox = Inbox(line, options["lease_s"])
    from ..storage.objects import objects_at

    objects = objects_at(options["objects"])
    line.send(event="ready")
    waiting: list[Document] = []
    while True:
        for said in inbox.take(None if not waiting else 0.0):
            if said["do"] == "stop":
                return
            if said["do"] == "leave":
                waiting = [one for one in waiting if one["job"] != said["job"]]
                line.send(event="left", job=said["job"])
            else:
                waiting.append(said)
        if waiting:
            serve(line, objects, waiting.pop(0))


def serve(line: Line, objects: Any, asked: Document) -> None:
    job = asked["job"]
    line.send(event="began", job=job)
    try:
        if asked.get("only") == "order":
            read = read_input(objects.get(asked["photos"]))
            refuse_without_photos(read.photos)
            order = with_config(read_order(asked["order"]), read.config)
            line.send(event="configured", job=job, order=order.document(), consent=read.consent)
        else:
            line.send(event="prepared", job=job, photos=_prepare(line, objects, asked))
    except (StorageUnavailable, OSError) as error:  # ours: the job waits and tries again
        line.send(event="fault", job=job, fault=type(error).__name__, message=_safe(error))
    except LikenessError as error:
        line.send(event="failed", job=job, code=error.code, message=error.message, hint=error.hint)
    except MemoryError:
        full = OutOfMemory("the photographs need more memory than there is", hint="send smaller photographs")
        line.send(event="failed", job=job, code=full.code, message=full.message, hint=full.hint)


def _prepare(line: Line, objects: Any, asked: Document) -> int:
    """Check and crop; the order is the final one. Returns how many photographs can be used."""
    from ..photos import check, prepare_usable
    from ..storage.prepared_photos import pack_prepared
    from ..types import kind_of

    content = read_input(objects.get(asked["photos"]))
    order = read_order(asked["order"])
    checked = check(
        content.photos, kind_of(order.class_noun), keep_strangers=order.keep_strangers,
        has_consent=asked["has_consent"],
    )  # fmt: skip
    line.send(event="checked", job=asked["job"], report=checked.to_json())
    checked.raise_if_refused()

    def watch(advance: Advance) -> None:
        line.send(event="advance", job=asked["job"], **advance.to_json())

    aspects = [(height, width) for height, width in asked["aspects"]]
    prepared = prepare_usable(checked, size_px=asked["size_px"], aspects=aspects, watch=watch)
    objects.put(asked["prepared"], pack_prepared(prepared))
    return len(checked.usable)


def _safe(error: Exception) -> str:
    return error.message if isinstance(error, LikenessError) else getattr(error, "strerror", None) or "unknown"


if __name__ == "__main__":
    main(sys.argv)
