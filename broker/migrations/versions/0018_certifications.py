"""Certifications of sites' services."""

import sqlalchemy as sa
from alembic import op

from broker.migrations import kept
from storage.tables import UtcTime

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "certification",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("site_id", sa.String(length=40), nullable=False),
        sa.Column("service", sa.String(length=200), nullable=False),
        sa.Column("scheme", sa.String(length=40), nullable=False),
        sa.Column("version", sa.String(length=20), nullable=False),
        sa.Column("scope", sa.JSON(), nullable=False),
        sa.Column("document", sa.String(length=200), nullable=False),
        sa.Column("start_at", UtcTime(), nullable=False),
        sa.Column("end_at", UtcTime(), nullable=False),
        sa.Column("entered_by", sa.String(length=40), nullable=False),
        sa.Column("entered_at", UtcTime(), nullable=False),
        sa.Column("confirmed_by", sa.String(length=40), nullable=True),
        sa.Column("confirmed_at", UtcTime(), nullable=True),
        sa.Column("withdrawn_by", sa.String(length=40), nullable=True),
        sa.Column("withdrawn_at", UtcTime(), nullable=True),
        sa.Column("withdrawn_why", sa.String(length=1000), nullable=True),
        sa.CheckConstraint("end_at > start_at", name=op.f("ck_certification_period")),
        sa.CheckConstraint(
            "confirmed_by IS NULL OR confirmed_by <> entered_by", name=op.f("ck_certification_two_people")
        ),
        sa.CheckConstraint(
            "(confirmed_by IS NULL) = (confirmed_at IS NULL)", name=op.f("ck_certification_confirmation_whole")
        ),
        sa.CheckConstraint(
            "(withdrawn_by IS NULL) = (withdrawn_at IS NULL)", name=op.f("ck_certification_withdrawal_whole")
        ),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name=op.f("fk_certification_site_id_site")),
        sa.ForeignKeyConstraint(["entered_by"], ["person.id"], name=op.f("fk_certification_entered_by_person")),
        sa.ForeignKeyConstraint(["confirmed_by"], ["person.id"], name=op.f("fk_certification_confirmed_by_person")),
        sa.ForeignKeyConstraint(["withdrawn_by"], ["person.id"], name=op.f("fk_certification_withdrawn_by_person")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_certification")),
    )
    with op.batch_alter_table("certification") as certification:
        certification.create_index(op.f("ix_certification_site_id"), ["site_id"])
    kept.bring_back("certification")


def downgrade() -> None:
    with op.batch_alter_table("certification") as certification:
        certification.drop_index(op.f("ix_certification_site_id"))
    kept.put_aside("certification")
