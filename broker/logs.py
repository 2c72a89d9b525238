"""The service's log: one JSON object a line on stderr, tracebacks without the values of variables."""

import logging
import sys

import structlog


def configure_log(level: str) -> None:
    """Set the log up for this process; `level` is a name such as `info`.

    The default of structlog would draw every local variable beside a traceback: bodies, headers, tokens.
    """
    least = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
