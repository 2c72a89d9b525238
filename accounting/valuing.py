"""Charges whose tariff was not known: valued once it is, each exactly once."""

from datetime import datetime

from sqlalchemy import exists, func, select
from sqlmodel import Session, col

from accounting.models import ChargeValue, UsageRecord
from accounting.refund_values import complete_refunds
from accounting.tariffs import Rates, value_row
from quotas.models import Tariff

VALUED_MAX = 5000
"""Charges per call, so that no lock is held for long."""


def value_unknown(session: Session, at: datetime) -> tuple[int, int]:
    """Value up to `VALUED_MAX` charges whose tariff is known by now; return how many, and how many have none yet.

    A value that is known is never changed.
    """
    rates, valued, jobs = Rates(session.connection()), 0, set()
    known_by_now = exists().where(
        col(Tariff.site_id) == col(UsageRecord.site_id),
        col(Tariff.gpu_class) == col(UsageRecord.gpu_class),
        col(Tariff.valid_from) <= col(UsageRecord.started_at),
    )
    wanted = (
        select(ChargeValue, UsageRecord)
        .join(UsageRecord, col(UsageRecord.id) == col(ChargeValue.usage_id))
        .where(col(ChargeValue.value_micro_euros).is_(None), (col(UsageRecord.charge_credits) == 0) | known_by_now)
        .order_by(col(ChargeValue.usage_id))
        .limit(VALUED_MAX)
        .with_for_update(of=ChargeValue)
    )
    for kept, record in session.execute(wanted).all():
        for name, value in value_row(record.id, rates.value(record.model_dump()), at).items():
            setattr(kept, name, value)
        jobs.add(record.job_id)
        valued += 1
    session.flush()
    for job_id in sorted(jobs):
        complete_refunds(session, job_id)
    left = select(func.count()).select_from(ChargeValue).where(col(ChargeValue.value_micro_euros).is_(None))
    return valued, session.execute(left).scalar_one()
