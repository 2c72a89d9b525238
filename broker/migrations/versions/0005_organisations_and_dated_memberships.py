"""Organisations by kind, size and identifier; links between them; dated memberships with roles; mail addresses.

Up: organisations of before are companies of unknown size, and keep their SIRET even where it fails its check
(`idf-compute-broker doctor` and `org list` name those). Members become `member`, from the day they joined, without end.
Down: the release of before gives every member everything. So only those who lead or are members at that moment are its
members; all else is put aside.
"""

import sqlalchemy as sa
from alembic import op

from broker.migrations import kept
from storage.tables import UtcTime, microseconds, new_id, utcnow

revision = "0005"
down_revision = "0003"
branch_labels = None
depends_on = None

ADDED = ("kind", "size", "foreign_country", "foreign_id", "naf", "departement")
_OPEN = sa.text("end_at IS NULL")
_before = sa.table("membership", sa.column("person_id"), sa.column("project_id"), sa.column("since"))
_members = sa.table(
    "membership", *(sa.column(name) for name in ("id", "person_id", "project_id", "role", "start_at", "end_at"))
)


def upgrade() -> None:
    _add_to_organisations()
    _make_links()
    kept.bring_back("organisation_link")
    _date_memberships()
    with op.batch_alter_table("person") as batch_op:
        batch_op.add_column(sa.Column("email", sa.String(length=254), nullable=True))
    kept.bring_columns_back("person", "id", ("email",))


def _add_to_organisations() -> None:
    with op.batch_alter_table("organisation") as batch_op:
        batch_op.add_column(sa.Column("kind", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("size", sa.String(length=8), nullable=True))
        batch_op.add_column(sa.Column("foreign_country", sa.String(length=2), nullable=True))
        batch_op.add_column(sa.Column("foreign_id", sa.String(length=40), nullable=True))
        batch_op.add_column(sa.Column("naf", sa.String(length=6), nullable=True))
        batch_op.add_column(sa.Column("departement", sa.String(length=3), nullable=True))
    op.execute("UPDATE organisation SET kind = 'company'")
    kept.bring_columns_back("organisation", "id", ADDED)
    with op.batch_alter_table("organisation") as batch_op:
        batch_op.alter_column("kind", existing_type=sa.String(length=16), nullable=False)
        batch_op.create_check_constraint(
            op.f("ck_organisation_kind_known"), "kind IN ('company', 'laboratory', 'school', 'public-body', 'team')"
        )
        batch_op.create_check_constraint(
            op.f("ck_organisation_size_known"), "size IS NULL OR size IN ('micro', 'pme', 'eti', 'ge')"
        )
        batch_op.create_check_constraint(op.f("ck_organisation_one_identifier"), "siret IS NULL OR foreign_id IS NULL")
        batch_op.create_check_constraint(
            op.f("ck_organisation_foreign_id_with_country"), "(foreign_id IS NULL) = (foreign_country IS NULL)"
        )
        batch_op.create_index("ix_organisation_siret", ["siret"], unique=False)


def _make_links() -> None:
    op.create_table(
        "organisation_link",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("organisation_id", sa.String(length=40), nullable=False),
        sa.Column("other_id", sa.String(length=40), nullable=False),
        sa.Column("since", UtcTime(), nullable=False),
        sa.Column("until", UtcTime(), nullable=True),
        sa.Column("basis", sa.String(length=200), nullable=False),
        sa.CheckConstraint("organisation_id <> other_id", name=op.f("ck_organisation_link_two_organisations")),
        sa.CheckConstraint("until IS NULL OR until >= since", name=op.f("ck_organisation_link_ends_after_start")),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisation.id"], name=op.f("fk_organisation_link_organisation_id")
        ),
        sa.ForeignKeyConstraint(["other_id"], ["organisation.id"], name=op.f("fk_organisation_link_other_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organisation_link")),
    )
    for column in ("organisation_id", "other_id"):
        op.create_index(op.f(f"ix_organisation_link_{column}"), "organisation_link", [column], unique=False)


def _date_memberships() -> None:
    connection = op.get_bind()
    before = connection.execute(sa.select(_before)).all()
    op.drop_table("membership")
    op.create_table(
        "membership",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("start_at", UtcTime(), nullable=False),
        sa.Column("end_at", UtcTime(), nullable=True),
        sa.CheckConstraint("role IN ('lead', 'member', 'viewer', 'coach')", name=op.f("ck_membership_role_known")),
        sa.CheckConstraint("end_at IS NULL OR end_at >= start_at", name=op.f("ck_membership_ends_after_start")),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("fk_membership_person_id")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_membership_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_membership")),
    )
    kept.bring_back("membership")
    for person_id, project_id, since in before:
        _enter(connection, person_id, project_id, since)
    op.create_index("ix_membership_person_id_project_id", "membership", ["person_id", "project_id"], unique=False)
    op.create_index(op.f("ix_membership_project_id"), "membership", ["project_id"], unique=False)
    op.create_index(
        "uq_membership_open",
        "membership",
        ["person_id", "project_id"],
        unique=True,
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    )


def _enter(connection: sa.Connection, person_id: str, project_id: str, since: int) -> None:
    """Enter a member of the release of before, unless the row that it came from was put aside and is back.

    Who was something else here, a coach perhaps, and was let in by the other release, is a member from then on.
    """
    own = (_members.c.person_id == person_id, _members.c.project_id == project_id)
    same = sa.select(_members.c.id).where(*own, _members.c.role.in_(["lead", "member"]), _members.c.start_at == since)
    if connection.execute(same).first() is not None:
        return
    lasts = sa.or_(_members.c.end_at.is_(None), _members.c.end_at > since)
    last = sa.case((_members.c.start_at > since, _members.c.start_at), else_=since)
    connection.execute(sa.update(_members).where(*own, lasts).values(end_at=last))
    row = {"id": new_id("mbr"), "person_id": person_id, "project_id": project_id, "role": "member"}
    connection.execute(sa.insert(_members).values(**row, start_at=since, end_at=None))


def downgrade() -> None:
    kept.put_columns_aside("person", "id", ("email",))
    with op.batch_alter_table("person") as batch_op:
        batch_op.drop_column("email")
    _undate_memberships()
    kept.put_aside("organisation_link")
    kept.put_columns_aside("organisation", "id", ADDED)
    with op.batch_alter_table("organisation") as batch_op:
        batch_op.drop_index("ix_organisation_siret")
        for name in ("kind_known", "size_known", "one_identifier", "foreign_id_with_country"):
            batch_op.drop_constraint(op.f(f"ck_organisation_{name}"), type_="check")
        for column in reversed(ADDED):
            batch_op.drop_column(column)


def _undate_memberships() -> None:
    now = microseconds(utcnow())
    connection = op.get_bind()
    at_work = sa.select(_members.c.person_id, _members.c.project_id, _members.c.start_at).where(
        _members.c.role.in_(["lead", "member"]),
        _members.c.start_at <= now,
        sa.or_(_members.c.end_at.is_(None), _members.c.end_at > now),
    )
    rows = connection.execute(at_work).all()
    kept.put_aside("membership")
    op.create_table(
        "membership",
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("since", UtcTime(), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("fk_membership_person_id")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_membership_project_id")),
        sa.PrimaryKeyConstraint("person_id", "project_id", name=op.f("pk_membership")),
    )
    for person_id, project_id, since in rows:
        connection.execute(sa.insert(_before).values(person_id=person_id, project_id=project_id, since=since))
