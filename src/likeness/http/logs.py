"""The server's log: one JSON object per line on standard error. `extra` adds fields; prompts are never logged."""

import json
import logging
import sys
from datetime import UTC, datetime

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class JsonLines(logging.Formatter):
    """A record as one line: time, level, logger, message, fields of `extra`, and the traceback of an error."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _PLAIN and value is not None}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_to_stderr(level: str = "INFO") -> None:
    """Write logs and warnings of all libraries to standard error as JSON lines. Call once per server process.

    Args:
        level: for Likeness and uvicorn; other libraries log warnings and errors.
    """
    told = logging.StreamHandler(sys.stderr)
    told.setFormatter(JsonLines())
    for name in ("likeness", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [told], False
        logger.setLevel(level)
    root = logging.getLogger()
    root.handlers = [told]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    logging.getLogger("uvicorn.access").disabled = True  # the boundary's line has more fields, without the path
