"""Charging rules, and what the rate of a job and of its usage is computed from.

Jobs and usage of release 0001 counted GPUs alone: their rate is GPUs × weight, which is what they were held
and charged at, and their CPUs, memory and nodes are not known.
"""

import json

import sqlalchemy as sa
from alembic import op

from broker.migrations import kept
from storage.tables import BIG, UtcTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

JOB = ("gpus_taken", "cpus", "exclusive", "partition", "charging_rule_id", "rate_credits_per_s")
USAGE = ("cpus", "memory_mib", "nodes", "exclusive", "rate_credits_per_s")
WITHOUT_GPU = "job_id IN (SELECT id FROM job WHERE gpus = 0)"
FIGURES = (
    "cpus_per_gpu",
    "memory_mib_per_gpu",
    "gpus_per_node",
    "cpus_per_node",
    "memory_mib_per_node",
    "cpu_weight_thousandths",
)


def upgrade() -> None:
    _create_rules()
    _widen_jobs()
    _widen_usage()
    kept.bring_back("charging_rule")
    kept.bring_columns_back("job", "id", JOB)
    kept.bring_columns_back("usage_record", "id", USAGE)
    kept.bring_rows_back("job")
    kept.bring_rows_back("job_payload")
    kept.bring_rows_back("job_event", without="id")


def _create_rules() -> None:
    op.create_table(
        "charging_rule",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("site_id", sa.String(length=32), nullable=False),
        sa.Column("partition", sa.String(length=64), nullable=False),
        sa.Column("valid_from", UtcTime(), nullable=False),
        sa.Column("cpus_per_gpu", sa.Integer(), nullable=True),
        sa.Column("memory_mib_per_gpu", BIG, nullable=True),
        sa.Column("whole_nodes", sa.Boolean(), nullable=False),
        sa.Column("gpus_per_node", sa.Integer(), nullable=True),
        sa.Column("cpus_per_node", sa.Integer(), nullable=True),
        sa.Column("memory_mib_per_node", BIG, nullable=True),
        sa.Column("cpu_weight_thousandths", sa.Integer(), nullable=True),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.CheckConstraint(
            " AND ".join(f"({name} IS NULL OR {name} > 0)" for name in FIGURES),
            name=op.f("ck_charging_rule_figures_positive"),
        ),
        sa.CheckConstraint(
            "NOT whole_nodes OR gpus_per_node IS NOT NULL OR cpus_per_node IS NOT NULL",
            name=op.f("ck_charging_rule_whole_node_known"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_charging_rule")),
        sa.UniqueConstraint(
            "site_id", "partition", "valid_from", name=op.f("uq_charging_rule_site_id_partition_valid_from")
        ),
    )


def _widen_jobs() -> None:
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.add_column(sa.Column("gpus_taken", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("cpus", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("exclusive", sa.Boolean(), nullable=True))
        batch_op.add_column(sa.Column("partition", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("charging_rule_id", sa.String(length=40), nullable=True))
        batch_op.add_column(sa.Column("rate_credits_per_s", BIG, nullable=True))
    op.execute(
        "UPDATE job SET gpus_taken = gpus, exclusive = false, rate_credits_per_s = CAST(gpus AS BIGINT) * weight_thousandths"
    )
    sites = op.get_bind().execute(sa.text("SELECT id, settings FROM site")).all()
    for id_, settings in sites:  # where jobs that wait here were to be sent
        known = settings if isinstance(settings, dict) else json.loads(settings)
        statement = sa.text("UPDATE job SET partition = :partition WHERE site_id = :site_id")
        op.get_bind().execute(statement, {"partition": known.get("partition"), "site_id": id_})
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.alter_column("gpus_taken", existing_type=sa.Integer(), nullable=False)
        batch_op.alter_column("exclusive", existing_type=sa.Boolean(), nullable=False)
        batch_op.alter_column("rate_credits_per_s", existing_type=BIG, nullable=False)
        batch_op.create_foreign_key(
            batch_op.f("fk_job_charging_rule_id"), "charging_rule", ["charging_rule_id"], ["id"]
        )
        batch_op.drop_constraint(batch_op.f("ck_job_size_positive"), type_="check")
        batch_op.create_check_constraint(
            batch_op.f("ck_job_size_positive"), "gpus >= 0 AND gpus_taken >= gpus AND nodes > 0 AND time_limit_s > 0"
        )
        batch_op.create_check_constraint(batch_op.f("ck_job_rate_positive"), "rate_credits_per_s > 0")


def _widen_usage() -> None:
    with op.batch_alter_table("usage_record", schema=None) as batch_op:
        batch_op.add_column(sa.Column("cpus", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("memory_mib", BIG, nullable=True))
        batch_op.add_column(sa.Column("nodes", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("exclusive", sa.Boolean(), nullable=True))
        batch_op.add_column(sa.Column("rate_credits_per_s", BIG, nullable=True))
    op.execute(
        "UPDATE usage_record SET exclusive = false, rate_credits_per_s = CAST(gpus AS BIGINT) * weight_thousandths"
    )
    with op.batch_alter_table("usage_record", schema=None) as batch_op:
        batch_op.alter_column("exclusive", existing_type=sa.Boolean(), nullable=False)
        batch_op.alter_column("rate_credits_per_s", existing_type=BIG, nullable=False)


def downgrade() -> None:
    """Jobs without GPU have no place in release 0001: they go aside whole, with what hangs on them."""
    kept.put_rows_aside("job_event", WITHOUT_GPU)
    kept.put_rows_aside("job_payload", WITHOUT_GPU)
    kept.put_rows_aside("job", "gpus = 0")
    kept.put_columns_aside("usage_record", "id", USAGE)
    kept.put_columns_aside("job", "id", JOB)
    with op.batch_alter_table("usage_record", schema=None) as batch_op:
        for name in reversed(USAGE):
            batch_op.drop_column(name)
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f("fk_job_charging_rule_id"), type_="foreignkey")
        batch_op.drop_constraint(batch_op.f("ck_job_rate_positive"), type_="check")
        batch_op.drop_constraint(batch_op.f("ck_job_size_positive"), type_="check")
        batch_op.create_check_constraint(
            batch_op.f("ck_job_size_positive"), "gpus > 0 AND nodes > 0 AND time_limit_s > 0"
        )
        for name in reversed(JOB):
            batch_op.drop_column(name)
    kept.put_aside("charging_rule")
