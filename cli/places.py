"""Where each command lives."""

PLACES = {
    "submit": "submit", "init": "first_script",
    "jobs": "jobs", "show": "jobs", "logs": "jobs", "cancel": "jobs",
    "outputs": "outputs", "fetch": "outputs", "env": "environments",
    "quota": "quotas", "report": "reports",
    "login": "account", "logout": "account", "whoami": "account",
    "org": "organisations", "project": "projects", "programme": "programmes", "award": "awards",
    "aid": "aid",
    "contract": "contracts", "refund": "refunds",
    "site": "sites", "class": "sites", "tariff": "tariffs", "rule": "rules",
    "certification": "certifications", "person": "people", "token": "people",
}  # fmt: skip
"""First word -> module of cli that holds the command, in the order of `idf-compute --help`."""
