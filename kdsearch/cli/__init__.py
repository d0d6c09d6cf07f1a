"""The command line: the only place that names concrete classes of several layers together."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line. Ctrl-C during the imports, which take seconds, ends it at once."""
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heeded:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kdsearch.cli.app import main as run

    if heeded:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


__all__ = ["main"]
