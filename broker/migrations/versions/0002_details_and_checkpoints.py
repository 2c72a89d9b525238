"""What a transfer says beside its amount, and signed heads of the chain.

A row without details hashes as it did before, so nothing is hashed again. On the way down the wider CHECK on
amounts stays: a `restore` row moves nothing and must not be lost. A release that knows no details finds the
rows that have some broken, until it is brought up again.
"""

import sqlalchemy as sa
from alembic import op

from broker.migrations import kept
from storage.tables import BIG, UtcTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

POSITIVE = "amount > 0 OR (amount = 0 AND kind = 'restore')"
DETAILS_SHORT = "length(details) BETWEEN 1 AND 200"


def upgrade() -> None:
    with op.batch_alter_table("ledger_transfer") as batch_op:
        batch_op.drop_constraint(batch_op.f("ck_ledger_transfer_positive"), type_="check")
        batch_op.add_column(sa.Column("details", sa.String(length=200), nullable=True))
    with op.batch_alter_table("ledger_transfer") as batch_op:
        batch_op.create_check_constraint(batch_op.f("ck_ledger_transfer_positive"), POSITIVE)
        batch_op.create_check_constraint(batch_op.f("ck_ledger_transfer_details_short"), DETAILS_SHORT)
    kept.bring_columns_back("ledger_transfer", "sequence", ["details"])
    op.create_table(
        "checkpoint",
        sa.Column("sequence", BIG, autoincrement=False, nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.Column("signature", sa.String(length=128), nullable=False),
        sa.CheckConstraint("sequence > 0", name=op.f("ck_checkpoint_of_a_transfer")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_checkpoint")),
    )
    op.create_table(
        "checkpoint_place",
        sa.Column("place", sa.String(length=300), nullable=False),
        sa.Column("sequence", BIG, nullable=False),
        sa.Column("delivered_at", UtcTime(), nullable=True),
        sa.Column("failed_at", UtcTime(), nullable=True),
        sa.Column("failure", sa.String(length=300), nullable=True),
        sa.PrimaryKeyConstraint("place", name=op.f("pk_checkpoint_place")),
    )
    kept.bring_back("checkpoint", "checkpoint_place")


def downgrade() -> None:
    kept.put_aside("checkpoint_place", "checkpoint")
    kept.put_columns_aside("ledger_transfer", "sequence", ["details"])
    with op.batch_alter_table("ledger_transfer") as batch_op:
        batch_op.drop_constraint(batch_op.f("ck_ledger_transfer_details_short"), type_="check")
        batch_op.drop_column("details")
