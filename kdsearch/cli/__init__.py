"""The command line: the only place that names concrete classes of several layers together."""

from kdsearch.cli.app import main

__all__ = ["main"]
