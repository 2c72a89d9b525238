"""What sbatch's words prove: refused for good, not for now, never sent; anything else proves nothing.

sbatch ends with `Batch job submission failed: <text>` (sbatch.c), the text being slurm_strerror() of what
slurmctld answered, or of what went wrong on the way. Codes from 2000 to 2999 are slurmctld's own and come in
its answer, so the job does not exist. `connect failure` is given only when no connection to any controller
could be made (slurm_send_recv_controller_msg). `send failure`, `receive failure` and `Socket timed out` say
nothing: slurmctld may have taken the job, or may take it yet. Texts as in 22.05; one that a later release
words otherwise falls to Uncertain, the safe side, and adoption finds out.
"""

import re

from adapters.errors import Rejected, SiteError, Uncertain, Unreachable

REFUSED = frozenset(
    """\
Unspecified error
Invalid partition name specified
No partition specified or system default partition
Access/permission denied
User's group not permitted to use this partition
Requested nodes not in this partition
More processors requested than permitted
Node count specification invalid
Job size specification needs to be provided
Job script not specified
Invalid user id
Pathname of a file, directory or other parameter too long
Requested node configuration is not available
Requested partition configuration not available now
Invalid node name specified
Task distribution specification invalid
Task count specification invalid
Invalid feature specification
Job dependency problem
Only batch jobs are accepted or processed
Requested more tasks than available processors
Memory required by task is not available
Invalid account or account/partition combination specified
Invalid license specification
Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)
Requested time limit is invalid (missing or exceeds some limit)
Access denied to requested reservation
Requested reservation is invalid
Invalid time specified
Invalid wckey specification
Invalid qos specification
CPU count specification invalid
Invalid generic resource (gres) specification
Requested account has breached requested QOS usage threshold
Invalid job array specification
Burst Buffer permission denied
Burst Buffer resource limit exceeded
Burst Buffer request invalid
Invalid mcs_label specified
Duplicate generic resource (gres) specification
X11 forwarding not available
Invalid group id
Invalid Trackable RESource (TRES) specification
Invalid GRES specification (with and without type identification)
Requested GRES option unsupported by configured SelectType plugin
Invalid --nice value
Invalid time-min specification (exceeds job's time or other limits)
Environment is missing in job
Invalid preferred feature specification
Time limit specification required, but not provided
Job cannot be submitted without the current working directory specified.
Invalid container id specified
Invalid or unknown association
Invalid QOS specification, relative QOS can only be used in a single partition per cluster.
Invalid extra constraints specification
RestrictedCoresPerGPU: Not enough unique cores per GPU
RestrictedCoresPerGPU: Missing core topology for GPUs
RestrictedCoresPerGPU: No GPUs configured on node
Requested topology configuration is not available
""".splitlines()
)
NOT_NOW = frozenset(
    """\
Unable to create job record, try again
Requested nodes are busy
Slurm backup controller in standby mode
Requested operation is presently disabled
Required node not available (down, drained or reserved)
Required partition not available (inactive or drain)
Partition in DOWN state
System submissions disabled
Controller is in standby mode, try a different controller
Licenses currently unavailable
MaxJobCount limit reached
""".splitlines()
)
NOT_SENT = frozenset({"Unable to contact slurm controller (connect failure)"})

_FAILED = re.compile(r"Batch job submission failed: (.*)")
_NOT_READY = re.compile(r"Munge encode failed|configuration source|slurm\.conf|error while loading shared libraries")


def why_not(code: int, errors: str) -> SiteError:
    """Return what a failed sbatch proves, from its exit status (negative: a signal) and standard error."""
    said = _in_short(errors) or f"exit status {code}"
    if code < 0:
        return Uncertain(f"sbatch was ended by signal {-code}: {said}")
    if _NOT_READY.search(errors):
        return Unreachable(said)
    if failed := _FAILED.search(errors):
        return what_proves(failed[1].strip(), said)
    if code == 1 and errors.startswith("sbatch: "):
        return Rejected(said)  # its own options did not please it: it never came to the sending
    return Uncertain(said)


def what_proves(words: str, said: str) -> Rejected | Unreachable | Uncertain:
    """Return what slurm_strerror()'s words prove of a submission that failed, `said` being the sentence to show."""
    if words in NOT_SENT | NOT_NOW:
        return Unreachable(said)
    return Rejected(said) if words in REFUSED else Uncertain(said)


def _in_short(errors: str) -> str:
    """Return sbatch's sentences without its name before each."""
    lines = (line.removeprefix("sbatch: ").removeprefix("error: ").strip() for line in errors.splitlines())
    return "; ".join(line for line in lines if line)[:500]
