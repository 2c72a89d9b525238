#!/bin/bash
#SBATCH --gres=gpu:1
#SBATCH --time=30
# Compiles a function for the GPU and writes what it gives. Submit it with:
#   idf-compute submit --env jax --dir . compute.sh
exec python3 -u - <<'PYTHON'
import os

import jax

square = jax.jit(lambda x: x * x)
print(f"jax {jax.__version__} on {jax.default_backend()}")
with open(os.path.join(os.environ["IDF_OUTPUTS"], "square.txt"), "w") as file:
    file.write(f"{float(square(3.0)):.1f}\n")
PYTHON
