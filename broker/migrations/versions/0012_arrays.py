"""Arrays: their tasks' words and counts, a row for each task with a state of its own, whose task a usage record is.

An older release would take an open array for one job, and settle the whole with the end of any task: such jobs go
aside whole, with what hangs on them.
"""

import sqlalchemy as sa
from alembic import op

from broker.migrations import kept
from storage.tables import BIG, UtcTime

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

JOB = ("array_words", "tasks", "tasks_waiting", "tasks_running")
OPEN = "array_words IS NOT NULL AND settled_at IS NULL"
OF_OPEN = f"job_id IN (SELECT id FROM job WHERE {OPEN})"
STATES = (
    *("held", "dispatching", "queued", "running"),
    *("succeeded", "failed", "cancelled", "timed_out", "out_of_memory", "node_failed", "preempted", "lost"),
)
ENDED = sorted(STATES[4:])
TO_CANCEL = sa.text("cancel_requested_at IS NOT NULL AND settled_at IS NULL")


def upgrade() -> None:
    _widen()
    kept.bring_columns_back("job", "id", JOB)
    kept.bring_columns_back("usage_record", "id", ("task",))
    kept.bring_columns_back("site", "id", ("array_size_max",))
    kept.bring_rows_back("job", mark="arrays")
    kept.bring_rows_back("job_payload", mark="arrays")
    kept.bring_rows_back("job_event", without="id", mark="arrays")
    _make_job_task()
    kept.bring_back("job_task")


def _widen() -> None:
    with op.batch_alter_table("job") as batch_op:
        batch_op.add_column(sa.Column("array_words", sa.String(length=1000), nullable=True))
        batch_op.add_column(sa.Column("tasks", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("tasks_waiting", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("tasks_running", sa.Integer(), nullable=True))
    op.execute("UPDATE job SET tasks = 1")
    with op.batch_alter_table("job") as batch_op:
        batch_op.alter_column("tasks", existing_type=sa.Integer(), nullable=False)
        batch_op.create_check_constraint(
            batch_op.f("ck_job_tasks_counted"),
            "(array_words IS NULL AND tasks = 1 AND tasks_waiting IS NULL AND tasks_running IS NULL)"
            " OR (tasks_waiting >= 0 AND tasks_running >= 0 AND tasks_waiting + tasks_running <= tasks)",
        )
    with op.batch_alter_table("usage_record") as batch_op:
        batch_op.add_column(sa.Column("task", sa.Integer(), nullable=True))
    with op.batch_alter_table("site") as batch_op:
        batch_op.add_column(sa.Column("array_size_max", sa.Integer(), nullable=True))


def _make_job_task() -> None:
    op.create_table(
        "job_task",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("task", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=1000), nullable=True),
        sa.Column("started_at", UtcTime(), nullable=True),
        sa.Column("ended_at", UtcTime(), nullable=True),
        sa.Column("settled_at", UtcTime(), nullable=True),
        sa.Column("charged_credits", BIG, nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("cancel_requested_at", UtcTime(), nullable=True),
        sa.Column("cancel_cause", sa.String(length=300), nullable=True),
        sa.Column("cancel_sent_at", UtcTime(), nullable=True),
        sa.Column("missing_since", UtcTime(), nullable=True),
        sa.CheckConstraint(_among(STATES), name=op.f("ck_job_task_state_known")),
        sa.CheckConstraint(f"settled_at IS NULL OR {_among(ENDED)}", name=op.f("ck_job_task_settled_only_when_ended")),
        sa.CheckConstraint(
            "(settled_at IS NULL) = (charged_credits IS NULL)", name=op.f("ck_job_task_charged_when_settled")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_job_task_job_id")),
        sa.PrimaryKeyConstraint("job_id", "task", name=op.f("pk_job_task")),
    )
    with op.batch_alter_table("job_task") as batch_op:
        batch_op.create_index(
            "ix_job_task_to_cancel", ["job_id"], unique=False, sqlite_where=TO_CANCEL, postgresql_where=TO_CANCEL
        )


def _among(states: list[str] | tuple[str, ...]) -> str:
    return "state IN (" + ", ".join(f"'{state}'" for state in states) + ")"


def downgrade() -> None:
    with op.batch_alter_table("job_task") as batch_op:
        batch_op.drop_index("ix_job_task_to_cancel", sqlite_where=TO_CANCEL, postgresql_where=TO_CANCEL)
    kept.put_aside("job_task")
    kept.put_rows_aside("job_event", OF_OPEN, mark="arrays")
    kept.put_rows_aside("job_payload", OF_OPEN, mark="arrays")
    kept.put_rows_aside("job", OPEN, mark="arrays")
    kept.put_columns_aside("job", "id", JOB)
    kept.put_columns_aside("usage_record", "id", ("task",))
    kept.put_columns_aside("site", "id", ("array_size_max",))
    with op.batch_alter_table("site") as batch_op:
        batch_op.drop_column("array_size_max")
    with op.batch_alter_table("usage_record") as batch_op:
        batch_op.drop_column("task")
    with op.batch_alter_table("job") as batch_op:
        batch_op.drop_constraint(batch_op.f("ck_job_tasks_counted"), type_="check")
        for name in reversed(JOB):
            batch_op.drop_column(name)
