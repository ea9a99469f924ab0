"""Keeps requests to this machine away from proxies: a proxy answers for its own loopback addresses, not for ours."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NAMES = ("no_proxy", "NO_PROXY")
"""Some libraries read only one of them, and the lower-case one wins where both are read."""


def bypass_proxies_for_loopback(environment: MutableMapping[str, str] = os.environ) -> None:
    """Add the loopback addresses to the hosts that are reached without a proxy, for this process and its children.

    Args:
        environment: Variables to change.
    """
    given = next((environment[name] for name in _NAMES if environment.get(name)), "")
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    if "*" not in hosts:
        hosts += [host for host in LOOPBACK if host not in hosts]
    environment.update({name: ",".join(hosts) for name in _NAMES})
