"""The life of awards: requests and reviews, changes, closures with their outcome, and four eyes.

An award of before was granted as it was asked for, on the day it was made, out of the budget that covers its start;
who asked is not known. One whose end has passed is expiring: what it has left goes back at the worker's next turn.
"""

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations

from broker.migrations import kept
from storage.tables import BIG, UtcTime, microseconds, utcnow

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

NEW_TABLES = ("award_event", "award_change", "award_outcome", "approval")
NEW_COLUMNS = (
    "state", "budget_id", "requested_credits", "proposed_credits", "final_credits", "purpose", "act_reference", "act_on",
    "continues_id", "requested_by", "requested_at", "granted_at", "closed_at",
)  # fmt: skip
UNDECIDED = "kept_award_undecided"
"""Awards that were never granted, which the release before has no place for."""


def upgrade() -> None:
    with op.batch_alter_table("award") as batch_op:
        _add_columns(batch_op)
    if sa.inspect(op.get_bind()).has_table(UNDECIDED):
        columns = ", ".join(column["name"] for column in sa.inspect(op.get_bind()).get_columns(UNDECIDED))
        op.execute(f"INSERT INTO award ({columns}) SELECT {columns} FROM {UNDECIDED}")
        op.drop_table(UNDECIDED)
    _convert()
    kept.bring_columns_back("award", "id", NEW_COLUMNS)
    with op.batch_alter_table("award") as batch_op:
        _bind_columns(batch_op)
    _make_tables()
    kept.bring_back(*NEW_TABLES)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("SELECT setval(pg_get_serial_sequence('award_event', 'id'), (SELECT coalesce(max(id), 0) + 1 FROM award_event), false)")


def downgrade() -> None:
    op.drop_index(op.f("ix_award_event_award_id"), table_name="award_event")
    op.drop_index(op.f("ix_award_change_award_id"), table_name="award_change")
    op.drop_index("ix_award_change_state", table_name="award_change")
    kept.put_aside(*NEW_TABLES)
    kept.put_columns_aside("award", "id", NEW_COLUMNS)
    with op.batch_alter_table("award") as batch_op:
        for name in ("budget_id", "continues_id"):
            batch_op.drop_constraint(op.f(f"fk_award_{name}"), type_="foreignkey")
    op.execute(f"CREATE TABLE {UNDECIDED} AS SELECT * FROM award WHERE awarded_credits IS NULL")
    op.execute("DELETE FROM award WHERE awarded_credits IS NULL")
    with op.batch_alter_table("award") as batch_op:
        batch_op.drop_index("ix_award_state_end_at")
        for name in ("state_known", "amounts_positive", "awarded_when_granted", "final_when_closed"):
            batch_op.drop_constraint(op.f(f"ck_award_{name}"), type_="check")
        batch_op.alter_column("awarded_credits", existing_type=BIG, nullable=False)
        for column in NEW_COLUMNS:
            batch_op.drop_column(column)


def _add_columns(batch_op: BatchOperations) -> None:
    batch_op.add_column(sa.Column("state", sa.String(length=16), nullable=True))
    batch_op.add_column(sa.Column("budget_id", sa.String(length=32), nullable=True))
    batch_op.add_column(sa.Column("requested_credits", BIG, nullable=True))
    batch_op.add_column(sa.Column("proposed_credits", BIG, nullable=True))
    batch_op.alter_column("awarded_credits", existing_type=BIG, nullable=True)
    batch_op.add_column(sa.Column("final_credits", BIG, nullable=True))
    batch_op.add_column(sa.Column("purpose", sa.String(length=1000), nullable=True))
    batch_op.add_column(sa.Column("act_reference", sa.String(length=100), nullable=True))
    batch_op.add_column(sa.Column("act_on", sa.Date(), nullable=True))
    batch_op.add_column(sa.Column("continues_id", sa.String(length=32), nullable=True))
    batch_op.add_column(sa.Column("requested_by", sa.String(length=32), nullable=True))
    batch_op.add_column(sa.Column("requested_at", UtcTime(), nullable=True))
    batch_op.add_column(sa.Column("granted_at", UtcTime(), nullable=True))
    batch_op.add_column(sa.Column("closed_at", UtcTime(), nullable=True))


def _convert() -> None:
    """Say of the awards that release 0001 made what was true of them."""
    budget = (
        "SELECT b.id FROM programme_budget b WHERE b.programme_id = award.programme_id "
        "AND b.start_at <= award.start_at AND award.start_at < b.end_at"
    )
    op.execute(
        f"UPDATE award SET state = CASE WHEN end_at <= {microseconds(utcnow())} THEN 'expiring' ELSE 'active' END, "
        f"budget_id = ({budget}), requested_credits = awarded_credits, proposed_credits = awarded_credits, "
        "requested_at = created_at, granted_at = created_at WHERE state IS NULL"
    )


def _bind_columns(batch_op: BatchOperations) -> None:
    for name, type_ in (
        ("state", sa.String(length=16)), ("budget_id", sa.String(length=32)), ("requested_credits", BIG),
        ("proposed_credits", BIG), ("requested_at", UtcTime()),
    ):  # fmt: skip
        batch_op.alter_column(name, existing_type=type_, nullable=False)
    batch_op.create_check_constraint(
        op.f("ck_award_state_known"),
        "state IN ('requested', 'in_review', 'refused', 'withdrawn', 'active', 'expiring', 'closed')",
    )
    batch_op.create_check_constraint(
        op.f("ck_award_amounts_positive"), "requested_credits > 0 AND proposed_credits > 0"
    )
    batch_op.create_check_constraint(
        op.f("ck_award_awarded_when_granted"),
        "(state IN ('active', 'closed', 'expiring')) = (awarded_credits IS NOT NULL)",
    )
    batch_op.create_check_constraint(
        op.f("ck_award_final_when_closed"), "(state = 'closed') = (final_credits IS NOT NULL)"
    )
    batch_op.create_foreign_key(op.f("fk_award_budget_id"), "programme_budget", ["budget_id"], ["id"])
    batch_op.create_foreign_key(op.f("fk_award_continues_id"), "award", ["continues_id"], ["id"])
    batch_op.create_index("ix_award_state_end_at", ["state", "end_at"], unique=False)


def _make_tables() -> None:
    op.create_table(
        "award_event",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("award_id", sa.String(length=32), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("person_id", sa.String(length=32), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["award_id"], ["award.id"], name=op.f("fk_award_event_award_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_award_event")),
    )
    op.create_index(op.f("ix_award_event_award_id"), "award_event", ["award_id"], unique=False)
    op.create_table(
        "award_change",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("award_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("amount_credits", BIG, nullable=True),
        sa.Column("end_at", UtcTime(), nullable=True),
        sa.Column("other_award_id", sa.String(length=32), nullable=True),
        sa.Column("reason", sa.String(length=1000), nullable=False),
        sa.Column("asked_by", sa.String(length=32), nullable=False),
        sa.Column("asked_at", UtcTime(), nullable=False),
        sa.Column("decided_at", UtcTime(), nullable=True),
        sa.CheckConstraint(
            "kind IN ('supplement', 'extension', 'transfer', 'closure')", name=op.f("ck_award_change_kind_known")
        ),
        sa.CheckConstraint(
            "state IN ('requested', 'in_review', 'refused', 'withdrawn', 'granted')",
            name=op.f("ck_award_change_state_known"),
        ),
        sa.CheckConstraint(
            "(kind IN ('supplement', 'transfer')) = (amount_credits IS NOT NULL)",
            name=op.f("ck_award_change_amount_where_due"),
        ),
        sa.CheckConstraint(
            "amount_credits IS NULL OR amount_credits > 0", name=op.f("ck_award_change_amount_positive")
        ),
        sa.CheckConstraint("(kind = 'extension') = (end_at IS NOT NULL)", name=op.f("ck_award_change_end_where_due")),
        sa.CheckConstraint(
            "(kind = 'transfer') = (other_award_id IS NOT NULL)", name=op.f("ck_award_change_other_where_due")
        ),
        sa.ForeignKeyConstraint(["award_id"], ["award.id"], name=op.f("fk_award_change_award_id")),
        sa.ForeignKeyConstraint(["other_award_id"], ["award.id"], name=op.f("fk_award_change_other_award_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_award_change")),
    )
    op.create_index(op.f("ix_award_change_award_id"), "award_change", ["award_id"], unique=False)
    op.create_index("ix_award_change_state", "award_change", ["state"], unique=False)
    op.create_table(
        "award_outcome",
        sa.Column("award_id", sa.String(length=32), nullable=False),
        sa.Column("worked", sa.String(length=16), nullable=False),
        sa.Column("in_production", sa.String(length=16), nullable=False),
        sa.Column("jobs_created", sa.Integer(), nullable=True),
        sa.Column("benefit", sa.String(length=1000), nullable=False),
        sa.Column("next_step", sa.String(length=1000), nullable=False),
        sa.Column("person_id", sa.String(length=32), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.CheckConstraint("worked IN ('yes', 'no', 'partly')", name=op.f("ck_award_outcome_worked_known")),
        sa.CheckConstraint(
            "in_production IN ('yes', 'no', 'planned')", name=op.f("ck_award_outcome_in_production_known")
        ),
        sa.CheckConstraint(
            "jobs_created IS NULL OR jobs_created >= 0", name=op.f("ck_award_outcome_jobs_created_counted")
        ),
        sa.ForeignKeyConstraint(["award_id"], ["award.id"], name=op.f("fk_award_outcome_award_id")),
        sa.PrimaryKeyConstraint("award_id", name=op.f("pk_award_outcome")),
    )
    op.create_table(
        "approval",
        sa.Column("subject_id", sa.String(length=32), nullable=False),
        sa.Column("person_id", sa.String(length=32), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("subject_id", "person_id", name=op.f("pk_approval")),
    )
