#!/bin/bash
#SBATCH --gpus=0
#SBATCH --cpus-per-task=4
#SBATCH --time=30
# Prepares data on CPUs, without paying for a GPU. Submit it with:
#   idf-compute submit --env python --dir . prepare.sh
exec python3 -u - <<'PYTHON'
import os

import numpy

print(f"numpy {numpy.__version__} with {os.environ['SLURM_CPUS_ON_NODE']} CPUs")
numpy.save(os.path.join(os.environ["IDF_OUTPUTS"], "prepared.npy"), numpy.arange(10))
PYTHON
