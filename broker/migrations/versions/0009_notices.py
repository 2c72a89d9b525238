"""Notices: letters that wait, went, or could not be sent; reclaims that were announced; charges found by day."""

import sqlalchemy as sa
from alembic import op

from broker.migrations import kept
from storage.tables import BIG, UtcTime

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

WAITING = sa.text("sent_at IS NULL AND failed_at IS NULL")
OPEN = sa.text("ended_at IS NULL")
SIDES = ("credit_id", "debit_id")
RECLAIM_RULES = {
    "announced_positive": "announced_credits > 0",
    "due_after_notice": "noticed_at < due_at",
    "justified_by_somebody": "(justification IS NULL) = (justified_at IS NULL) AND (justification IS NULL) = (justified_by IS NULL)",
    "decision_known": "decision IS NULL OR decision IN ('accepted', 'refused')",
    "decided_by_somebody": "(decision IS NULL) = (decided_at IS NULL) AND (decision IS NULL) = (decided_by IS NULL)",
    "decision_on_justification": "decision IS NULL OR justification IS NOT NULL",
    "decided_by_another": "decided_by <> justified_by",
    "outcome_known": "outcome IS NULL OR outcome IN ('reclaimed', 'accepted', 'cancelled')",
    "outcome_when_ended": "(outcome IS NULL) = (ended_at IS NULL)",
    "credits_when_reclaimed": "(outcome IS NOT NULL AND outcome = 'reclaimed') = (reclaimed_credits IS NOT NULL)",
    "never_more_than_announced": "reclaimed_credits IS NULL OR (reclaimed_credits > 0 AND reclaimed_credits <= announced_credits)",
}


def upgrade() -> None:
    _make_notice()
    _make_reclaim_notice()
    for side in SIDES:
        where = sa.text(f"substr({side}, 1, 13) = 'consumed:awd-'")
        op.create_index(
            f"ix_ledger_transfer_charged_{side}",
            "ledger_transfer",
            [side, "at"],
            postgresql_where=where,
            sqlite_where=where,
        )
    kept.bring_back("notice", "reclaim_notice")


def downgrade() -> None:
    for side in SIDES:
        op.drop_index(f"ix_ledger_transfer_charged_{side}", "ledger_transfer")
    kept.put_aside("notice", "reclaim_notice")


def _make_notice() -> None:
    op.create_table(
        "notice",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=True),
        sa.Column("address", sa.String(length=320), nullable=True),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try_at", UtcTime(), nullable=False),
        sa.Column("sent_at", UtcTime(), nullable=True),
        sa.Column("failed_at", UtcTime(), nullable=True),
        sa.Column("reason", sa.String(length=200), nullable=True),
        sa.CheckConstraint("person_id IS NOT NULL OR address IS NOT NULL", name=op.f("ck_notice_addressed")),
        sa.CheckConstraint("sent_at IS NULL OR failed_at IS NULL", name=op.f("ck_notice_sent_or_failed")),
        sa.CheckConstraint("tries >= 0", name=op.f("ck_notice_tries_not_negative")),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("fk_notice_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notice")),
        sa.UniqueConstraint("key", name=op.f("uq_notice_key")),
    )
    with op.batch_alter_table("notice", schema=None) as batch_op:
        batch_op.create_index("ix_notice_due", ["next_try_at"], postgresql_where=WAITING, sqlite_where=WAITING)
        batch_op.create_index(batch_op.f("ix_notice_person_id"), ["person_id"], unique=False)


def _make_reclaim_notice() -> None:
    op.create_table(
        "reclaim_notice",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("award_id", sa.String(length=32), nullable=False),
        sa.Column("after_thousandths", sa.Integer(), nullable=False),
        sa.Column("used_below_thousandths", sa.Integer(), nullable=False),
        sa.Column("take_thousandths", sa.Integer(), nullable=False),
        sa.Column("announced_credits", BIG, nullable=False),
        sa.Column("noticed_at", UtcTime(), nullable=False),
        sa.Column("due_at", UtcTime(), nullable=False),
        sa.Column("justification", sa.Text(), nullable=True),
        sa.Column("justified_by", sa.String(length=32), nullable=True),
        sa.Column("justified_at", UtcTime(), nullable=True),
        sa.Column("decision", sa.String(length=16), nullable=True),
        sa.Column("decision_reason", sa.String(length=1000), nullable=True),
        sa.Column("decided_by", sa.String(length=32), nullable=True),
        sa.Column("decided_at", UtcTime(), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("outcome_reason", sa.String(length=200), nullable=True),
        sa.Column("ended_at", UtcTime(), nullable=True),
        sa.Column("reclaimed_credits", BIG, nullable=True),
        *(sa.CheckConstraint(rule, name=op.f(f"ck_reclaim_notice_{name}")) for name, rule in RECLAIM_RULES.items()),
        sa.ForeignKeyConstraint(["award_id"], ["award.id"], name=op.f("fk_reclaim_notice_award_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reclaim_notice")),
        sa.UniqueConstraint("award_id", "after_thousandths", name=op.f("uq_reclaim_notice_award_id_after_thousandths")),
    )
    op.create_index(
        "uq_reclaim_notice_open", "reclaim_notice", ["award_id"], unique=True, postgresql_where=OPEN, sqlite_where=OPEN
    )
