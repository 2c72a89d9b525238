"""Contracts and ceilings."""

import sqlalchemy as sa
from alembic import op

from broker.migrations import kept
from storage.tables import BIG, UtcTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

HOLD = ("contract_id", "contract_amount", "contract_remaining", "contract_weight_thousandths")
USAGE = ("contract_id", "contract_charge_credits")
CAPACITY = "treasury:contracts"


def upgrade() -> None:
    op.create_table(
        "ceiling",
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("scope_id", sa.String(length=32), nullable=False),
        sa.Column("what", sa.String(length=16), nullable=False),
        sa.Column("amount", BIG, nullable=False),
        sa.Column("set_by", sa.String(length=32), nullable=False),
        sa.Column("set_at", UtcTime(), nullable=False),
        sa.CheckConstraint("scope IN ('award', 'project', 'programme', 'site')", name=op.f("ck_ceiling_scope_known")),
        sa.CheckConstraint(
            "what IN ('gpus_running', 'jobs_queued', 'bytes_stored')", name=op.f("ck_ceiling_what_known")
        ),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_ceiling_not_negative")),
        sa.PrimaryKeyConstraint("scope", "scope_id", "what", name=op.f("pk_ceiling")),
    )
    op.create_table(
        "contract",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("site_id", sa.String(length=32), nullable=False),
        sa.Column("gpu_class", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("start_at", UtcTime(), nullable=False),
        sa.Column("end_at", UtcTime(), nullable=False),
        sa.Column("capacity_credits", BIG, nullable=False),
        sa.Column("weight_thousandths", sa.Integer(), nullable=False),
        sa.Column("order_number", sa.String(length=100), nullable=True),
        sa.Column("price_before_tax_micro_euros", BIG, nullable=True),
        sa.Column("price_with_tax_micro_euros", BIG, nullable=True),
        sa.Column("dossier", sa.String(length=100), nullable=True),
        sa.Column("holder", sa.String(length=200), nullable=True),
        sa.Column("holder_project", sa.String(length=100), nullable=True),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.CheckConstraint(
            "(kind = 'purchased' AND order_number IS NOT NULL AND dossier IS NULL AND holder IS NULL"
            " AND holder_project IS NULL) OR (kind = 'allocated' AND dossier IS NOT NULL AND holder IS NOT NULL"
            " AND holder_project IS NOT NULL AND order_number IS NULL AND price_before_tax_micro_euros IS NULL"
            " AND price_with_tax_micro_euros IS NULL)",
            name=op.f("ck_contract_kind_whole"),
        ),
        sa.CheckConstraint(
            "capacity_credits > 0 AND weight_thousandths > 0", name=op.f("ck_contract_capacity_positive")
        ),
        sa.CheckConstraint(
            "price_with_tax_micro_euros >= price_before_tax_micro_euros AND price_before_tax_micro_euros >= 0",
            name=op.f("ck_contract_tax_not_negative"),
        ),
        sa.CheckConstraint("start_at < end_at", name=op.f("ck_contract_ends_after_start")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contract")),
    )
    op.create_index("ix_contract_site_id_gpu_class", "contract", ["site_id", "gpu_class"])
    with op.batch_alter_table("hold") as hold:
        hold.add_column(sa.Column("contract_id", sa.String(length=32), nullable=True))
        hold.add_column(sa.Column("contract_amount", BIG, nullable=True))
        hold.add_column(sa.Column("contract_remaining", BIG, nullable=True))
        hold.add_column(sa.Column("contract_weight_thousandths", BIG, nullable=True))
        hold.create_index(op.f("ix_hold_contract_id"), ["contract_id"])
        hold.create_foreign_key(op.f("fk_hold_contract_id"), "contract", ["contract_id"], ["id"])
        hold.create_check_constraint(
            op.f("ck_hold_contract_remaining_within_amount"),
            "contract_remaining >= 0 AND contract_remaining <= contract_amount",
        )
        hold.create_check_constraint(
            op.f("ck_hold_contract_whole"),
            "(contract_id IS NULL) = (contract_amount IS NULL) AND (contract_id IS NULL) = (contract_remaining IS NULL)"
            " AND (contract_id IS NULL) = (contract_weight_thousandths IS NULL)",
        )
    with op.batch_alter_table("usage_record") as usage:
        usage.add_column(sa.Column("contract_id", sa.String(length=32), nullable=True))
        usage.add_column(sa.Column("contract_charge_credits", BIG, nullable=True))
    _open_capacity()
    kept.bring_back("ceiling", "contract")
    kept.bring_columns_back("hold", "id", HOLD)
    kept.bring_columns_back("usage_record", "id", USAGE)


def _open_capacity() -> None:
    """Open the account that capacity comes from; after a way down and up it stands already."""
    connection = op.get_bind()
    if connection.execute(sa.text("SELECT 1 FROM ledger_account WHERE id = :id"), {"id": CAPACITY}).first() is None:
        row = {"id": CAPACITY, "kind": "treasury", "owner": "contracts", "unit": "credit"}
        insert = "INSERT INTO ledger_account (id, kind, owner_id, unit, balance) VALUES (:id, :kind, :owner, :unit, 0)"
        connection.execute(sa.text(insert), row)


def downgrade() -> None:
    kept.put_columns_aside("usage_record", "id", USAGE)
    with op.batch_alter_table("usage_record") as usage:
        for column in USAGE:
            usage.drop_column(column)
    kept.put_columns_aside("hold", "id", HOLD)
    with op.batch_alter_table("hold") as hold:
        hold.drop_constraint(op.f("ck_hold_contract_whole"), type_="check")
        hold.drop_constraint(op.f("ck_hold_contract_remaining_within_amount"), type_="check")
        hold.drop_constraint(op.f("fk_hold_contract_id"), type_="foreignkey")
        hold.drop_index(op.f("ix_hold_contract_id"))
        for column in HOLD:
            hold.drop_column(column)
    kept.put_aside("contract", "ceiling")
