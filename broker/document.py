"""The OpenAPI document, with what FastAPI cannot see: the token, and the key of every POST."""

from typing import Any

from fastapi import FastAPI

_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": "Fresh and random for each new request; a repeat gets the first answer for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200},
}


def describe(app: FastAPI) -> None:
    """Let an application tell of its tokens and keys; the document is made once, when first asked for."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(plain())
        return plain()

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
    schemes["token"] = {"type": "http", "scheme": "bearer", "description": "issued by `idf-compute token issue`"}
    for path in document["paths"].values():
        for method, operation in path.items():
            if operation.get("x-roles"):
                operation["security"] = [{"token": []}]
            if method == "post":
                operation.setdefault("parameters", []).append(_KEY)
