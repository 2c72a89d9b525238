"""Notices: letters that wait, went, or could not be sent."""

import sqlalchemy as sa
from alembic import op

from broker.migrations import kept
from storage.tables import UtcTime

revision = "0009"
down_revision = "0007"
branch_labels = None
depends_on = None

WAITING = sa.text("sent_at IS NULL AND failed_at IS NULL")


def upgrade() -> None:
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
    kept.bring_back("notice")


def downgrade() -> None:
    kept.put_aside("notice")
