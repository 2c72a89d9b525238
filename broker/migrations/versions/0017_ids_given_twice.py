"""An index that finds the jobs to which a site gave the same id."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

SENT = sa.text("site_job_id IS NOT NULL")


def upgrade() -> None:
    op.create_index("ix_job_site_job_id", "job", ["site_id", "site_job_id"], sqlite_where=SENT, postgresql_where=SENT)


def downgrade() -> None:
    op.drop_index("ix_job_site_job_id", "job")
