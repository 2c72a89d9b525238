"""Which class serves a site, as its enrolment says; nothing is connected before something is asked."""

from typing import Any

import pytest
from pydantic import ValidationError

from adapters.slurm import SlurmPyslurm, SlurmRest, SlurmSsh
from broker.bootstrap import _slurm
from broker.schemas import SiteIn

SITE: dict[str, Any] = {
    "name": "teratec",
    "cluster": "teratec",
    "host": "login.example.org",
    "login": "idf-broker",
    "identity_file": "/etc/idf/id",
    "host_key": "ssh-ed25519 AAAA",
    "isolation": "accounts",
    "accounts": ["idf001"],
    "gpu_types": {"a100-80": "a100"},
}
CHILD = ["/opt/idf/bin/python", "-I", "/usr/libexec/idf-pyslurm"]


@pytest.mark.parametrize(
    ("chosen", "served_by"),
    [
        ({}, SlurmSsh),
        ({"transport": "rest", "rest_url": "http://localhost:6820"}, SlurmRest),
        ({"transport": "pyslurm", "pyslurm_command": CHILD}, SlurmPyslurm),
    ],
)
def test_a_site_is_served_by_the_transport_that_it_says(chosen: dict[str, Any], served_by: type) -> None:
    scheduler = _slurm(SiteIn(**SITE, **chosen))
    assert type(scheduler) is served_by
    scheduler.close()


@pytest.mark.parametrize(
    ("chosen", "rule"),
    [
        ({"transport": "pyslurm"}, "needs pyslurm_command"),
        ({"pyslurm_command": CHILD}, "set transport to pyslurm"),
        ({"transport": "pyslurm", "pyslurm_command": []}, "at least 1 item"),
        ({"transport": "rest"}, "needs rest_url"),
        ({"rest_url": "https://slurm.example.org"}, "set transport to rest"),
        ({"transport": "rest", "rest_url": "http://slurm.example.org"}, "must be https"),
    ],
)
def test_a_transport_has_what_it_needs_and_nothing_else(chosen: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        SiteIn(**SITE, **chosen)
