"""What `submit` asks of the broker: a script, what its #SBATCH lines mean, the options that win over them."""

from pathlib import Path
from typing import Any

from cli.exits import Exit, Failure
from cli.sbatch import Directives

Fields = dict[str, Any]
"""Fields of JobIn, as the broker names them."""
SCRIPT_BYTES_MAX = 1024 * 1024
_OF_OPTION = {
    "job-name": "name", "time": "time_limit_s", "nodes": "nodes", "gpus": "gpus", "gpus-per-node": "gpus",
    "gpus-per-task": "gpus", "gres": "gpus", "cpus-per-gpu": "cpus_per_gpu", "cpus-per-task": "cpus_per_gpu",
    "exclusive": "exclusive", "array": "array",
    "begin": "begin_at", "signal": "signal_s", "requeue": "requeue", "no-requeue": "requeue",
    "mem": "memory_mib", "mem-per-gpu": "memory_mib", "mem-per-cpu": "memory_mib", "constraint": "gpu_class",
}  # fmt: skip
"""Which field a command-line option must set to win over an option of the script."""
_PLAIN = (
    "name", "time_limit_s", "nodes", "cpus_per_gpu", "exclusive", "array", "begin_at", "signal", "signal_s", "requeue",
)  # fmt: skip
"""Fields of JobIn that stand in Directives as they are."""


def read_script(file: Path) -> str:
    """Read a script from disk. Raises Failure, one sentence, for anything that is no script."""
    try:
        if not file.is_file():
            raise Failure(Exit.USAGE, f"there is no script {file}" if not file.exists() else f"{file} is no file")
        with file.open("rb") as opened:
            data = opened.read(SCRIPT_BYTES_MAX + 1)
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot read the script {file}: {error.strerror}") from error
    return _script_text(data, file)


def _script_text(data: bytes, file: Path) -> str:
    if not data.strip():
        raise Failure(Exit.USAGE, f"the script {file} is empty")
    if len(data) > SCRIPT_BYTES_MAX:
        raise Failure(Exit.USAGE, f"the script {file} is larger than 1 MiB", "send large files with --dir")
    if b"\0" in data:
        raise Failure(Exit.USAGE, f"{file} is not a text", f"to run a program: submit --dir . -- ./{file.name}")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise Failure(Exit.USAGE, f"the script {file} is not UTF-8 text", "convert it with iconv") from None
    if not text.startswith("#!"):
        raise Failure(
            Exit.USAGE,
            f"the script {file} does not begin with #! and an interpreter",
            f"begin it with #!/bin/bash, or run it with: submit --dir . -- python {file.name}",
        )
    if "\r\n" in text:
        raise Failure(Exit.USAGE, f"the script {file} has DOS line ends", f"convert it: sed -i 's/\\r$//' {file}")
    return text


def needs_sites(directives: Directives, given: Fields) -> bool:
    """Say whether the sites' maps are needed to understand a script's kind of GPU."""
    return "gpu_class" not in given and given.get("gpus") != 0 and bool(directives.gpu_type or directives.constraint)


def merged(directives: Directives, given: Fields, sites: list[Fields]) -> Fields:
    """Give the fields of JobIn that describe the resources; what is in `given` wins. Raises Failure."""
    plain = {name: getattr(directives, name) for name in _PLAIN}
    if "signal_s" in given:
        plain["signal"] = None
    fields = {**{name: value for name, value in plain.items() if value is not None}, **given}
    nodes = fields.get("nodes", 1)
    fields = with_gpus_in_all(fields)
    if "gpus" not in fields:
        fields["gpus"] = _gpus(directives, nodes)
    _check_tasks(directives, nodes)
    if not fields["gpus"]:
        _check_without_gpu(directives, fields)
    cpus_per_node = (_cpus_per_node if fields["gpus"] else _cpus_without_gpu)(directives, fields, nodes)
    if "memory_mib" not in fields and "memory_per_gpu_mib" not in fields and directives.memory:
        fields["memory_mib"] = _memory_mib(*directives.memory, fields["gpus"], nodes, cpus_per_node)
    if fields["gpus"] and needs_sites(directives, given):
        fields["gpu_class"] = _gpu_class(directives, sites, given.get("site"))
    return fields


def with_gpus_in_all(fields: Fields) -> Fields:
    """Turn GPUs per node into GPUs over all nodes. Raises Failure: both are there, and disagree."""
    per_node = fields.get("gpus_per_node")
    if per_node is None:
        return fields
    total = per_node * fields.get("nodes", 1)
    if fields.get("gpus", total) != total:
        sentence = f"--gpus {fields['gpus']} and --gpus-per-node {per_node} disagree"
        raise Failure(Exit.USAGE, sentence, "leave out one of them")
    return {**{name: value for name, value in fields.items() if name != "gpus_per_node"}, "gpus": total}


def _gpus(directives: Directives, nodes: int) -> int:
    per_node = (directives.gpus_per_node, directives.gres_per_node, directives.gpus_per_task)
    asked = {count * nodes for count in per_node if count is not None}
    asked |= set() if directives.gpus is None else {directives.gpus}
    if len(asked) > 1:
        raise Failure(
            Exit.REFUSED,
            f"the script asks for {' and for '.join(map(str, sorted(asked)))} GPUs",
            "give --gpus",
        )
    return asked.pop() if asked else 1


def _check_tasks(directives: Directives, nodes: int) -> None:
    """Refuse more than one task per node: here a script runs once, and starts its processes itself."""
    if directives.tasks not in (None, nodes) or directives.tasks_per_node not in (None, 1):
        raise Failure(
            Exit.REFUSED,
            f"the script asks for more than one task per node (--ntasks), or for other than {nodes}",
            "one task runs per node: start the others from it, as torchrun does, and delete the line",
        )


def _check_without_gpu(directives: Directives, fields: Fields) -> None:
    """Refuse what counts by GPUs in a job that has none."""
    by_memory = "memory_mib" not in fields and directives.memory is not None and directives.memory[0] == "gpu"
    named = ["--cpus-per-gpu"] if directives.cpus_per_gpu else []
    named += ["--mem-per-gpu"] if by_memory else []
    if named:
        raise Failure(
            Exit.REFUSED,
            f"the script asks for {' and '.join(named)}, and the job has no GPU",
            "give --cpus and --mem, and delete the line",
        )


def _cpus_without_gpu(directives: Directives, fields: Fields, nodes: int) -> int | None:
    """Give the CPUs of a node, and turn `--cpus-per-task` (one task per node) into CPUs over all nodes."""
    if "cpus" not in fields and directives.cpus_per_task:
        fields["cpus"] = directives.cpus_per_task * nodes
    if "cpus" in fields:
        return int(fields["cpus"]) // nodes
    return None if fields.get("exclusive") else 1


def _cpus_per_node(directives: Directives, fields: Fields, nodes: int) -> int | None:
    """Give the CPUs of a node, and turn `--cpus-per-task` (one task per node) into CPUs per GPU."""
    if "cpus_per_gpu" not in fields and directives.cpus_per_task:
        per_gpu, rest = divmod(directives.cpus_per_task * nodes, fields["gpus"])
        if rest or not per_gpu:
            raise Failure(
                Exit.REFUSED,
                f"{directives.cpus_per_task} CPUs per task cannot be shared evenly over the GPUs of the job",
                "give --cpus-per-gpu",
            )
        fields["cpus_per_gpu"] = per_gpu
    per_gpu = fields.get("cpus_per_gpu")
    return per_gpu * fields["gpus"] // nodes if per_gpu else None


def _memory_mib(counted_by: str, amount_mib: int, gpus: int, nodes: int, cpus_per_node: int | None) -> int:
    if counted_by == "node":
        return amount_mib
    if counted_by == "gpu":
        return -(-amount_mib * gpus // nodes)
    if cpus_per_node is None:
        raise Failure(Exit.REFUSED, "--mem-per-cpu without a number of CPUs cannot be taken over", "give --mem")
    return amount_mib * cpus_per_node


def _gpu_class(directives: Directives, sites: list[Fields], site: str | None) -> str:
    """Find the one class that a script's GPU type and constraint mean, through what the sites call them."""
    near = [known for known in sites if site in (None, known["name"])]
    meant: set[str] = set()
    if directives.gpu_type:
        meant = _one_of(f"the GPU type {directives.gpu_type}", _classes_of_type(directives.gpu_type, near), near)
    if directives.constraint:
        pairs = {known["constraints"].get(directives.constraint) for known in near} - {None}
        by_constraint = _one_of(f"--constraint={directives.constraint}", {str(pair) for pair in pairs}, near)
        if meant and meant != by_constraint:
            raise Failure(Exit.REFUSED, "the script's GPU type and constraint name different GPUs", "give --gpu-class")
        meant = by_constraint
    return meant.pop()


def _classes_of_type(gpu_type: str, sites: list[Fields]) -> set[str]:
    if any(gpu_type in site["gpu_types"] for site in sites):
        return {gpu_type}
    return {name for site in sites for name, own in site["gpu_types"].items() if own == gpu_type}


def _one_of(what: str, meant: set[str], sites: list[Fields]) -> set[str]:
    known = sorted({name for site in sites for name in site["gpu_types"]})
    if len(meant) == 1:
        return meant
    if meant:
        raise Failure(Exit.REFUSED, f"{what} may mean {' or '.join(sorted(meant))}", "give --gpu-class")
    raise Failure(
        Exit.REFUSED,
        f"{what} means no GPU class of any site",
        f"give --gpu-class, one of: {', '.join(known) or 'none'}",
    )


def remarks(directives: Directives, given: Fields, script: Path) -> list[str]:
    """Say in one line what was taken over from a script, and in further ones what was not."""
    won = [found for found in directives.taken if _has_won(found.option.name, given)]
    taken = [found for found in directives.taken if found not in won and found.option.name != "export"]
    lines = [f"taken over from {script.name}: {' '.join(map(str, taken))}"] if taken else []
    if won:
        lines.append(f"your options win over {' '.join(map(str, won))}")
    if directives.dropped:
        lines.append(f"left out: {'; '.join(_reasons(directives))}")
    if any(found.option.name == "export" and found.value.upper() == "ALL" for found in directives.taken):
        lines.append("the variables of your shell are not sent; use --env NAME=VALUE for those that the job needs")
    return lines


def _has_won(option: str, given: Fields) -> bool:
    """Say whether what was typed wins over an option of the script."""
    field = _OF_OPTION.get(option)
    without_gpu = given.get("gpus") == 0 and field == "gpu_class"
    otherwise = {"gpus": "gpus_per_node", "memory_mib": "memory_per_gpu_mib"}.get(field or "")
    return field in given or otherwise in given or without_gpu or (option == "cpus-per-task" and "cpus" in given)


def _reasons(directives: Directives) -> list[str]:
    by_remark: dict[str, list[str]] = {}
    for found in directives.dropped:
        by_remark.setdefault(found.option.remark, []).append(f"--{found.option.name}")
    return [f"{', '.join(dict.fromkeys(names))} ({remark})" for remark, names in by_remark.items()]
