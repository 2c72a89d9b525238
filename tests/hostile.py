"""Things that people could type to get more than they hold for, or to reach where they may not.

Each is tried at unit level (tests/unit/test_hostile_corpus.py); the scripts also run on a real Slurm.
"""

SCRIPTS = {
    "array": b"#!/bin/bash\n#SBATCH --array=0-99\necho ran\n",
    "array-short": b"#!/bin/bash\n#SBATCH -a 0-99\necho ran\n",
    "array-without-interpreter": b"#SBATCH --array=0-99\necho ran\n",
    "hetjob": b"#!/bin/bash\n#SBATCH --gpus=1\n#SBATCH hetjob\n#SBATCH --gpus=8\necho ran\n",
    "packjob": b"#!/bin/bash\n#SBATCH packjob\necho ran\n",
    "gpus": b"#!/bin/bash\n#SBATCH --gpus=8\necho ran\n",
    "gpus-per-node": b"#!/bin/bash\n#SBATCH --gpus-per-node=4 --nodes=2\necho ran\n",
    "gres": b"#!/bin/bash\n#SBATCH --gres=gpu:a100:4\necho ran\n",
    "nodes": b"#!/bin/bash\n#SBATCH -N 2\necho ran\n",
    "exclusive": b"#!/bin/bash\n#SBATCH --exclusive\necho ran\n",
    "time": b"#!/bin/bash\n#SBATCH --time=24:00:00\necho ran\n",
    "memory": b"#!/bin/bash\n#SBATCH --mem=0\necho ran\n",
    "cpus": b"#!/bin/bash\n#SBATCH --cpus-per-task=32\necho ran\n",
    "name": b"#!/bin/bash\n#SBATCH --job-name=stolen\necho ran\n",
    "output": b"#!/bin/bash\n#SBATCH --output=/tmp/stolen --error=/tmp/stolen\necho ran\n",
    "chdir": b"#!/bin/bash\n#SBATCH --chdir=/\necho ran\n",
    "account": b"#!/bin/bash\n#SBATCH --account=root --qos=high\necho ran\n",
    "requeue": b"#!/bin/bash\n#SBATCH --requeue\necho ran\n",
    "hold": b"#!/bin/bash\n#SBATCH --hold\necho ran\n",
    "export": b"#!/bin/bash\n#SBATCH --export=ALL,LD_PRELOAD=/tmp/x.so\necho ran\n",
    "wrap": b"#!/bin/bash\n#SBATCH --wrap=id\necho ran\n",
    "pbs": b"#!/bin/bash\n#PBS -t 0-3\n#PBS -l nodes=2\necho ran\n",
    "lsf": b"#!/bin/bash\n#BSUB -J stolen[1-4]\n#BSUB -n 64\necho ran\n",
    "end-of-data": b"#!/bin/bash\n.\n#SBATCH --array=0-3\necho ran\n",
    "other-ends-of-data": b"#!/bin/bash\necho ran; exit 0\nEOF\nEND\n'\n\"\n)\n}\n",
    "carriage-returns": b"#!/bin/bash\necho ran\n#\r#SBATCH --array=0-3\r\n",
    "without-last-newline": b"#!/bin/bash\necho ran",
    "no-utf-8": b"#!/bin/bash\n# \xff\xfe\xfd\necho ran\n",
    "nul": b"#!/bin/bash\necho ran\nexit 0\n\0\0#SBATCH --array=0-3\n",
    "long-line": b"#!/bin/bash\necho ran #" + b"x" * 100_000 + b"\n",
}
"""Each prints `ran` once when it is run as one plain job; what some say beside it is not looked at."""

WORDS = (
    "#SBATCH --array=0-9", "\n#SBATCH --gpus=8\n", "$(touch /tmp/idf-injected)", "`id`", "'; id; '", '"; id; "', "; id",
    "| id",
    "&& id", "> /tmp/idf-injected", "--gpus=8", "-a0-9", "\n.\nid\n", "\\", "${IFS}id", "*", "~root", "!!",
    "\x1b]0;stolen\x07", "\u202egnp.exe", "\u2028#SBATCH -a 0-9", "a=b", "%x%j%u", "\r", "\t", "", "é世界",
)  # fmt: skip
"""As an argument or a variable's value each arrives as it is, and directs nothing."""

NAMES = (
    "x y", "../x", "/etc/passwd", "", "a" * 65, "x\ny", "$(id)", "é", "-x", "--array=0-9", "x|y", "x\0y", "x;id", "x'",
    "%j",
)  # fmt: skip
"""No job, partition or GPU type is called so."""

VARIABLES = ("a b", "a=b", "a[$(id)]", "1a", "", "UID", "é", "BASHOPTS", "x\ny", "x;id", "BASH_FUNC_x%%", "a-b", "x\0")
"""No variable is called so."""

MODULES = (
    "", "-h", "--help", "../x", "/etc/x", "a b", "a;id", "$(id)", "a\nb", "a//b", "a/../b", "a/", "é", "a\0b",
    "x" * 129, "`id`",
)  # fmt: skip

IMAGES = (
    "", "-B/:/mnt", "--bind=/", "instance://other", "docker://ubuntu", "docker://ubuntu:latest", "../../secret.sif",
    "a/../../b.sif", "https://evil.example/x.sif", "docker-daemon:x", "oci:/tmp/x", "a b.sif", "a.sif\n", "$(id).sif",
    "~/x.sif",
    "docker://evil.example/x@sha256:123", "library://x@sha256:" + "0" * 64, "docker://X/../y@sha256:" + "0" * 64, "/",
)  # fmt: skip

SITE_JOBS = ("", "x", "1,afterany:2", "1?afterany:2", "1:2:3", "-1", "1 2", "1\n", "$(id)", "1+0", "99999999999")
"""No job of a site is called so; a dependency on one would be another one."""

SIGNALS = ("KILL", "STOP", "B:USR1", "USR1@1", "usr1", "9", "", "USR1 --array=0-9", "R:USR1")

PATHS = (
    "", "/", "/etc/passwd", "..", "../x", "a/../../x", "./a", "a//b", "a/", "a\nb", "a\0b", "a\x1bb", "\x7f", "a/./b",
    "/".join("d" * 17), "\ud800",
)  # fmt: skip
"""No output file lies at such a path."""
