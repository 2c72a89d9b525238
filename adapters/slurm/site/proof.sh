#!/bin/bash
# A job of one project account that tries to cross into another one's job on the same node (adapters/slurm/proof.py).
#
# It lays canaries, says where it is, tries each crossing below on THEIRS if there are any, and waits to be tried on.
# A crossing counts as refused only if the same thing works on its own job, where that can be tried without harm.
umask 022
user=$(id -un) token=$IDF_PROOF_TOKEN name=$SLURM_JOB_NAME job=$SLURM_JOB_ID home=$HOME
secret=secret-$token
for variable in "${!SLURM_@}" "${!SBATCH_@}" "${!SRUN_@}"; do
    [ "$variable" = SLURM_CONF ] || unset "$variable"
done
say() { printf 'idf-proof %s\n' "$*"; }

# ── what can be stolen ──

canaries=("$home/idf-proof-$token" "/tmp/idf-proof-$token" "/var/tmp/idf-proof-$token" "/dev/shm/idf-proof-$token")
for canary in "${canaries[@]}"; do echo "$secret" >"$canary"; done
echo "$secret"
chmod 644 "$home/.idf/logs/$name.log" # so that nothing but the home itself protects it
IDF_PROOF_CANARY=$secret sleep 600 &
pid=$!
clean() {
    rm -f "${canaries[@]}"
    kill "$pid" 2>/dev/null
}
trap clean EXIT
trap 'exit 0' TERM INT

# ── the crossings: each writes the secret if it succeeds ──

read_home() { cat "$home/idf-proof-$token"; }
list_home() { ls -A "$home" | grep -q "idf-proof-$token" && echo "$secret"; }
read_log() { cat "$home/.idf/logs/$name.log"; }
read_job_folder() { cat "$home/.idf/jobs/$name/script" | grep -q crossings && echo "$secret"; }
read_tmp() { cat "/tmp/idf-proof-$token"; }
read_var_tmp() { cat "/var/tmp/idf-proof-$token"; }
read_shared_memory() { cat "/dev/shm/idf-proof-$token"; }
see_process() { head -c 1 "/proc/$pid/cmdline" | grep -q . && echo "$secret"; }
read_environment() { tr '\0' '\n' <"/proc/$pid/environ"; }
trace_process() { exec 3<"/proc/$pid/mem" && echo "$secret"; }
signal_process() { kill -0 "$pid" && echo "$secret"; }
gpus() { ls -d /dev/nvidia[0-9]* /dev/dri/renderD* 2>/dev/null; }
open_gpu() { for device in $(gpus); do (exec 3<>"$device") && echo "$secret"; done; } # this job was given none
see_in_queue() { squeue --noheader --jobs="$job" --format=%j | grep -qx "$name" && echo "$secret"; }
see_details() { scontrol show job "$job" | grep -q "JobName=$name" && echo "$secret"; }
see_in_accounting() {
    sacct --allusers --noheader --parsable2 --allocations --jobs="$job" --format=JobName | grep -qx "$name" && echo "$secret"
}
ask_for_script() { scontrol write batch_script "$job" - | grep -q idf-compute && echo "$secret"; }
enter_allocation() { srun --quiet --overlap --jobid="$job" --ntasks=1 true && echo "$secret"; }
change_job() { scontrol update "JobId=$job" TimeLimit=1 && echo "$secret"; }
mint_token() { scontrol token "username=$user" lifespan=60 | grep -q SLURM_JWT && echo "$secret"; }
act_by_sudo() { sudo -n -u "$user" true && echo "$secret"; }
log_in() {
    ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=5 \
        "$user@localhost" true && echo "$secret"
}
end_job() { scancel "$job" && echo "$secret"; }
export -f gpus $(compgen -A function | grep _)

# ── trying them ──

# Whoever wrote the secret came through, whatever else went wrong on the way: no exit status counts.
got() { case $(timeout 20 bash -c "$1" 2>/dev/null </dev/null | tr -d '\0') in *"$secret"*) ;; *) return 1 ;; esac; }
mine=("$token" "$user" "$home" "$name" "$job" "$pid")
aim() {
    export token=$1 user=$2 home=$3 name=$4 job=$5 pid=$6
    export secret=secret-$1
}

# cross KIND PROGRAM NAME: `own` tries it on this very job first; a crossing that does not work at all proves nothing.
# What works only after a while (accounting lags) is tried again, all of them together 20 times: the proof has an end.
again=20
cross() {
    if ! command -v "$2" >/dev/null; then
        say "absent $3 $2"
        return
    fi
    if [ "$1" = own ]; then
        aim "${mine[@]}"
        until got "$3"; do
            if [ "$again" -eq 0 ]; then
                say "untried $3"
                return
            fi
            again=$((again - 1))
            sleep 1
        done
    fi
    aim $IDF_PROOF_THEIRS
    if got "$3"; then say "open $3"; else say "refused $3"; fi
}

say "ready ${SLURMD_NODENAME:-$(hostname -s)} ${mine[*]}"
if [ -n "${IDF_PROOF_THEIRS:-}" ]; then
    for crossing in read_home list_home read_log read_job_folder read_tmp read_var_tmp read_shared_memory \
        see_process read_environment; do
        cross own cat "$crossing"
    done
    cross bare cat trace_process
    cross own cat signal_process
    if [ -n "$(gpus)" ]; then cross bare cat open_gpu; else say "absent open_gpu"; fi
    cross own squeue see_in_queue
    cross own scontrol see_details
    cross own sacct see_in_accounting
    cross own scontrol ask_for_script
    cross own srun enter_allocation
    cross bare scontrol change_job
    cross bare scontrol mint_token
    cross bare sudo act_by_sudo
    cross bare ssh log_in
    cross bare scancel end_job
    say done
fi
for _ in $(seq 120); do sleep 1; done &
wait $!
