#!/bin/bash
#SBATCH --gres=gpu:1
#SBATCH --time=30
#SBATCH --signal=B:USR1@120
# Trains, and saves what it has when the time limit comes near. Submit it with:
#   idf-compute submit --env pytorch --dir . train.sh
python3 -u - <<'PYTHON' &
import os, signal, sys
import torch

device = "cuda" if torch.cuda.is_available() else "cpu"
outputs = os.environ["IDF_OUTPUTS"]
weight = torch.zeros(1, device=device)


def save(*_):
    torch.save({"weight": weight}, os.path.join(outputs, "checkpoint.pt"))
    sys.exit(0)


signal.signal(signal.SIGUSR1, save)
print(f"torch {torch.__version__} on {device}")
for step in range(1, 101):
    weight = weight + 0.1 * (1 - weight)
print(f"weight after {step} steps: {float(weight):.4f}")
save()
PYTHON
training=$!
# bash runs a trap only between commands, and `wait` is one that it interrupts.
trap 'kill -USR1 $training' USR1
wait $training || wait $training
