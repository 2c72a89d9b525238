"""What becomes of each option of sbatch(1), as Slurm 22.05 to 25.05 know them, in a table.

Each line of the table reads: remark: options. An option is written `name` or `name,letter`; `!` after it
means that it takes no value, `?` that its value, if any, is joined to it (`--nice=5`).
"""

from enum import Enum
from typing import NamedTuple


class Fate(Enum):
    """What is done with an option found in a script."""

    TAKE = "taken over"
    SAME = "what happens here anyway"
    DROP = "left out"
    REFUSE = "refused"


class Takes(Enum):
    """Whether an option has a value: always, never, or only when it is joined to it."""

    VALUE = ""
    FLAG = "!"
    MAYBE = "?"


class Option(NamedTuple):
    """One option; `remark` says why it is left out, or what to do instead of a refused one."""

    name: str
    short: str | None
    takes: Takes
    fate: Fate
    remark: str = ""


_TABLE = {
    Fate.TAKE: {
        "": "job-name,J time,t nodes,N gpus,G gpus-per-node gpus-per-task gres cpus-per-gpu "
        "cpus-per-task,c mem begin,b signal requeue! no-requeue! "
        "mem-per-gpu mem-per-cpu constraint,C ntasks,n ntasks-per-node export array,a "
        "exclusive?",
    },
    Fate.SAME: {"": "kill-on-invalid-dep"},
    Fate.DROP: {
        "it names things of one site; the broker chooses them": "account,A partition,p qos,q wckey",
        "the log is kept for you: idf-compute logs ID": "output,o error,e open-mode",
        "nobody is written to; idf-compute submit --wait tells the end": "mail-type mail-user",
        "it is a hint to one site's scheduler": "hint nice? verbose,v! quiet,Q!",
        "a comment is not sent to sites": "comment",
        "use --json": "parsable!",
    },
    Fate.REFUSE: {
        "use idf-compute submit --after ID, with the id that it gave the other job": "dependency,d",
        "submit its parts as jobs, the later ones with --after": "het-group pack-group",
        "a job starts as soon as it can: use --begin": "deadline hold,H! immediate,I? delay-boot reservation priority",
        "GPUs are not shared": "oversubscribe,s!",
        "use idf-compute submit -- COMMAND": "wrap",
        "use --dir to send a folder that the job starts in": "chdir,D",
        "use --env NAME=VALUE": "export-file get-user-env?",
        "read the file in the script, and send it with --dir": "input,i",
        "the broker does not choose nodes; --site chooses a site": "nodelist,w exclude,x nodefile,F "
        "clusters,M "
        "cluster-constraint switches contiguous! spread-job! use-min-nodes!",
        "licences are not handed out by the broker": "licenses,L",
        "choose a kind of GPU with --gpu-class": "prefer",
        "ask with --gpus, --nodes, --cpus-per-gpu and --mem": "gpu-bind gpu-freq gpus-per-socket gres-flags "
        "tres-per-task tres-bind mincpus cores-per-socket sockets-per-node threads-per-core core-spec,S "
        "thread-spec "
        "extra-node-info,B mem-bind tmp cpu-freq segment",
        "one task runs per node: start the others from it, as torchrun does": "ntasks-per-core "
        "ntasks-per-gpu "
        "ntasks-per-socket distribution,m overcommit,O!",
        "ask for the time that you need with --time": "time-min",
        "a job whose node fails has ended": "no-kill,k?",
        "use idf-compute submit --container IMAGE": "container container-id",
        "it sets what only one site knows; delete the line": "propagate? bb bbf network mcs-label power "
        "profile "
        "acctg-freq reboot! resv-ports? stepmgr! wait-all-nodes extra uid gid",
        "use idf-compute submit --wait": "wait,W!",
        "use idf-compute submit --dry-run": "test-only!",
        "delete the line": "ignore-pbs! usage! help,h! version,V!",
    },
}


def _option(text: str, fate: Fate, remark: str) -> Option:
    name, _, short = text.rstrip("!?").partition(",")
    return Option(name, short or None, Takes(text[-1] if text[-1] in "!?" else ""), fate, remark)


OPTIONS = {
    option.name: option
    for fate, groups in _TABLE.items()
    for remark, names in groups.items()
    for option in (_option(name, fate, remark) for name in names.split())
}
BY_SHORT = {option.short: option for option in OPTIONS.values() if option.short}
