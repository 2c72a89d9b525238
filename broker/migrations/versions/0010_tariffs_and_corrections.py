"""Tariffs in euros, what charges are worth, revisions of usage records, refunds.

A usage record of an earlier release is the first revision of its attempt. Its charge has no value yet: no tariff
was kept then, so it is unknown, and is valued when a tariff for the day of its start is entered.
"""

import sqlalchemy as sa
from alembic import op

from broker.migrations import kept
from storage.tables import BIG, UtcTime

revision = "0010"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = ("tariff", "charge_value", "refund")
LATER = ("attempt_id", "revision")
NOT_VALUED = "it was charged before tariffs were kept"
UNKNOWN = sa.text("value_micro_euros IS NULL")


def upgrade() -> None:
    _make_tariff()
    _add_revisions()
    _make_charge_value()
    _make_refund()
    kept.bring_back(*TABLES)
    op.execute(
        "INSERT INTO charge_value (usage_id, weight_thousandths, unknown_reason) "
        f"SELECT u.id, u.weight_thousandths, '{NOT_VALUED}' FROM usage_record u "
        "WHERE NOT EXISTS (SELECT 1 FROM charge_value v WHERE v.usage_id = u.id)"
    )


def downgrade() -> None:
    with op.batch_alter_table("refund") as batch_op:
        batch_op.drop_index("ix_refund_decided_at")
        batch_op.drop_index(batch_op.f("ix_refund_job_id"))
    with op.batch_alter_table("charge_value") as batch_op:
        batch_op.drop_index("ix_charge_value_unknown", sqlite_where=UNKNOWN, postgresql_where=UNKNOWN)
    kept.put_aside("refund", "charge_value", "tariff")
    _put_revisions_aside()


def _make_tariff() -> None:
    op.create_table(
        "tariff",
        sa.Column("site_id", sa.String(length=32), nullable=False),
        sa.Column("gpu_class", sa.String(length=40), nullable=False),
        sa.Column("valid_from", UtcTime(), nullable=False),
        sa.Column("micro_euros_per_gpu_hour", BIG, nullable=False),
        sa.CheckConstraint("micro_euros_per_gpu_hour >= 0", name=op.f("ck_tariff_not_negative")),
        sa.PrimaryKeyConstraint("site_id", "gpu_class", "valid_from", name=op.f("pk_tariff")),
    )


def _add_revisions() -> None:
    with op.batch_alter_table("usage_record") as batch_op:
        batch_op.add_column(sa.Column("attempt_id", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("revision", sa.Integer(), nullable=True))
        batch_op.alter_column("id", existing_type=sa.String(length=64), type_=sa.String(length=80))
    op.execute("UPDATE usage_record SET attempt_id = id, revision = 1")
    kept.bring_rows_back("usage_record")
    with op.batch_alter_table("usage_record") as batch_op:
        batch_op.alter_column("attempt_id", existing_type=sa.String(length=64), nullable=False)
        batch_op.alter_column("revision", existing_type=sa.Integer(), nullable=False)
        batch_op.create_check_constraint(op.f("ck_usage_record_revision_positive"), "revision > 0")
        batch_op.create_unique_constraint(op.f("uq_usage_record_attempt_id_revision"), ["attempt_id", "revision"])


def _put_revisions_aside() -> None:
    """An older release knows one record per attempt: it keeps the first, which its transfers `settle/` belong to."""
    kept.put_rows_aside("usage_record", "revision > 1")
    with op.batch_alter_table("usage_record") as batch_op:
        batch_op.drop_constraint(op.f("uq_usage_record_attempt_id_revision"), type_="unique")
        batch_op.drop_constraint(op.f("ck_usage_record_revision_positive"), type_="check")
        batch_op.drop_column("revision")
        batch_op.drop_column("attempt_id")
        batch_op.alter_column("id", existing_type=sa.String(length=80), type_=sa.String(length=64))


def _make_charge_value() -> None:
    op.create_table(
        "charge_value",
        sa.Column("usage_id", sa.String(length=80), nullable=False),
        sa.Column("weight_thousandths", sa.Integer(), nullable=False),
        sa.Column("region_thousandths", sa.Integer(), nullable=True),
        sa.Column("company_thousandths", sa.Integer(), nullable=True),
        sa.Column("partner_thousandths", sa.Integer(), nullable=True),
        sa.Column("tariff_micro_euros", BIG, nullable=True),
        sa.Column("value_micro_euros", BIG, nullable=True),
        sa.Column("region_micro_euros", BIG, nullable=True),
        sa.Column("company_micro_euros", BIG, nullable=True),
        sa.Column("partner_micro_euros", BIG, nullable=True),
        sa.Column("unknown_reason", sa.String(length=200), nullable=True),
        sa.Column("valued_at", UtcTime(), nullable=True),
        sa.CheckConstraint(
            "(value_micro_euros IS NULL) = (unknown_reason IS NOT NULL)", name=op.f("ck_charge_value_known_or_why_not")
        ),
        sa.CheckConstraint(
            "(value_micro_euros IS NULL) = (valued_at IS NULL)", name=op.f("ck_charge_value_dated_when_valued")
        ),
        sa.CheckConstraint(
            "region_micro_euros + company_micro_euros + partner_micro_euros = value_micro_euros",
            name=op.f("ck_charge_value_parts_make_whole"),
        ),
        sa.CheckConstraint(
            "region_thousandths + company_thousandths + partner_thousandths = 1000",
            name=op.f("ck_charge_value_shares_make_whole"),
        ),
        sa.ForeignKeyConstraint(["usage_id"], ["usage_record.id"], name=op.f("fk_charge_value_usage_id")),
        sa.PrimaryKeyConstraint("usage_id", name=op.f("pk_charge_value")),
    )
    with op.batch_alter_table("charge_value") as batch_op:
        batch_op.create_index(
            "ix_charge_value_unknown", ["usage_id"], unique=False, sqlite_where=UNKNOWN, postgresql_where=UNKNOWN
        )


def _make_refund() -> None:
    op.create_table(
        "refund",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("award_id", sa.String(length=32), nullable=False),
        sa.Column("project_id", sa.String(length=32), nullable=False),
        sa.Column("programme_id", sa.String(length=32), nullable=False),
        sa.Column("site_id", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("amount_credits", BIG, nullable=False),
        sa.Column("with_contract", sa.Boolean(), nullable=False),
        sa.Column("contract_amount_credits", BIG, nullable=True),
        sa.Column("requested_by", sa.String(length=32), nullable=True),
        sa.Column("requested_at", UtcTime(), nullable=False),
        sa.Column("decided_by", sa.String(length=32), nullable=True),
        sa.Column("decided_at", UtcTime(), nullable=True),
        sa.Column("decision", sa.Text(), nullable=True),
        sa.Column("value_micro_euros", BIG, nullable=True),
        sa.Column("region_micro_euros", BIG, nullable=True),
        sa.Column("company_micro_euros", BIG, nullable=True),
        sa.Column("partner_micro_euros", BIG, nullable=True),
        sa.Column("unknown_reason", sa.String(length=200), nullable=True),
        sa.CheckConstraint("state IN ('requested', 'posted', 'refused')", name=op.f("ck_refund_state_known")),
        sa.CheckConstraint(
            "reason IN ('node_failure', 'operator_fault', 'other', 'adjusted')", name=op.f("ck_refund_reason_known")
        ),
        sa.CheckConstraint(
            "(reason = 'adjusted' AND amount_credits <> 0) OR amount_credits > 0",
            name=op.f("ck_refund_amount_positive"),
        ),
        sa.CheckConstraint(
            "(state = 'requested') = (decided_at IS NULL)", name=op.f("ck_refund_dated_when_decided")
        ),
        sa.CheckConstraint(
            "region_micro_euros + company_micro_euros + partner_micro_euros = value_micro_euros",
            name=op.f("ck_refund_parts_make_whole"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refund")),
    )
    with op.batch_alter_table("refund") as batch_op:
        batch_op.create_index("ix_refund_decided_at", ["decided_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_refund_job_id"), ["job_id"], unique=False)
