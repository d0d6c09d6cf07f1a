"""Run as a process of its own: a Ray on this machine, until the standard input ends.

Its line of output says where the Ray is, or why it could not be started. It imports nothing of
kdsearch, whose imports would take as long as the start.
"""

import json
import os
import signal
import threading
from typing import Any

_PARENT = 0
"""Its end of this pipe closes with it, whatever ends it."""


def main() -> None:
    """Start Ray as `ray.init` does, but for the driver."""
    watch = threading.Thread(target=_end_with_parent)
    watch.start()
    try:
        found = {"address": _start().gcs_address}
    except Exception as error:  # whatever Ray raises
        found = {"error": str(error) or type(error).__name__}
    print(json.dumps(found), flush=True)
    watch.join()


def _end_with_parent() -> None:
    while os.read(_PARENT, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def _start() -> Any:
    from ray._common.usage import usage_lib
    from ray._private.authentication.authentication_token_setup import (
        enable_token_auth_by_default,
        ensure_token_if_auth_enabled,
    )
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    enable_token_auth_by_default()
    ensure_token_if_auth_enabled({}, create_token_if_missing=True)
    usage_lib.set_usage_stats_enabled_via_env_var(False)
    return Node(
        RayParams(include_dashboard=True, dashboard_port=None),  # the first port that is free
        head=True,
        shutdown_at_exit=False,
        spawn_reaper=True,
        ray_init_cluster=True,
    )


if __name__ == "__main__":
    main()
