"""Drives a search: from the agenda through an engine to the ledger."""

from kdsearch.driver.dispatcher import Dispatcher, Watch

__all__ = ["Dispatcher", "Watch"]
