"""Requests to this machine go around proxies."""

from __future__ import annotations

import urllib.request

import pytest

from workers.loopback import bypass_proxies_for_loopback


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "localhost,127.0.0.1,::1"),
        ({"no_proxy": ""}, "localhost,127.0.0.1,::1"),
        ({"no_proxy": "a.org, localhost"}, "a.org,localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "a.org"}, "a.org,localhost,127.0.0.1,::1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_loopback_is_added_to_what_the_user_set(given: dict[str, str], expected: str) -> None:
    for _ in range(2):
        bypass_proxies_for_loopback(given)
        assert given == {"no_proxy": expected, "NO_PROXY": expected}


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY"])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:5000", "localhost:5000"])
def test_a_proxy_is_not_used_for_loopback_and_still_for_others(
    monkeypatch: pytest.MonkeyPatch, name: str, host: str
) -> None:
    from requests.utils import get_environ_proxies

    for other in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(other, "")
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    bypass_proxies_for_loopback()
    assert urllib.request.proxy_bypass(host)
    assert not urllib.request.proxy_bypass("example.org")
    assert get_environ_proxies(f"http://{host}/health", no_proxy=None) == {}
