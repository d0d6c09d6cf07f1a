"""Which version of what is installed, without importing any of it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import kdsearch

_PACKAGES = (
    *("torch", "transformers", "ray", "datasets", "tokenizers", "numpy", "scikit-learn"),
    "pillow",  # which decodes images
    "peft",  # which is optional
)


def installed_versions() -> dict[str, str]:
    """The versions of kdsearch, of Python and of the packages that a result may depend on."""
    found = {"kdsearch": kdsearch.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
