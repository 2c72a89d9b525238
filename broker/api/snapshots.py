"""Snapshots: a folder sent once, named by the SHA-256 of its archive."""

from fastapi import APIRouter, Request, Response

from broker.api.edge import At, GuardedRoute, allow, json_response
from broker.errors import NotFound
from broker.schemas import Digest, SnapshotOut
from broker.snapshots import keep, snapshot_path

router = APIRouter(route_class=GuardedRoute, tags=["snapshots"])


@router.put(
    "/snapshots/{digest}",
    status_code=201,
    response_model=SnapshotOut,
    openapi_extra=allow("engineer"),
)
async def put_snapshot(digest: Digest, request: Request, at: At) -> Response:
    """Send a gzipped tar; the same bytes sent twice are kept once."""
    size_bytes = await keep(at.services.settings, digest, request.stream())
    return json_response(SnapshotOut(digest=digest, size_bytes=size_bytes).model_dump_json(), 201)


@router.get("/snapshots/{digest}", openapi_extra=allow("engineer"))
def find_snapshot(digest: Digest, at: At) -> SnapshotOut:
    """Say whether the broker holds a snapshot; whoever knows a digest has the folder."""
    path = snapshot_path(at.services.settings, digest)
    if not path.is_file():
        raise NotFound(f"no snapshot {digest}", "send it with PUT")
    return SnapshotOut(digest=digest, size_bytes=path.stat().st_size)
