"""The first tables."""

import sqlalchemy as sa
from alembic import op
from sqlmodel import Session

from broker.migrations import kept
from quotas.ledger import open_ledger
from storage.tables import BIG, UtcTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "gpu_class",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("valid_from", UtcTime(), nullable=False),
        sa.Column("weight_thousandths", sa.Integer(), nullable=False),
        sa.CheckConstraint("weight_thousandths > 0", name=op.f("ck_gpu_class_weight_positive")),
        sa.PrimaryKeyConstraint("name", "valid_from", name=op.f("pk_gpu_class")),
    )
    op.create_table(
        "idempotency",
        sa.Column("person_id", sa.String(length=32), nullable=False),
        sa.Column("method", sa.String(length=8), nullable=False),
        sa.Column("route", sa.String(length=100), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("resource", sa.String(length=200), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("person_id", "method", "route", "key", name=op.f("pk_idempotency")),
    )
    with op.batch_alter_table("idempotency", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_idempotency_created_at"), ["created_at"], unique=False)

    op.create_table(
        "ledger_account",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("owner_id", sa.String(length=32), nullable=False),
        sa.Column("unit", sa.String(length=16), nullable=False),
        sa.Column("balance", BIG, nullable=False),
        sa.CheckConstraint(
            "balance >= 0 OR kind IN ('treasury', 'overrun')", name=op.f("ck_ledger_account_not_below_zero")
        ),
        sa.CheckConstraint("unit IN ('credit', 'byte', 'byte-hour')", name=op.f("ck_ledger_account_unit_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_account")),
        sa.UniqueConstraint("kind", "owner_id", name=op.f("uq_ledger_account_kind_owner_id")),
    )
    op.create_table(
        "ledger_head",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sequence", BIG, nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_ledger_head_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_head")),
    )
    op.create_table(
        "organisation",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("full_name", sa.String(length=200), nullable=True),
        sa.Column("siret", sa.String(length=14), nullable=True),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organisation")),
        sa.UniqueConstraint("name", name=op.f("uq_organisation_name")),
    )
    op.create_table(
        "person",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("full_name", sa.String(length=200), nullable=True),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_person")),
        sa.UniqueConstraint("name", name=op.f("uq_person_name")),
    )
    op.create_table(
        "programme",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("default_time_limit_s", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.CheckConstraint("default_time_limit_s >= 60", name=op.f("ck_programme_time_limit_positive")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_programme")),
        sa.UniqueConstraint("name", name=op.f("uq_programme_name")),
    )
    op.create_table(
        "site",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("scheduler", sa.String(length=100), nullable=True),
        sa.Column("problems", sa.JSON(), nullable=False),
        sa.Column("checked_at", UtcTime(), nullable=True),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_site")),
        sa.UniqueConstraint("name", name=op.f("uq_site_name")),
    )
    op.create_table(
        "usage_record",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("site_id", sa.String(length=32), nullable=False),
        sa.Column("source_key", sa.String(length=200), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("award_id", sa.String(length=32), nullable=False),
        sa.Column("project_id", sa.String(length=32), nullable=False),
        sa.Column("programme_id", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("native_state", sa.String(length=64), nullable=False),
        sa.Column("gpu_class", sa.String(length=40), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("elapsed_s", BIG, nullable=False),
        sa.Column("started_at", UtcTime(), nullable=True),
        sa.Column("ended_at", UtcTime(), nullable=False),
        sa.Column("weight_thousandths", sa.Integer(), nullable=False),
        sa.Column("charge_credits", BIG, nullable=False),
        sa.Column("overrun_credits", BIG, nullable=False),
        sa.Column("recorded_at", UtcTime(), nullable=False),
        sa.CheckConstraint(
            "gpus >= 0 AND elapsed_s >= 0 AND charge_credits >= 0", name=op.f("ck_usage_record_not_negative")
        ),
        sa.CheckConstraint(
            "overrun_credits >= 0 AND overrun_credits <= charge_credits",
            name=op.f("ck_usage_record_overrun_within_charge"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_record")),
    )
    with op.batch_alter_table("usage_record", schema=None) as batch_op:
        batch_op.create_index("ix_usage_record_ended_at", ["ended_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_usage_record_job_id"), ["job_id"], unique=False)

    op.create_table(
        "api_token",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("label", sa.String(length=200), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("expires_at", UtcTime(), nullable=False),
        sa.Column("revoked_at", UtcTime(), nullable=True),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("fk_api_token_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_token")),
    )
    with op.batch_alter_table("api_token", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_api_token_person_id"), ["person_id"], unique=False)

    op.create_table(
        "award",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("project_id", sa.String(length=32), nullable=False),
        sa.Column("programme_id", sa.String(length=32), nullable=False),
        sa.Column("awarded_credits", BIG, nullable=False),
        sa.Column("start_at", UtcTime(), nullable=False),
        sa.Column("end_at", UtcTime(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.CheckConstraint("start_at < end_at", name=op.f("ck_award_ends_after_start")),
        sa.ForeignKeyConstraint(["programme_id"], ["programme.id"], name=op.f("fk_award_programme_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_award")),
    )
    with op.batch_alter_table("award", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_award_project_id"), ["project_id"], unique=False)

    op.create_table(
        "ledger_transfer",
        sa.Column("sequence", BIG, autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=96), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("debit_id", sa.String(length=64), nullable=False),
        sa.Column("credit_id", sa.String(length=64), nullable=False),
        sa.Column("amount", BIG, nullable=False),
        sa.Column("reference_id", sa.String(length=32), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.CheckConstraint("amount > 0", name=op.f("ck_ledger_transfer_positive")),
        sa.CheckConstraint("debit_id <> credit_id", name=op.f("ck_ledger_transfer_two_accounts")),
        sa.ForeignKeyConstraint(["credit_id"], ["ledger_account.id"], name=op.f("fk_ledger_transfer_credit_id")),
        sa.ForeignKeyConstraint(["debit_id"], ["ledger_account.id"], name=op.f("fk_ledger_transfer_debit_id")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_ledger_transfer")),
        sa.UniqueConstraint("id", name=op.f("uq_ledger_transfer_id")),
    )
    with op.batch_alter_table("ledger_transfer", schema=None) as batch_op:
        batch_op.create_index("ix_ledger_transfer_reference_id", ["reference_id"], unique=False)

    op.create_table(
        "project",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("organisation_id", sa.String(length=40), nullable=False),
        sa.Column("programme_id", sa.String(length=40), nullable=False),
        sa.Column("confidentiality", sa.String(length=16), nullable=False),
        sa.Column("nature", sa.String(length=16), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.CheckConstraint(
            "confidentiality IN ('public', 'internal', 'confidential')", name=op.f("ck_project_confidentiality_known")
        ),
        sa.CheckConstraint("nature IN ('none', 'personal', 'health')", name=op.f("ck_project_nature_known")),
        sa.ForeignKeyConstraint(["organisation_id"], ["organisation.id"], name=op.f("fk_project_organisation_id")),
        sa.ForeignKeyConstraint(["programme_id"], ["programme.id"], name=op.f("fk_project_programme_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_project")),
        sa.UniqueConstraint("name", name=op.f("uq_project_name")),
    )
    op.create_table(
        "hold",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("award_id", sa.String(length=32), nullable=False),
        sa.Column("amount", BIG, nullable=False),
        sa.Column("remaining", BIG, nullable=False),
        sa.Column("weight_thousandths", BIG, nullable=False),
        sa.CheckConstraint("remaining >= 0 AND remaining <= amount", name=op.f("ck_hold_remaining_within_amount")),
        sa.CheckConstraint("weight_thousandths > 0", name=op.f("ck_hold_weight_positive")),
        sa.ForeignKeyConstraint(["award_id"], ["award.id"], name=op.f("fk_hold_award_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hold")),
    )
    with op.batch_alter_table("hold", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_hold_award_id"), ["award_id"], unique=False)

    op.create_table(
        "membership",
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("since", UtcTime(), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("fk_membership_person_id")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_membership_project_id")),
        sa.PrimaryKeyConstraint("person_id", "project_id", name=op.f("pk_membership")),
    )
    op.create_table(
        "project_account",
        sa.Column("site_id", sa.String(length=40), nullable=False),
        sa.Column("account", sa.String(length=32), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_project_account_project_id")),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name=op.f("fk_project_account_site_id")),
        sa.PrimaryKeyConstraint("site_id", "account", name=op.f("pk_project_account")),
        sa.UniqueConstraint("site_id", "project_id", name=op.f("uq_project_account_site_id_project_id")),
    )
    op.create_table(
        "job",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=True),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("programme_id", sa.String(length=40), nullable=False),
        sa.Column("award_id", sa.String(length=40), nullable=False),
        sa.Column("site_id", sa.String(length=40), nullable=False),
        sa.Column("hold_id", sa.String(length=40), nullable=False),
        sa.Column("account", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=1000), nullable=True),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("gpu_class", sa.String(length=40), nullable=False),
        sa.Column("weight_thousandths", sa.Integer(), nullable=False),
        sa.Column("nodes", sa.Integer(), nullable=False),
        sa.Column("cpus_per_gpu", sa.Integer(), nullable=True),
        sa.Column("memory_mib", sa.Integer(), nullable=True),
        sa.Column("time_limit_s", sa.Integer(), nullable=False),
        sa.Column("deadline_at", UtcTime(), nullable=False),
        sa.Column("snapshot", sa.String(length=64), nullable=True),
        sa.Column("script_sha256", sa.String(length=64), nullable=False),
        sa.Column("notices", sa.JSON(), nullable=False),
        sa.Column("held_credits", BIG, nullable=False),
        sa.Column("charged_credits", BIG, nullable=True),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("batch_id", sa.String(length=32), nullable=True),
        sa.Column("sent_at", UtcTime(), nullable=True),
        sa.Column("lease_until", UtcTime(), nullable=True),
        sa.Column("next_try_at", UtcTime(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("site_job_id", sa.String(length=64), nullable=True),
        sa.Column("cancel_requested_at", UtcTime(), nullable=True),
        sa.Column("cancel_cause", sa.String(length=300), nullable=True),
        sa.Column("cancel_sent_at", UtcTime(), nullable=True),
        sa.Column("started_at", UtcTime(), nullable=True),
        sa.Column("ended_at", UtcTime(), nullable=True),
        sa.Column("settled_at", UtcTime(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.CheckConstraint(
            "settled_at IS NULL OR state IN ('cancelled', 'failed', 'lost', 'node_failed', 'out_of_memory', 'preempted', 'succeeded', 'timed_out')",
            name=op.f("ck_job_settled_only_when_ended"),
        ),
        sa.CheckConstraint(
            "state IN ('held', 'dispatching', 'queued', 'running', 'succeeded', 'failed', 'cancelled', 'timed_out', 'out_of_memory', 'node_failed', 'preempted', 'lost')",
            name=op.f("ck_job_state_known"),
        ),
        sa.CheckConstraint(
            "(settled_at IS NULL) = (charged_credits IS NULL)", name=op.f("ck_job_charged_when_settled")
        ),
        sa.CheckConstraint("gpus > 0 AND nodes > 0 AND time_limit_s > 0", name=op.f("ck_job_size_positive")),
        sa.ForeignKeyConstraint(["award_id"], ["award.id"], name=op.f("fk_job_award_id")),
        sa.ForeignKeyConstraint(["hold_id"], ["hold.id"], name=op.f("fk_job_hold_id")),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("fk_job_person_id")),
        sa.ForeignKeyConstraint(["programme_id"], ["programme.id"], name=op.f("fk_job_programme_id")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_job_project_id")),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name=op.f("fk_job_site_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
    )
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.create_index("ix_job_project_id_id", ["project_id", "id"], unique=False)
        batch_op.create_index("ix_job_site_id_state", ["site_id", "state"], unique=False)
        batch_op.create_index(
            "ix_job_unsettled",
            ["site_id", "id"],
            unique=False,
            sqlite_where=sa.text("settled_at IS NULL"),
            postgresql_where=sa.text("settled_at IS NULL"),
        )

    op.create_table(
        "job_event",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("cause", sa.String(length=1000), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_job_event_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_event")),
    )
    with op.batch_alter_table("job_event", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_job_event_job_id"), ["job_id"], unique=False)

    op.create_table(
        "job_payload",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("script", sa.LargeBinary(), nullable=False),
        sa.Column("arguments", sa.JSON(), nullable=False),
        sa.Column("environment", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_job_payload_job_id")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_job_payload")),
    )
    with Session(op.get_bind()) as session:
        open_ledger(session)
        session.flush()


def downgrade() -> None:
    kept.drop_all()
    op.drop_table("job_payload")
    with op.batch_alter_table("job_event", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_job_event_job_id"))

    op.drop_table("job_event")
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_job_unsettled",
            sqlite_where=sa.text("settled_at IS NULL"),
            postgresql_where=sa.text("settled_at IS NULL"),
        )
        batch_op.drop_index("ix_job_site_id_state")
        batch_op.drop_index("ix_job_project_id_id")

    op.drop_table("job")
    op.drop_table("project_account")
    op.drop_table("membership")
    with op.batch_alter_table("hold", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_hold_award_id"))

    op.drop_table("hold")
    op.drop_table("project")
    with op.batch_alter_table("ledger_transfer", schema=None) as batch_op:
        batch_op.drop_index("ix_ledger_transfer_reference_id")

    op.drop_table("ledger_transfer")
    with op.batch_alter_table("award", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_award_project_id"))

    op.drop_table("award")
    with op.batch_alter_table("api_token", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_api_token_person_id"))

    op.drop_table("api_token")
    with op.batch_alter_table("usage_record", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_usage_record_job_id"))
        batch_op.drop_index("ix_usage_record_ended_at")

    op.drop_table("usage_record")
    op.drop_table("site")
    op.drop_table("programme")
    op.drop_table("person")
    op.drop_table("organisation")
    op.drop_table("ledger_head")
    op.drop_table("ledger_account")
    with op.batch_alter_table("idempotency", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_idempotency_created_at"))

    op.drop_table("idempotency")
    op.drop_table("gpu_class")
