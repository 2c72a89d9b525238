"""The broker's tables: people, tokens, organisations, projects, sites, jobs and what happened to them."""

from broker.models.answers import ANSWERS_KEPT_FOR, Idempotency
from broker.models.checkpoints import PLACE_MAX, Checkpoint, CheckpointPlace
from broker.models.jobs import Job, JobAfter, JobEvent, JobPayload, JobTask
from broker.models.notices import Notice
from broker.models.organisations import KINDS, MEMBER_ROLES, SIZES, Membership, Organisation, OrganisationLink, Project
from broker.models.people import ApiToken, Person
from broker.models.sites import Certification, NamedEnvironment, ProjectAccount, Site

__all__ = [
    "ANSWERS_KEPT_FOR",
    "KINDS",
    "MEMBER_ROLES",
    "PLACE_MAX",
    "SIZES",
    "ApiToken",
    "Certification",
    "Checkpoint",
    "CheckpointPlace",
    "Idempotency",
    "Job",
    "JobAfter",
    "JobEvent",
    "JobPayload",
    "JobTask",
    "Membership",
    "NamedEnvironment",
    "Notice",
    "Organisation",
    "OrganisationLink",
    "Person",
    "Project",
    "ProjectAccount",
    "Site",
]
