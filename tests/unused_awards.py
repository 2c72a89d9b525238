"""An award that lies unused, as far as its reclaim was announced, or justified: for tests of what comes next."""

from datetime import timedelta

from sqlmodel import col, delete, select, update
from world import HOUR, World

from broker.memberships import memberships
from broker.models import Person
from quotas.models import ReclaimNotice
from storage.tables import new_id, utcnow


def unused_award(region: World, *, justified: bool) -> str:
    """Announce a reclaim from the award of `vision`, which Ines leads from now on, in place of one before it."""
    award_id = str(region.award()["id"])
    now = utcnow()
    with region.services.database.write() as session:
        ines = session.exec(select(Person.id).where(Person.name == "ines")).one()
        session.execute(update(memberships).values(role="lead").where(memberships.c.person_id == ines))
        session.exec(delete(ReclaimNotice).where(col(ReclaimNotice.award_id) == award_id))
        notice = ReclaimNotice(
            id=new_id("rcl"),
            award_id=award_id,
            after_thousandths=500,
            used_below_thousandths=300,
            take_thousandths=500,
            announced_credits=50 * HOUR,
            noticed_at=now,
            due_at=now + timedelta(days=15),
        )
        if justified:
            notice.justification, notice.justified_by, notice.justified_at = "the data comes in July", ines, now
        session.add(notice)
    return award_id
