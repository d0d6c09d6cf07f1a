"""kdsearch: find out, on a GPU cluster, how best to distil a large model into a small one."""

__version__ = "0.1.0"
