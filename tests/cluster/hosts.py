"""Hosts of a cluster on one machine: each has its own network, processes, `/tmp`, shared memory and host name."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tests.chaos.stage import Stuck, wait_for

PREFIX = "orch-cluster-"
"""Network namespaces are called PREFIX, the number of the process that made them, a dash and the host's name."""
NETWORKS = "10.213.{}.{}"
TOOLS = ("ip", "unshare", "nsenter", "setpriv")
ROOT = Path(__file__).parents[2]


def missing() -> str:
    """Return why hosts cannot be made on this machine; empty if they can."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"the commands {', '.join(absent)} are missing (Debian: iproute2, util-linux)"
    if os.geteuid() != 0:
        return "namespaces need root"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc", "true"],
        capture_output=True, text=True,
    )  # fmt: skip
    return f"no namespaces: {tried.stderr.strip()}" if tried.returncode else ""


class Network:
    """A switch with hosts. This process reaches them too, at an address of its own."""

    def __init__(self, folder: Path) -> None:
        """Make the switch.

        Args:
            folder: keeps the disks of the hosts.
        """
        remove_leftovers()
        self.folder = folder
        self._owner = f"{PREFIX}{os.getpid()}"
        self._switch = f"{self._owner}-switch"
        self._number = _free_network()
        self._names = folder / "hosts"
        self._last = 1
        self.hosts: dict[str, Host] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._names.write_text("127.0.0.1 localhost\n")
        self._link = link = f"orch-{os.getpid()}"
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "bridge", "up")
        _ip("link", "add", link, "type", "veth", "peer", "name", "outside", "netns", self._switch)
        _ip("-n", self._switch, "link", "set", "outside", "master", "bridge", "up")
        _ip("address", "add", f"{self._address(1)}/24", "dev", link)
        _ip("link", "set", link, "up")

    def add(self, name: str) -> Host:
        """Start a host. A name that was used before gets a new host with an empty disk.

        Args:
            name: host name, at most 13 characters.
        """
        self._last += 1
        host = Host(name, self._address(self._last), f"{self._owner}-{name}-{self._last}", self)
        with open(self._names, "a") as names:
            names.write(f"{host.address} {name}\n")
        host.boot(self._names)
        self.hosts[name] = host
        return host

    def plug(self, host: Host, *, connected: bool) -> None:
        """Connect a host to the switch, or disconnect it."""
        _ip("-n", self._switch, "link", "set", host.link, "up" if connected else "down")

    def connect(self, host: Host) -> None:
        """Lay the cable between a new host and the switch."""
        _ip(
            "link", "add", host.link, "netns", self._switch, "type", "veth", "peer", "name", "eth0", "netns", host.space
        )
        _ip("-n", self._switch, "link", "set", host.link, "master", "bridge", "up")
        _ip("-n", host.space, "address", "add", f"{host.address}/24", "dev", "eth0")
        _ip("-n", host.space, "link", "set", "eth0", "up")
        _ip("-n", host.space, "link", "set", "lo", "up")

    def close(self) -> None:
        """Kill all hosts, and remove the switch."""
        for host in self.hosts.values():
            host.strike()
        for host in self.hosts.values():
            host.kill()
        _ip("link", "delete", self._link)
        _ip("netns", "delete", self._switch)

    def _address(self, last: int) -> str:
        return NETWORKS.format(self._number, last)


class Host:
    """A host: what runs on it ends with it, and what it wrote stays in `disk`."""

    def __init__(self, name: str, address: str, space: str, network: Network) -> None:
        self.name, self.address, self.space, self._network = name, address, space, network
        self.link = f"to-{name}-{address.rsplit('.', 1)[1]}"[-15:]
        """The switch's end of the cable."""
        self.disk = network.folder / space.removeprefix(PREFIX)
        """The host's `/tmp`, as this process sees it."""
        self.out_since: float | None = None
        """Since when it is cut off or suspended; None if it is neither."""
        self._boot: subprocess.Popen[bytes] | None = None
        self._first = 0
        self.process_space = "none"
        """Name of the namespace of its processes."""
        self._entered: list[subprocess.Popen[bytes]] = []
        """The commands that were started on the host, as processes outside it."""
        self._own: set[int] = set()
        """The processes that every host has."""

    def boot(self, names: Path) -> None:
        """Start the host's first process.

        Args:
            names: file with the addresses of all hosts, which becomes `/etc/hosts`.
        """
        self.disk.mkdir(parents=True)
        self.disk.chmod(0o1777)
        _ip("netns", "add", self.space)
        self._network.connect(self)
        lines = [f"hostname {self.name}", f"mount --bind {shlex.quote(str(names))} /etc/hosts"]
        lines += [*self._keep_code_visible(), f"mount --rbind {shlex.quote(str(self.disk))} /tmp"]
        lines += ["mount -t tmpfs -o size=256m shm /dev/shm", "touch /tmp/.up", "sleep infinity & wait"]
        self._boot = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.space}", "setpriv", "--pdeathsig", "KILL",
             "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc",
             "bash", "-ec", "\n".join(lines)],
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        wait_for(self._is_up, 20.0, f"host {self.name} to start")
        first = psutil.Process(self._boot.pid).children()[0]
        wait_for(first.children, 20.0, f"host {self.name} to start")
        self._first, self._own = first.pid, {first.pid, *(child.pid for child in first.children())}
        self.process_space = _space_of(first.pid)

    def _is_up(self) -> bool:
        assert self._boot is not None
        if self._boot.poll() is not None:
            raise Stuck(f"host {self.name} did not start (exit code {self._boot.returncode})")
        return (self.disk / ".up").exists()

    def _keep_code_visible(self) -> Iterator[str]:
        """Mount what is below the machine's `/tmp` and needed on the host: the code, and Python's environment."""
        for path in {ROOT, Path(sys.prefix).resolve()}:
            if path.is_relative_to("/tmp"):
                there = self.disk / path.relative_to("/tmp")
                there.mkdir(parents=True, exist_ok=True)
                yield f"mount --bind {shlex.quote(str(path))} {shlex.quote(str(there))}"

    @property
    def usable(self) -> bool:
        """Whether it is neither cut off nor suspended."""
        return self.out_since is None

    @property
    def alive(self) -> bool:
        """Whether the host runs."""
        return self._boot is not None

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, user: str | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command on the host, in the folder of the code. Its output is appended to `log`."""
        drop = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups"] if user else []
        with open(log, "ab") as output:
            entered = subprocess.Popen(
                [*self._enter(), *drop, *command],
                env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        self._entered.append(entered)
        return entered

    def run(self, command: Sequence[str], environment: Mapping[str, str], user: str | None = None) -> str:
        """Run a command on the host and return its output.

        Raises:
            Stuck: it fails; the message has its output.
        """
        drop = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups"] if user else []
        done = subprocess.run(
            [*self._enter(), *drop, *command], env=dict(environment), capture_output=True, text=True, timeout=120
        )
        if done.returncode:
            raise Stuck(f"{' '.join(command)} on {self.name}: {done.stdout}{done.stderr}")
        return done.stdout

    def _enter(self) -> list[str]:
        return [
            "nsenter", f"--target={self._first}", "--net", "--mount", "--uts", "--ipc", "--pid",
            "env", f"--chdir={ROOT}",
        ]  # fmt: skip

    def processes(self, name: str = "") -> list[psutil.Process]:
        """Return the host's processes whose title or command line has `name`, oldest first; not its first one."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                is_here = _space_of(process.pid) == self.process_space and process.pid not in self._own
                if is_here and not _has_ended(process) and name in " ".join([process.name(), *process.cmdline()]):
                    found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def strike(self) -> None:
        """Kill all processes of the host, without waiting for their end."""
        if self._boot is not None:
            for entered in self._entered:
                entered.kill()  # one that is stopped would never take leave of its process on the host
            self._boot.kill()

    def kill(self) -> None:
        """Kill the host for good: all its processes, and its network."""
        if self._boot is not None:
            self.strike()
            for entered in self._entered:
                entered.wait()
            self._boot.wait()
            wait_for(lambda: not psutil.pid_exists(self._first), 20.0, f"host {self.name} to end")
            self._boot, self.process_space = None, "none"  # the number of the namespace can come again
            _ip("netns", "delete", self.space)

    def cut(self) -> None:
        """Cut the host off from the network."""
        self.out_since = time.monotonic()
        self._network.plug(self, connected=False)

    def rejoin(self) -> None:
        """Connect the host to the network again."""
        self.out_since = None
        self._network.plug(self, connected=True)

    def freeze(self) -> None:
        """Suspend all processes of the host."""
        self.out_since = time.monotonic()
        for process in self.processes():
            with suppress(psutil.Error):
                process.suspend()

    def thaw(self) -> None:
        """Continue all processes of the host."""
        self.out_since = None
        for entered in self._entered:
            entered.send_signal(signal.SIGCONT)  # `nsenter` stops with what it has started
        for process in self.processes():
            with suppress(psutil.Error):
                process.resume()


def signal_command(command: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a command that was started on a host, not to the one that entered the host for it."""
    with suppress(psutil.Error):
        for child in psutil.Process(command.pid).children():
            child.send_signal(number)


def remove_leftovers() -> None:
    """Remove the hosts of earlier processes that were killed."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    for name in [line.split()[0] for line in listed.splitlines() if line.startswith(PREFIX)]:
        if psutil.pid_exists(int(name.removeprefix(PREFIX).split("-")[0])):
            continue
        inside = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
        for pid in map(int, inside):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        subprocess.run(["ip", "netns", "delete", name], check=False)


def _has_ended(process: psutil.Process) -> bool:
    return bool(process.status() == psutil.STATUS_ZOMBIE)


def _space_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/pid")


def _free_network() -> int:
    addresses = subprocess.run(["ip", "-j", "address"], capture_output=True, text=True, check=True).stdout
    used = {entry["local"].rsplit(".", 1)[0] for link in json.loads(addresses) for entry in link["addr_info"]}
    return next(number for number in range(256) if NETWORKS.format(number, 0).rsplit(".", 1)[0] not in used)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise Stuck(f"ip {' '.join(words)}: {done.stderr.strip()}")
