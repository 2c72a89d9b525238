"""What audits found; the life of project accounts; jobs that wait for one; a project's use at a site, quickly added up.

On the way down a job that waits for an account has an empty one, which no gateway knows: it goes on waiting.
"""

import sqlalchemy as sa
from alembic import op

from broker.migrations import kept
from storage.tables import BIG, UtcTime

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

SITE = ("findings", "proven_at")
ACCOUNT = ("taken_at", "opened_at", "left_at", "lease_until", "lease_step", "trouble", "gpu_minutes_max", "limited_at")
HELD_BY = "site_id, account"


def upgrade() -> None:
    with op.batch_alter_table("job") as job:
        job.alter_column("account", existing_type=sa.String(length=32), nullable=True)
    op.execute("UPDATE job SET account = NULL WHERE account = ''")
    with op.batch_alter_table("site") as site:
        site.add_column(sa.Column("findings", sa.JSON(), nullable=True))
        site.add_column(sa.Column("proven_at", UtcTime(), nullable=True))
    op.execute("UPDATE site SET findings = '[]'")
    kept.bring_columns_back("site", "id", SITE)
    with op.batch_alter_table("site") as site:
        site.alter_column("findings", existing_type=sa.JSON(), nullable=False)
    _widen_accounts()
    with op.batch_alter_table("usage_record") as usage:
        usage.create_index(op.f("ix_usage_record_project_id_site_id"), ["project_id", "site_id"])


def _widen_accounts() -> None:
    with op.batch_alter_table("project_account") as account:
        account.add_column(sa.Column("taken_at", UtcTime(), nullable=True))
        account.add_column(sa.Column("opened_at", UtcTime(), nullable=True))
        account.add_column(sa.Column("left_at", UtcTime(), nullable=True))
        account.add_column(sa.Column("lease_until", UtcTime(), nullable=True))
        account.add_column(sa.Column("lease_step", sa.String(length=8), nullable=True))
        account.add_column(sa.Column("trouble", sa.String(length=1000), nullable=True))
        account.add_column(sa.Column("gpu_minutes_max", BIG, nullable=True))
        account.add_column(sa.Column("limited_at", UtcTime(), nullable=True))
    op.execute(
        "UPDATE project_account SET taken_at = (SELECT created_at FROM site WHERE site.id = project_account.site_id)"
    )
    kept.bring_columns_back("project_account", HELD_BY, ACCOUNT)
    with op.batch_alter_table("project_account") as account:
        account.alter_column("taken_at", existing_type=UtcTime(), nullable=False)
        account.create_check_constraint(
            op.f("ck_project_account_gpu_minutes_not_negative"), "gpu_minutes_max IS NULL OR gpu_minutes_max >= 0"
        )


def downgrade() -> None:
    kept.put_columns_aside("site", "id", SITE)
    kept.put_columns_aside("project_account", HELD_BY, ACCOUNT)
    with op.batch_alter_table("usage_record") as usage:
        usage.drop_index(op.f("ix_usage_record_project_id_site_id"))
    with op.batch_alter_table("project_account") as account:
        account.drop_constraint(op.f("ck_project_account_gpu_minutes_not_negative"), type_="check")
        for name in reversed(ACCOUNT):
            account.drop_column(name)
    with op.batch_alter_table("site") as site:
        for name in reversed(SITE):
            site.drop_column(name)
    op.execute("UPDATE job SET account = '' WHERE account IS NULL")
    with op.batch_alter_table("job") as job:
        job.alter_column("account", existing_type=sa.String(length=32), nullable=False)
