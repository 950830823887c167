#!/usr/bin/env bash
#SBATCH --cpus-per-task=8
#SBATCH --mem=8G
#SBATCH --time=08:00:00
# Makes a set of soundscapes on a SLURM cluster: an example, whose lines above are to be set to what the cluster allows.
#   scripts/slurm_mixtures.sh PARTS FOLDER LMDB FLAG...
# submits three jobs. Each waits until the one before has ended well:
#   mix    an array of PARTS tasks: FLAC soundscapes into FOLDER, with these FLAGs of scripts/generate_mixtures.py
#   pack   an array of PARTS tasks: the LMDB of each part, checked, into LMDB.parts/
#   join   LMDB, of all parts
# Call it from the folder that .venv is in, which all nodes must see. Called again, it makes what is missing.
# GISE_PYTHON names another interpreter.
set -euo pipefail
python=${GISE_PYTHON:-.venv/bin/python}
workers=${SLURM_CPUS_PER_TASK:-1}

submit() { # STEP [FLAG OF sbatch]...: print the job's number. SLURM runs a copy of this file, in the current folder.
    local step=$1
    shift
    sbatch --parsable --job-name="$step" "$@" scripts/slurm_mixtures.sh "$step" "${words[@]}"
}

if [[ ${1:-} =~ ^[1-9][0-9]*$ && $# -ge 3 ]]; then
    tasks=--array=1-$1
    shift
    words=("$@")
    mix=$(submit mix "$tasks")
    pack=$(submit pack "$tasks" --dependency="afterok:${mix%%;*}" --kill-on-invalid-dep=yes)
    join=$(submit join --dependency="afterok:${pack%%;*}" --kill-on-invalid-dep=yes)
    echo "jobs: mix ${mix%%;*}, pack ${pack%%;*}, join ${join%%;*}"
    exit
fi
[ $# -ge 3 ] || { echo "usage: slurm_mixtures.sh PARTS FOLDER LMDB FLAG..." >&2 && exit 2; }

step=$1 folder=$2 lmdb=$3
shift 3
case $step in
    mix)
        "$python" scripts/generate_mixtures.py "$@" --out_folder "$folder" --format flac --part slurm \
            --num_workers "$workers"
        ;;
    pack)
        part=$lmdb.parts/$SLURM_ARRAY_TASK_ID.lmdb
        "$python" pack_mixtures_into_lmdb.py --mixture_dir "$folder" --lmdb_path "$part" --part slurm \
            --num_workers "$workers"
        "$python" scripts/check_lmdb.py "$part" --num_workers "$workers"
        ;;
    join) "$python" scripts/join_lmdbs.py --parts "$lmdb.parts/"*.lmdb --lmdb_path "$lmdb" ;;
    *) echo "slurm_mixtures.sh: error: PARTS is '$step'. A number such as 4 was expected." >&2 && exit 2 ;;
esac
