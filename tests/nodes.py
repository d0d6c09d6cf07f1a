"""Several machines on one: Ray nodes in network namespaces, each with an address and a host name.

Made by root only, with `ip` and `unshare`. Nodes share the disk, but for what is hidden from them.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import TOKEN
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

PORT = 6379
_BIN = Path(sys.executable).parent
_RAY = str(_BIN / "ray")
_UP = b"will now block"
_SECONDS_TO_START = 90.0
_MADE = itertools.count()
_HEAD = "ray.head.default"
_AUTOSCALING = {
    "cluster_name": "fake",
    "max_workers": 4,
    "head_node_type": _HEAD,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 10,
    "auth": {"ssh_user": "nobody"},
    "docker": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
}
_AS_HOST = """
hostname "$1" && shift || exit
while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit; shift 2; done
shift
exec "$@"
"""
"""Arguments: the host name; pairs of a folder and where it lies for this host; --; a command."""


@dataclass
class Machines:
    """Machines on a network of their own. The first Ray node that is started is the head."""

    folder: Path
    """Of their logs."""
    prefix: str
    network: str
    """The first three numbers of its addresses."""
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _hosts: list[str] = field(default_factory=list)

    @property
    def ray(self) -> str:
        """The address of the cluster."""
        return f"{self.address(self._hosts[0])}:{PORT}"

    def address(self, host: str) -> str:
        """The address of a machine."""
        return f"{self.network}.{1 + self._hosts.index(host)}"

    def start(
        self,
        host: str,
        *,
        cpus: int = 1,
        dashboard: bool = False,
        hidden: Mapping[Path, Path] = {},
        options: Sequence[str] = (),
        environment: Mapping[str, str] = {},
    ) -> None:
        """Start a Ray node on a new machine, and wait until it is up.

        `dashboard`: whether the head has one, which takes seconds to start. `hidden`: folders in
        whose place this machine sees others.
        """
        head = not self._hosts
        self._add(host)
        command = [
            _RAY,
            "start",
            "--block",
            "--disable-usage-stats",
            f"--num-cpus={cpus}",
            *options,
        ]
        command += [f"--node-ip-address={self.address(host)}"]
        if head:
            scratch = tempfile.mkdtemp(prefix="kd")  # short: sockets lie in it
            command += ["--head", f"--port={PORT}", f"--temp-dir={scratch}"]
            command += [f"--include-dashboard={str(dashboard).lower()}"]
        else:
            command += [f"--address={self.ray}"]
        log = self.folder / f"{host}.log"
        self.nodes[host] = self.run(host, *command, hidden=hidden, log=log, environment=environment)
        deadline = time.monotonic() + _SECONDS_TO_START
        while _UP not in log.read_bytes():
            assert self.nodes[host].poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)

    def start_autoscaling(self, host: str, worker: Mapping[str, float], *, most: int) -> None:
        """Start a head without CPUs, whose autoscaler may start `most` nodes like `worker`.

        They are Ray's fake ones, processes on the same machine.
        """
        provider = {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "gcs_address": f"{self.network}.1:{PORT}",
        }
        room = {"object_store_memory": 10**8}
        kinds = {
            _HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": {**worker, **room}, "node_config": {}, "max_workers": most},
        }
        path = self.folder / "autoscaling.json"
        path.write_text(
            json.dumps(_AUTOSCALING | {"provider": provider, "available_node_types": kinds})
        )
        environment = {
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
            "RAY_NODE_TYPE_NAME": _HEAD,
        }
        options = [f"--autoscaling-config={path}"]
        self.start(host, cpus=0, options=options, environment=environment)

    def run(
        self,
        host: str,
        *command: str,
        log: Path,
        hidden: Mapping[Path, Path] = {},
        environment: Mapping[str, str] = {},
    ) -> subprocess.Popen[bytes]:
        """A command on a machine; it writes to `log`."""
        # Without it Ray waits half a minute for a server of names that cannot be reached.
        names = self.folder / "resolv.conf"
        names.write_text("nameserver 127.0.0.1\n")
        hidden = {Path("/etc/resolv.conf"): names, **hidden}
        pairs = [str(path) for place, other in hidden.items() for path in (other, place)]
        with log.open("wb") as file:
            return subprocess.Popen(
                [
                    *("ip", "netns", "exec", self.prefix + host),
                    *("unshare", "--mount", "--uts", "--propagation", "private"),
                    *("sh", "-c", _AS_HOST, "sh", host, *pairs, "--", *command),
                ],
                stdout=file,
                stderr=file,
                env=os.environ
                | TOKEN
                | {"RAY_memory_monitor_refresh_ms": "0"}
                | {"PATH": f"{_BIN}:{os.environ['PATH']}"}  # where jobs find kdsearch
                | dict(environment),
            )

    def stop(self, host: str) -> None:
        """Kill all that runs on a machine, as a power cut does."""
        space = self.prefix + host
        found = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True)
        for pid in found.stdout.split():
            subprocess.run(["kill", "-KILL", pid], capture_output=True)
        if host in self.nodes:
            self.nodes.pop(host).wait(timeout=30)

    def _add(self, host: str) -> None:
        self._hosts.append(host)
        space, wire = self.prefix + host, f"{self.prefix}v{len(self._hosts)}"
        inside = ("ip", "-n", space)
        for command in (
            ("ip", "netns", "add", space),
            ("ip", "link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", space),
            ("ip", "link", "set", wire, "master", self.prefix, "up"),
            (*inside, "addr", "add", f"{self.address(host)}/24", "dev", "eth0"),
            (*inside, "link", "set", "eth0", "up"),
            (*inside, "link", "set", "lo", "up"),
            # Without one Ray cannot tell its own address.
            (*inside, "route", "add", "default", "via", f"{self.network}.254"),
            # Where Ray asks which cloud this is.
            (*inside, "route", "add", "unreachable", "169.254.169.254"),
        ):
            _run(*command)

    def close(self) -> None:
        """End and remove all machines."""
        for host in self._hosts:
            self.stop(host)
            subprocess.run(["ip", "netns", "del", self.prefix + host], capture_output=True)
        subprocess.run(["ip", "link", "del", self.prefix], capture_output=True)


@contextmanager
def machines(folder: Path) -> Iterator[Machines]:
    """Room for machines; skips the test, with the reason, where none can be made."""
    for program in ("ip", "unshare", "mount", "hostname"):
        if shutil.which(program) is None:
            pytest.skip(f"network namespaces need {program}")
    if os.geteuid() != 0:
        pytest.skip("network namespaces are made by root only")
    # The names of those before go a while after them.
    number = os.getpid() * 10 + next(_MADE) % 10
    made = Machines(folder, f"kd{number % 16**6:x}", f"10.{200 + number % 50}.{number // 50 % 256}")
    try:
        try:
            _run("ip", "link", "add", made.prefix, "type", "bridge")
            _run("ip", "addr", "add", f"{made.network}.254/24", "dev", made.prefix)
            _run("ip", "link", "set", made.prefix, "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network can be made here: {error.stderr.strip()}")
        yield made
    finally:
        made.close()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
