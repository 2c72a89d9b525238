"""The command `init`: a first script, ready to be submitted and to be changed."""

from pathlib import Path
from typing import Annotated

import typer

from cli.exits import Exit, Failure
from cli.options import Json
from cli.output import as_json, one_line, say

SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=first
#SBATCH --gpus=1
#SBATCH --time=10
#SBATCH --signal=B:USR1@60
# Try it:       idf-compute submit --try {name}
# For real:     idf-compute submit --dir . --follow {name}
# Its results:  idf-compute fetch ID
{environment}
save() { echo "the time limit is near: saving"; date > "$IDF_OUTPUTS/saved"; exit 0; }
trap save USR1

echo "running on $(hostname) with GPUs ${CUDA_VISIBLE_DEVICES:-none}"
# Replace this line by your program, with `&` behind it and `wait` after, so that the trap can run meanwhile:
sleep 5 &
wait
echo "done" > "$IDF_OUTPUTS/result.txt"
"""
app = typer.Typer()


@app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="The script to write.")] = Path("train.sbatch"),
    env: Annotated[str | None, typer.Option("--env", metavar="NAME", help="Say how to submit it in this one.")] = None,
    in_json: Json = False,
) -> None:
    """Write a first script. It asks nothing and writes over nothing.

    \b
    Example:
      idf-compute init
      idf-compute init train.sbatch --env pytorch
    """
    how = f"#   in an environment: idf-compute submit --env {env} --try {file.name}\n" if env else ""
    text = SCRIPT.replace("{name}", file.name).replace("{environment}\n", how)
    if not file.name.isprintable() or (env is not None and not env.replace("-", "").isalnum()):
        raise Failure(Exit.USAGE, "a name here is plain text in one line", "choose another name")
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
        file.chmod(0o755)
    except FileExistsError:
        raise Failure(Exit.USAGE, f"{file} is there already, and stays as it is", "name another file") from None
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot write {file}: {error.strerror}") from error
    if in_json:
        say(as_json({"file": str(file)}))
    else:
        say(f"{one_line(file)} is written; try it with: idf-compute submit --try {one_line(file)}")
