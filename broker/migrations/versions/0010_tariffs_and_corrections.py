"""Tariffs in euros."""

import sqlalchemy as sa
from alembic import op

from broker.migrations import kept
from storage.tables import BIG, UtcTime

revision = "0010"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = ("tariff",)


def upgrade() -> None:
    op.create_table(
        "tariff",
        sa.Column("site_id", sa.String(length=32), nullable=False),
        sa.Column("gpu_class", sa.String(length=40), nullable=False),
        sa.Column("valid_from", UtcTime(), nullable=False),
        sa.Column("micro_euros_per_gpu_hour", BIG, nullable=False),
        sa.CheckConstraint("micro_euros_per_gpu_hour >= 0", name=op.f("ck_tariff_not_negative")),
        sa.PrimaryKeyConstraint("site_id", "gpu_class", "valid_from", name=op.f("pk_tariff")),
    )
    kept.bring_back(*TABLES)


def downgrade() -> None:
    kept.put_aside(*reversed(TABLES))
