"""Programmes as policy: their rules with a history, budgets by period, and who pays which share.

A programme of release 0001 keeps its kind and default time limit, and gets no bound that it did not have: all data
classes, no aid regime, one budget for all time whose id, and so whose account, is the programme's own, and shares that
say what was true: all paid by the Region.
"""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from broker.migrations import kept
from storage.tables import BIG, UtcTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BEGINNING_US = -3_600_000_000
"""1970-01-01 in Paris."""
ENDLESS_US = 221_876_924_400_000_000
"""9001-01-01 in Paris."""
NEW_TABLES = ("programme_policy", "programme_budget", "funding_share")


def upgrade() -> None:
    _make_tables()
    with op.batch_alter_table("programme") as batch_op:
        batch_op.add_column(sa.Column("policy", sa.JSON(), nullable=True))
    kept.bring_back(*NEW_TABLES)
    _convert()
    op.execute(
        "UPDATE programme SET policy = (SELECT v.policy FROM programme_policy v "
        "WHERE v.programme_id = programme.id ORDER BY v.version DESC LIMIT 1)"
    )
    with op.batch_alter_table("programme") as batch_op:
        batch_op.alter_column("policy", existing_type=sa.JSON(), nullable=False)
        batch_op.drop_constraint(op.f("ck_programme_time_limit_positive"), type_="check")
        batch_op.drop_column("default_time_limit_s")


def downgrade() -> None:
    _programmes_without_own_account()
    with op.batch_alter_table("programme") as batch_op:
        batch_op.add_column(sa.Column("default_time_limit_s", sa.Integer(), nullable=True))
    for id_, policy in _rows("SELECT id, policy FROM programme"):
        _run("UPDATE programme SET default_time_limit_s = :limit_s WHERE id = :id",
             limit_s=_json(policy)["default_time_limit_s"], id=id_)  # fmt: skip
    with op.batch_alter_table("programme") as batch_op:
        batch_op.alter_column("default_time_limit_s", existing_type=sa.Integer(), nullable=False)
        batch_op.create_check_constraint(op.f("ck_programme_time_limit_positive"), "default_time_limit_s >= 60")
        batch_op.drop_column("policy")
    with op.batch_alter_table("programme_budget") as batch_op:
        batch_op.drop_index(batch_op.f("ix_programme_budget_programme_id"))
    kept.put_aside(*NEW_TABLES)


def _make_tables() -> None:
    op.create_table(
        "programme_policy",
        sa.Column("programme_id", sa.String(length=32), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("policy", sa.JSON(), nullable=False),
        sa.Column("entered_by", sa.String(length=32), nullable=True),
        sa.Column("at", UtcTime(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_programme_policy_version_positive")),
        sa.ForeignKeyConstraint(["programme_id"], ["programme.id"], name=op.f("fk_programme_policy_programme_id")),
        sa.PrimaryKeyConstraint("programme_id", "version", name=op.f("pk_programme_policy")),
    )
    op.create_table(
        "programme_budget",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("programme_id", sa.String(length=32), nullable=False),
        sa.Column("start_at", UtcTime(), nullable=False),
        sa.Column("end_at", UtcTime(), nullable=False),
        sa.Column("budget_credits", BIG, nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.CheckConstraint("start_at < end_at", name=op.f("ck_programme_budget_ends_after_start")),
        sa.CheckConstraint("budget_credits > 0", name=op.f("ck_programme_budget_positive")),
        sa.ForeignKeyConstraint(["programme_id"], ["programme.id"], name=op.f("fk_programme_budget_programme_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_programme_budget")),
    )
    with op.batch_alter_table("programme_budget") as batch_op:
        batch_op.create_index(batch_op.f("ix_programme_budget_programme_id"), ["programme_id"], unique=False)
    op.create_table(
        "funding_share",
        sa.Column("programme_id", sa.String(length=32), nullable=False),
        sa.Column("valid_from", UtcTime(), nullable=False),
        sa.Column("region_thousandths", sa.Integer(), nullable=False),
        sa.Column("company_thousandths", sa.Integer(), nullable=False),
        sa.Column("partner_thousandths", sa.Integer(), nullable=False),
        sa.Column("entered_by", sa.String(length=32), nullable=True),
        sa.CheckConstraint(
            "region_thousandths + company_thousandths + partner_thousandths = 1000", name=op.f("ck_funding_share_whole")
        ),
        sa.CheckConstraint(
            "region_thousandths >= 0 AND company_thousandths >= 0 AND partner_thousandths >= 0",
            name=op.f("ck_funding_share_not_negative"),
        ),
        sa.ForeignKeyConstraint(["programme_id"], ["programme.id"], name=op.f("fk_funding_share_programme_id")),
        sa.PrimaryKeyConstraint("programme_id", "valid_from", name=op.f("pk_funding_share")),
    )


def _convert() -> None:
    """Give each programme that release 0001 opened a policy, a budget and shares."""
    known = {id_ for (id_,) in _rows("SELECT DISTINCT programme_id FROM programme_policy")}
    funded: dict[str, int] = dict(
        _rows("SELECT reference_id, SUM(amount) FROM ledger_transfer WHERE kind = 'fund' GROUP BY reference_id")
    )
    for id_, kind, limit_s, created_us in _rows("SELECT id, kind, default_time_limit_s, created_at FROM programme"):
        if id_ in known:
            continue
        _run("INSERT INTO programme_policy (programme_id, version, policy, entered_by, at) "
             "VALUES (:id, 1, :policy, NULL, :at)", id=id_, policy=json.dumps(_policy(kind, limit_s)), at=created_us)  # fmt: skip
        _run("INSERT INTO programme_budget (id, programme_id, start_at, end_at, budget_credits, created_at) "
             "VALUES (:id, :id, :start_us, :end_us, :amount, :at)",
             id=id_, start_us=BEGINNING_US, end_us=ENDLESS_US, amount=int(funded[id_]), at=created_us)  # fmt: skip
        _run("INSERT INTO funding_share (programme_id, valid_from, region_thousandths, company_thousandths, "
             "partner_thousandths, entered_by) VALUES (:id, :start_us, 1000, 0, 0, NULL)",
             id=id_, start_us=BEGINNING_US)  # fmt: skip


def _policy(kind: str, default_time_limit_s: int) -> dict[str, object]:
    return {
        "kind": kind,
        "full_name": None,
        "default_time_limit_s": default_time_limit_s,
        "shortest_months": None,
        "longest_months": None,
        "awards_per_year_max": None,
        "award_credits_max": None,
        "confidentialities": ["public", "internal", "confidential"],
        "natures": ["none", "personal", "health"],
        "regime": "none",
        "scheme": None,
        "four_eyes_above_credits": None,
        "warn_at_thousandths": [750, 900],
        "reclaim": [],
        "notice_days": 15,
        "expiring_days": 30,
        "export_days": 30,
        "free_hours_first": False,
    }


def _programmes_without_own_account() -> None:
    """Release 0001 looks for an account by the programme's id: give those an empty one that never had any."""
    missing = "SELECT id FROM programme WHERE 'programme:' || id NOT IN (SELECT id FROM ledger_account)"
    for (id_,) in _rows(missing):
        _run("INSERT INTO ledger_account (id, kind, owner_id, unit, balance) VALUES "
             "(:account, 'programme', :id, 'credit', 0)", account=f"programme:{id_}", id=id_)  # fmt: skip


def _rows(statement: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in op.get_bind().execute(sa.text(statement))]


def _run(statement: str, **values: object) -> None:
    op.get_bind().execute(sa.text(statement), values)


def _json(value: Any) -> dict[str, Any]:
    """SQLite gives JSON as text, PostgreSQL's driver as a value."""
    found: dict[str, Any] = json.loads(value) if isinstance(value, str) else value
    return found
