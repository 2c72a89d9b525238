"""Since when a site does not show a job any more."""

import sqlalchemy as sa
from alembic import op

from broker.migrations import kept
from storage.tables import UtcTime

revision = "0016"
down_revision = "0014"
branch_labels = None
depends_on = None

COLUMNS = ("missing_since",)


def upgrade() -> None:
    with op.batch_alter_table("job") as job:
        job.add_column(sa.Column("missing_since", UtcTime(), nullable=True))
    kept.bring_columns_back("job", "id", COLUMNS)


def downgrade() -> None:
    kept.put_columns_aside("job", "id", COLUMNS)
    with op.batch_alter_table("job") as job:
        job.drop_column("missing_since")
