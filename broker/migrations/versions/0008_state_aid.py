"""State aid: the register's lines, and what companies declare."""

import sqlalchemy as sa
from alembic import op

from broker.migrations import kept
from storage.tables import BIG, UtcTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "aid_declaration",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("declared_on", sa.Date(), nullable=False),
        sa.Column("document", sa.String(length=200), nullable=False),
        sa.Column("entered_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_aid_declaration")),
    )
    with op.batch_alter_table("aid_declaration", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_aid_declaration_organisation_id"), ["organisation_id"], unique=False)

    op.create_table(
        "aid_declared",
        sa.Column("declaration_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("granted_on", sa.Date(), nullable=False),
        sa.Column("giver", sa.String(length=200), nullable=False),
        sa.Column("value_micro_euros", BIG, nullable=False),
        sa.Column("act_reference", sa.String(length=200), nullable=False),
        sa.Column("regime", sa.String(length=32), nullable=False),
        sa.CheckConstraint(
            "regime IN ('de-minimis', 'de-minimis-agriculture', 'de-minimis-fishery', 'de-minimis-sgei', 'exempted')",
            name=op.f("ck_aid_declared_regime_known"),
        ),
        sa.CheckConstraint("value_micro_euros > 0", name=op.f("ck_aid_declared_value_positive")),
        sa.ForeignKeyConstraint(
            ["declaration_id"], ["aid_declaration.id"], name=op.f("fk_aid_declared_declaration_id")
        ),
        sa.PrimaryKeyConstraint("declaration_id", "number", name=op.f("pk_aid_declared")),
    )
    op.create_table(
        "aid_line",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("award_id", sa.String(length=32), nullable=False),
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("reduces_id", sa.String(length=32), nullable=True),
        sa.Column("regime", sa.String(length=16), nullable=False),
        sa.Column("scheme", sa.String(length=200), nullable=True),
        sa.Column("credits", BIG, nullable=False),
        sa.Column("micro_euros_per_hour", BIG, nullable=False),
        sa.Column("public_thousandths", sa.Integer(), nullable=False),
        sa.Column("value_micro_euros", BIG, nullable=False),
        sa.Column("act_reference", sa.String(length=200), nullable=False),
        sa.Column("act_on", sa.Date(), nullable=False),
        sa.Column("granted_at", UtcTime(), nullable=False),
        sa.Column("entered_at", UtcTime(), nullable=False),
        sa.CheckConstraint(
            "(kind = 'reduction' AND credits < 0 AND value_micro_euros <= 0 AND reduces_id IS NOT NULL) OR (kind <> 'reduction' AND credits > 0 AND value_micro_euros >= 0 AND reduces_id IS NULL)",
            name=op.f("ck_aid_line_only_reductions_lower"),
        ),
        sa.CheckConstraint("(regime = 'exempted') = (scheme IS NOT NULL)", name=op.f("ck_aid_line_scheme_of_exempted")),
        sa.CheckConstraint(
            "kind IN ('grant', 'supplement', 'transfer', 'reduction')", name=op.f("ck_aid_line_kind_known")
        ),
        sa.CheckConstraint("regime IN ('de-minimis', 'exempted')", name=op.f("ck_aid_line_regime_known")),
        sa.CheckConstraint("micro_euros_per_hour >= 0", name=op.f("ck_aid_line_rate_not_negative")),
        sa.CheckConstraint(
            "public_thousandths >= 0 AND public_thousandths <= 1000", name=op.f("ck_aid_line_share_within_whole")
        ),
        sa.ForeignKeyConstraint(["award_id"], ["award.id"], name=op.f("fk_aid_line_award_id")),
        sa.ForeignKeyConstraint(["reduces_id"], ["aid_line.id"], name=op.f("fk_aid_line_reduces_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_aid_line")),
    )
    with op.batch_alter_table("aid_line", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_aid_line_award_id"), ["award_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_aid_line_entered_at"), ["entered_at"], unique=False)
        batch_op.create_index("ix_aid_line_organisation_id_granted_at", ["organisation_id", "granted_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_aid_line_reduces_id"), ["reduces_id"], unique=False)

    kept.bring_back("aid_declaration", "aid_declared", "aid_line")


def downgrade() -> None:
    kept.put_aside("aid_line", "aid_declared", "aid_declaration")
