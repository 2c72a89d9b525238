"""Named environments: modules or an image that a site offers, entered by its operator."""

from sqlalchemy import Connection, Table, select

from broker.models import NamedEnvironment
from broker.placement import Tools

_environments: Table = NamedEnvironment.__table__  # type: ignore[attr-defined]


def environments_of(connection: Connection) -> dict[str, dict[str, Tools]]:
    """Return what each site offers: site id → name → what is put around a program."""
    offered: dict[str, dict[str, Tools]] = {}
    for row in connection.execute(select(_environments)):
        offered.setdefault(row.site_id, {})[row.name] = Tools(tuple(row.modules), row.container)
    return offered
