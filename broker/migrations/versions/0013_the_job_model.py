"""What jobs run after, when they begin, their signal, requeues, modules and images; environments that sites offer.

Jobs of an earlier release run once, begin as soon as they can, and load nothing.
"""

import sqlalchemy as sa
from alembic import op

from broker.migrations import kept
from storage.tables import UtcTime

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

OF_JOBS = ("begin_at", "signal", "signal_s", "requeues", "expected_start_at")
OF_PAYLOADS = ("named_environment", "modules", "container")


def upgrade() -> None:
    _add_to_jobs()
    _add_to_payloads()
    _make_named_environment()
    _make_job_after()
    kept.bring_back("named_environment", "job_after")


def downgrade() -> None:
    with op.batch_alter_table("job_after") as batch_op:
        batch_op.drop_index(batch_op.f("ix_job_after_other_id"))
    kept.put_aside("job_after", "named_environment")
    kept.put_columns_aside("job_payload", "job_id", OF_PAYLOADS)
    with op.batch_alter_table("job_payload") as batch_op:
        for name in OF_PAYLOADS:
            batch_op.drop_column(name)
    kept.put_columns_aside("job", "id", OF_JOBS)
    with op.batch_alter_table("job") as batch_op:
        batch_op.drop_constraint(op.f("ck_job_signal_with_its_time"), type_="check")
        batch_op.drop_constraint(op.f("ck_job_requeues_not_negative"), type_="check")
        for name in OF_JOBS:
            batch_op.drop_column(name)


def _add_to_jobs() -> None:
    with op.batch_alter_table("job") as batch_op:
        batch_op.add_column(sa.Column("begin_at", UtcTime(), nullable=True))
        batch_op.add_column(sa.Column("signal", sa.String(length=8), nullable=True))
        batch_op.add_column(sa.Column("signal_s", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("requeues", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("expected_start_at", UtcTime(), nullable=True))
    op.execute("UPDATE job SET requeues = 0")
    kept.bring_columns_back("job", "id", OF_JOBS)
    with op.batch_alter_table("job") as batch_op:
        batch_op.alter_column("requeues", existing_type=sa.Integer(), nullable=False)
        batch_op.create_check_constraint(op.f("ck_job_requeues_not_negative"), "requeues >= 0")
        batch_op.create_check_constraint(op.f("ck_job_signal_with_its_time"), "(signal IS NULL) = (signal_s IS NULL)")


def _add_to_payloads() -> None:
    with op.batch_alter_table("job_payload") as batch_op:
        batch_op.add_column(sa.Column("named_environment", sa.String(length=40), nullable=True))
        batch_op.add_column(sa.Column("modules", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("container", sa.String(length=1024), nullable=True))
    op.execute("UPDATE job_payload SET modules = '[]'")
    kept.bring_columns_back("job_payload", "job_id", OF_PAYLOADS)
    with op.batch_alter_table("job_payload") as batch_op:
        batch_op.alter_column("modules", existing_type=sa.JSON(), nullable=False)


def _make_named_environment() -> None:
    op.create_table(
        "named_environment",
        sa.Column("site_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("about", sa.String(length=1000), nullable=False),
        sa.Column("modules", sa.JSON(), nullable=False),
        sa.Column("container", sa.String(length=1024), nullable=True),
        sa.Column("entered_at", UtcTime(), nullable=False),
        sa.CheckConstraint("about <> ''", name=op.f("ck_named_environment_about_given")),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name=op.f("fk_named_environment_site_id")),
        sa.PrimaryKeyConstraint("site_id", "name", name=op.f("pk_named_environment")),
    )


def _make_job_after() -> None:
    op.create_table(
        "job_after",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("other_id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.CheckConstraint("kind IN ('afterok', 'afterany', 'afternotok')", name=op.f("ck_job_after_kind_known")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_job_after_job_id")),
        sa.ForeignKeyConstraint(["other_id"], ["job.id"], name=op.f("fk_job_after_other_id")),
        sa.PrimaryKeyConstraint("job_id", "other_id", name=op.f("pk_job_after")),
    )
    with op.batch_alter_table("job_after") as batch_op:
        batch_op.create_index(batch_op.f("ix_job_after_other_id"), ["other_id"], unique=False)
