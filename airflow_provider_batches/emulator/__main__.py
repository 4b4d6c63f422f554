from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from airflow_provider_batches.emulator.behavior import Behavior
from airflow_provider_batches.emulator.requestlog import LoggedRequest
from airflow_provider_batches.emulator.server import Emulator

DEFAULT_KEY = "sk-ant-emulator"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the emulator until SIGINT or SIGTERM."""
    options = vars(_parser().parse_args(argv))
    changes: dict[str, Any] = dict(options.pop("behavior"))
    verbose = options.pop("verbose")
    try:
        api = Emulator(behavior=Behavior(**changes), on_request=_show if verbose else None, **options)
        api.start()
    except (OSError, TypeError, ValueError) as e:
        print(f"The emulator cannot start: {e}", file=sys.stderr)
        return 1
    stop = threading.Event()
    handlers = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    key = DEFAULT_KEY if api.api_key == DEFAULT_KEY else "as given"
    print(f"Message Batches emulator on {api.url} (API key: {key})", flush=True)
    stop.wait()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    api.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_batches.emulator",
        description="A local server that emulates the Message Batches API, for demos and tests.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    key = os.environ.get("BATCHES_EMULATOR_API_KEY", DEFAULT_KEY)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8182, help="port to listen on; 0 selects a free one")
    parser.add_argument("--allow-remote", action="store_true", default=False, help="allow non-loopback addresses")
    parser.add_argument(
        "--api-key", default=key, metavar="KEY", help="the key to accept; better set BATCHES_EMULATOR_API_KEY"
    )
    parser.add_argument("--batch-seconds", type=float, default=3600.0, help="seconds that a batch takes")
    parser.add_argument("--cancel-seconds", type=float, default=0.0, help="seconds that a cancel takes")
    parser.add_argument("--requests-per-minute", type=int, default=None, help="rate limit; None for no limit")
    parser.add_argument("--error-fraction", type=float, default=0.0, help="share of requests that end as errored")
    parser.add_argument("--token-seconds", type=float, default=3600.0, help="seconds until an access token expires")
    parser.add_argument("--state", default=None, metavar="FILE", help="keep batches and clock across restarts")
    parser.add_argument("--log-size", type=int, default=10_000, help="number of requests to keep in the log")
    parser.add_argument(
        "--behavior",
        action="append",
        default=[],
        type=_setting,
        metavar="NAME=VALUE",
        help="a field of Behavior, such as cancel_ended=409; may be repeated",
    )
    parser.add_argument("-v", "--verbose", action="store_true", default=False, help="print each request")
    return parser


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    with suppress(ValueError):
        return name, json.loads(value.lower())
    return name, value


def _show(entry: LoggedRequest) -> None:
    clock = time.strftime("%H:%M:%S", time.localtime(entry.time))
    print(f"{clock} {entry.method} {entry.path} {entry.status or 'no answer'} {entry.request_id}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
