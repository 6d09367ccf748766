"""The log of a server: one JSON object a line on standard error. Fields are added with `extra`; prompts never are."""

import json
import logging
import sys
from datetime import UTC, datetime

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class JsonLines(logging.Formatter):
    """A record as one line: time, level, logger, message, what `extra` added, and the stack of an error."""

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
    """Send what Likeness and uvicorn say to standard error as JSON lines. For a server's process, once."""
    told = logging.StreamHandler(sys.stderr)
    told.setFormatter(JsonLines())
    for name in ("likeness", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [told], False
        logger.setLevel(level)
    logging.getLogger("uvicorn.access").disabled = True  # our own line says more, and no path
