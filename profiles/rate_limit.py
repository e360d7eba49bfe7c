"""How often one client may ask: a token bucket per address, in memory, for every HTTP server.

A bucket holds up to `burst` requests and fills by `per_s` each second.  The table of buckets is
bounded: the client that was quiet longest is forgotten first, and gets a full bucket when it comes
back.  An IPv6 client is its /64, since whoever has one address there has all of them.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_CLIENTS = 10_000


class RateLimit:
    """Asked before every request, from any thread.  `per_s` 0: no limit."""

    def __init__(
        self, per_s: float, burst: int, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s, self._burst, self._clock_s = per_s, float(burst), clock_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, address: str) -> float:
        """0 when the request may pass, and then it is counted; else seconds until one may.

        >>> limit = RateLimit(per_s=2.0, burst=1, clock_s=lambda: 0.0)
        >>> limit.wait_s("192.0.2.1"), limit.wait_s("192.0.2.1"), limit.wait_s("192.0.2.2")
        (0.0, 0.5, 0.0)
        """
        if not self._per_s:
            return 0.0
        client, now_s = network_of(address), self._clock_s()
        with self._lock:
            left, since_s = self._buckets.pop(client, (self._burst, now_s))
            left = min(self._burst, left + (now_s - since_s) * self._per_s)
            passes = left >= 1.0
            self._buckets[client] = (left - 1.0 if passes else left, now_s)
            if len(self._buckets) > MAX_CLIENTS:
                self._buckets.popitem(last=False)
        return 0.0 if passes else (1.0 - left) / self._per_s


def network_of(address: str) -> str:
    """What stands for a client: an IPv4 address, or the /64 of an IPv6 one.

    >>> network_of("192.0.2.7"), network_of("2001:db8::7%eth0"), network_of("::ffff:192.0.2.7")
    ('192.0.2.7', '2001:db8::', '192.0.2.7')
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)).network_address)
