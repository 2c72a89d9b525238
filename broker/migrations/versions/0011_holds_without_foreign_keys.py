"""Holds name their award and contract as transfers name their accounts: without a foreign key (docs/decisions/0009)."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("hold") as hold:
        hold.drop_constraint(op.f("fk_hold_award_id"), type_="foreignkey")
        hold.drop_constraint(op.f("fk_hold_contract_id"), type_="foreignkey")
        hold.drop_index(op.f("ix_hold_contract_id"))


def downgrade() -> None:
    with op.batch_alter_table("hold") as hold:
        hold.create_index(op.f("ix_hold_contract_id"), ["contract_id"])
        hold.create_foreign_key(op.f("fk_hold_contract_id"), "contract", ["contract_id"], ["id"])
        hold.create_foreign_key(op.f("fk_hold_award_id"), "award", ["award_id"], ["id"])
