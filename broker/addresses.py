"""Which addresses the broker will connect to: checked after name resolution."""

import socket
from ipaddress import ip_address

from broker.errors import BadRequest


def check_address(host: str, *, allow_loopback: bool) -> None:
    """Refuse link-local, multicast and unspecified addresses, and loopback outside the demo and tests.

    Raises:
        BadRequest: the name does not resolve, or to an address that no site has.
    """
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        raise BadRequest(f"the host {host} does not resolve", "give a name or an address that does") from None
    for text in found:
        address = ip_address(str(text).split("%")[0])
        if address.is_link_local or address.is_multicast or address.is_unspecified:
            raise BadRequest(f"{host} is {address}, an address that no site has", "give the site's own address")
        if address.is_loopback and not allow_loopback:
            raise BadRequest(
                f"{host} is {address}, this machine itself",
                "set allow_loopback_sites in the demo and in tests only",
            )
