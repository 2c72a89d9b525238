"""One good request for every POST under /v1: who may send it, and its body; None where there is none."""

from typing import Any

from world import HOUR, JOB, SITE

BUDGET = {"start_on": "2026-01-01", "end_on": "2099-12-31", "credits": HOUR}

COHORT = "organisation,project,lead,hours,from,to\norga,projo,zita,10,2026-01-01,2099-01-01\n"

BODIES: dict[str, tuple[str, dict[str, Any] | None]] = {
    "/persons": ("olga", {"name": "zoe"}),
    "/persons/{person}": ("olga", {"email": "ines@example.fr"}),
    "/tokens": ("ines", {"person": "ines"}),
    "/tokens/{token_id}/revoke": ("olga", None),
    "/organisations": ("marc", {"name": "orga"}),
    "/organisations/{organisation}": ("marc", {"siret": "732 829 320 00074", "size": "pme"}),
    "/organisations/{organisation}/links": ("marc", {"other": "echo", "basis": "60 % of the shares"}),
    "/organisations/{organisation}/aid-declarations": (
        "marc",
        {"declared_on": "2026-01-01", "document": "GED 2026/17", "aids": []},
    ),
    "/organisations/{organisation}/links/end": ("marc", {"other": "echo"}),
    "/programmes": ("marc", {"name": "challenge-1", "budgets": [BUDGET]}),
    "/programmes/{name}/policy": ("marc", {"kind": "challenge"}),
    "/programmes/{name}/policy/plan": ("marc", {"kind": "challenge"}),
    "/programmes/{name}/budgets": ("marc", {**BUDGET, "start_on": "2100-01-01", "end_on": "2100-12-31"}),
    "/programmes/{name}/shares": ("marc", {"valid_from": "2099-01-01", "region_thousandths": 1000}),
    "/projects": ("marc", {"name": "voile", "organisation": "acme", "programme": "pack-ia-2026"}),
    "/projects/{name}/members": ("marc", {"person": "nemo"}),
    "/projects/{name}/members/leave": ("marc", {"person": "nemo"}),
    "/awards/request": (
        "marc",
        {"project": "vision", "amount_credits": HOUR, "start_on": "2026-01-01", "end_on": "2099-01-01"},
    ),
    "/awards/import": ("marc", {"programme": "pack-ia-2026", "csv": COHORT, "dry_run": True}),
    "/awards/{award_id}/comments": ("marc", {"text": "which model?"}),
    "/awards/{award_id}/approve": ("marc", {"amount_credits": HOUR}),
    "/awards/{award_id}/refuse": ("marc", {"reason": "not now"}),
    "/awards/{award_id}/withdraw": ("marc", {"reason": "not now"}),
    "/awards/{award_id}/supplements": ("marc", {"amount_credits": HOUR, "reason": "more data"}),
    "/awards/{award_id}/extensions": ("marc", {"end_on": "2099-01-01", "reason": "late data"}),
    "/awards/{award_id}/transfers": ("marc", {"to_award": "voice", "amount_credits": HOUR, "reason": "they need it"}),
    "/awards/{award_id}/close": (
        "marc",
        {"worked": "yes", "in_production": "planned", "benefit": "a faster line", "next_step": "a pilot"},
    ),
    "/award-changes/{change_id}/approve": ("marc", None),
    "/award-changes/{change_id}/refuse": ("marc", {"reason": "not now"}),
    "/award-changes/{change_id}/withdraw": ("marc", {"reason": "not now"}),
    "/awards": (
        "marc",
        {"project": "vision", "amount_credits": HOUR, "start_on": "2026-01-01", "end_on": "2099-01-01"},
    ),
    "/awards/{award_id}/justification": ("ines", {"text": "the data comes in July"}),
    "/awards/{award_id}/justification/accept": ("marc", {"reason": "July is soon"}),
    "/awards/{award_id}/justification/refuse": ("marc", {"reason": "others wait"}),
    "/gpu-classes": ("marc", {"name": "h100-80", "weight_thousandths": 4000, "valid_from": "2026-01-01"}),
    "/charging-rules": ("olga", {"site": SITE["name"], "valid_from": "2026-01-01", "cpus_per_gpu": 10}),
    "/contracts": (
        "marc",
        {
            "site": "teratec",
            "gpu_class": "a100-80",
            "gpu_seconds": 3600,
            "start_on": "2026-01-01",
            "end_on": "2099-01-01",
            "kind": "allocated",
            "dossier": "A018",
            "holder": "GENCI",
            "holder_project": "tpu",
        },
    ),
    "/contracts/{contract_id}/return": ("marc", {"gpu_seconds": 3600, "reason": "typed twice"}),
    "/ceilings": ("marc", {"scope": "project", "name": "vision", "what": "jobs_queued", "amount": 100}),
    "/tariffs": (
        "marc",
        {
            "site": "teratec",
            "gpu_class": "a100-80",
            "micro_euros_per_gpu_hour": 2_350_000,
            "valid_from": "2026-01-01",
        },
    ),
    "/tariffs/complete": ("marc", None),
    "/refunds": ("olga", {"job_id": "job-x", "reason": "node_failure", "evidence": "ticket 123"}),
    "/refunds/{refund_id}/approve": ("marc", None),
    "/refunds/{refund_id}/refuse": ("marc", {"why": "the node was not at fault"}),
    "/sites": ("olga", {**SITE, "name": "second"}),
    "/sites/{name}/check": ("olga", None),
    "/certifications": (
        "olga",
        {
            "site": SITE["name"],
            "service": "Bare Metal",
            "scheme": "hds",
            "version": "2",
            "scope": ["computing"],
            "document": "GED 2026/44",
            "start_on": "2026-01-01",
            "end_on": "2098-12-31",
        },
    ),
    "/certifications/{certification_id}/confirm": ("otto", None),
    "/certifications/{certification_id}/withdraw": ("olga", {"reason": "suspended"}),
    "/environments": ("olga", {"site": SITE["name"], "name": "python", "about": "Python", "modules": ["python/3.12"]}),
    "/environments/remove": ("olga", {"site": SITE["name"], "name": "python"}),
    "/sites/{name}/settings": ("olga", {**SITE, "gpus_per_job_max": 4}),
    "/jobs": ("ines", JOB),
    "/jobs/plan": ("ines", JOB),
    "/quota/why": ("ines", JOB),
    "/jobs/{job_id}/cancel": ("ines", None),
    "/jobs/{job_id}/tasks/{task}/cancel": ("ines", None),
}
