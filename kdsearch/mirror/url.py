"""The URL of a database, which may hold a password: where it comes from, and how it is shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from kdsearch.errors import InputError
from kdsearch.ledger import UnreadableError, read_plain

VARIABLE = "KDSEARCH_OPTUNA"
_SECRET = re.compile("pass(?!file$)|pwd|_pw|secret|token|credential|dsn", re.IGNORECASE)
"""In the name of an option that nobody else may read, such as `sslpassword`."""
_EXAMPLE = "give one such as sqlite:///mirror.db or postgresql+psycopg://USER@HOST/NAME"


def storage_url(given: str | None) -> str | None:
    """The URL that an option gives: itself, what `@FILE` holds, or else the environment's.

    The environment forgets it: worker processes would inherit it. A password among the arguments
    of a command, which every user of the machine can read, is refused, and a file that others may
    read. Raises `InputError`.
    """
    kept = os.environ.pop(VARIABLE, None)
    if given is None:
        return kept or None
    if given.startswith("@"):
        return _from_file(Path(os.path.expanduser(given[1:])))
    if next(secrets_of(parsed(given)), None) is not None:
        what = "has a password, which everyone on this machine can read while the command runs"
        remedy = f"put the URL into the variable {VARIABLE}, or into a file of mode 0600: @FILE"
        raise InputError.one("the Optuna storage", what, remedy)
    return given


def _from_file(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise InputError.one(path, "can be read by others", f"chmod 600 {path}")
        url = read_plain(path).decode().strip()
    except (OSError, UnreadableError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or "holds no URL"
        raise InputError.one(path, f"cannot be read: {what}") from None
    if not url or "\n" in url:
        raise InputError.one(path, "holds no URL", _EXAMPLE)
    return url


def parsed(url: str) -> URL:
    """The parts of a URL; the text is not repeated where it is none, for it may hold a password.

    Raises `InputError`.
    """
    try:
        found = make_url(url)
        found.get_dialect()
    except (ArgumentError, ValueError):  # a port that is no number is a ValueError
        raise InputError.one("the Optuna storage", "is not a database URL", _EXAMPLE) from None
    except ImportError:
        pass  # said when it is opened
    if "@" in f"{found.host}{found.database}" and found.get_backend_name() != "sqlite":
        what, remedy = "has one @ too many", "in a password, write @ as %40, / as %2F, : as %3A"
        raise InputError.one("the Optuna storage", what, remedy)
    if found.get_backend_name() == "sqlite" and not found.database:
        raise InputError.one("the Optuna storage", "names no file", _EXAMPLE)
    return found


def secrets_of(url: URL) -> Iterator[str]:
    """The passwords in a URL: behind the user's name, and among the options."""
    if url.password is not None:
        yield str(url.password)
    for name, value in url.query.items():
        if _SECRET.search(name):
            yield from (value,) if isinstance(value, str) else value


def hidden(url: URL) -> str:
    """A URL to print: with *** for its password, and for whatever its options say."""
    options = dict.fromkeys(url.query, "***")
    return url.set(query=options).render_as_string(hide_password=True)


def without_secrets(text: str, url: URL) -> str:
    """What a database says, with *** for the passwords of its URL."""
    for secret in filter(None, secrets_of(url)):
        for form in {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}:
            text = text.replace(form, "***")
    return text
