#!/usr/bin/env bash
# Longreach from a fresh clone: sets up .venv once from the pinned, hashed lock, then runs a verb (./launch.sh help).
set -euo pipefail

script=$(readlink -f -- "${BASH_SOURCE[0]}")
root=${script%/*}
venv=$root/.venv
stamp=$venv/longreach-stamp # what a finished .venv was made from; "unfinished" until then
uv=uv==0.13.9               # the resolver that renews the locks

usage() {
    cat <<'END'
usage: ./launch.sh [VERB] [ARGUMENT ...]

  (no verb)            the quickstart study: trains, evaluates and reports; prints where the report is
  run CONFIG           a configuration from training, or its whole sweep, to the report
  train CONFIG         one training run
  sweep CONFIG         every run of a configuration's sweep
  evaluate RUN         a trained run at several lengths
  search RUN           LongRoPE's factors for a trained run, found by its own loss
  report STUDY         the report of a study from what is finished
  sample RUN           text from a checkpoint
  pictures [SCHEME]    what positional schemes do: bias and decay by distance, rotary spectra
  bench                the table of speeds
  test [PYTEST ...]    the fast tests; -m slow: the slow ones; -m "": all; paths are relative to the repository
  conformance          the table of positional schemes against references: test tests/conformance
  lock                 renews requirements*.lock: the newest versions that pyproject.toml allows, with their hashes
  help                 this text

Every verb that runs a module takes --help. Those that take a CONFIG or a RUN set its fields by
--config.FIELD=VALUE.
The first start sets up .venv from the lock; later starts find it ready. Who manages an own environment
uses python -m experiments.VERB (bench: python -m experiments.benchmarks; test: python -m pytest).

  LONGREACH_EXTRA             cuda13 or tpu: the lock for that accelerator; empty: CPU; unset: as .venv was set up
  LONGREACH_PYTHON            the Python (3.11 or newer) that makes .venv; unset: the first one found on PATH
  LONGREACH_CACHE             texts, tokenizers and compiled programs; unset: longreach in the user's cache folder
  JAX_COMPILATION_CACHE_DIR   compiled programs alone
END
}

say() { printf '%s\n' "$*" >&2; }

fail() { # STATUS MESSAGE
    say "launch.sh: $2"
    exit "$1"
}

refuse() { # MESSAGE
    say "launch.sh: $1"
    usage >&2
    exit 2
}

# The extra that picks the lock: the one asked for, else the one .venv has.
choose_lock() {
    local made_with=""
    [[ ! -r $stamp ]] || read -r made_with _ < "$stamp" || true
    case ${LONGREACH_EXTRA-$made_with} in
        cuda13 | tpu) extra=${LONGREACH_EXTRA-$made_with} lock=$root/requirements-${LONGREACH_EXTRA-$made_with}.lock ;;
        "" | base | unfinished) extra=base lock=$root/requirements.lock ;;
        *) fail 2 "LONGREACH_EXTRA = '${LONGREACH_EXTRA-$made_with}' is not allowed; it must be empty, cuda13 or tpu" ;;
    esac
    [[ -r $lock ]] || fail 1 "$lock is missing; ./launch.sh lock writes it"
}

# One line: what a .venv made by this Python from this lock is made from.
state_under() { # PYTHON
    "$1" -ISc 'import hashlib, sys
print(sys.argv[1], "%d.%d" % sys.version_info[:2], hashlib.sha256(open(sys.argv[2], "rb").read()).hexdigest())
' "$extra" "$lock" 2> /dev/null
}

is_ready() {
    local made_from
    [[ -r $stamp && -x $venv/bin/python ]] || return 1
    made_from=$(< "$stamp")
    [[ $made_from == "$(state_under "$venv/bin/python")" ]] || return 1
    [[ -z ${LONGREACH_PYTHON:-} || $made_from == "$(state_under "$LONGREACH_PYTHON")" ]]
}

# The real executable of a Python that is new enough (never one inside .venv, which set-up moves).
base_of() { # PYTHON
    "$1" -ISc 'import sys
sys.version_info >= (3, 11) or sys.exit(1)
print(sys._base_executable)' 2> /dev/null
}

find_python() {
    local candidate
    if [[ -n ${LONGREACH_PYTHON:-} ]]; then
        python=$(base_of "$LONGREACH_PYTHON") ||
            fail 2 "LONGREACH_PYTHON = '$LONGREACH_PYTHON' is not allowed; it must be a Python 3.11 or newer"
    else
        for candidate in python3 python3.13 python3.12 python3.11; do
            ! python=$(base_of "$candidate") || break
        done
        [[ -n $python ]] ||
            fail 1 "no Python 3.11 or newer (python3, python3.13, python3.12, python3.11); name one in LONGREACH_PYTHON"
    fi
    "$python" -Ic 'import ensurepip, venv' 2> /dev/null ||
        fail 1 "$python has no venv module; install it (Debian: python3-venv) or set LONGREACH_PYTHON"
}

# What pip could not install and why, from its log.
pip_failure() {
    local missing error
    missing=$(sed -n 's/^ERROR: No matching distribution found for \([^ ]*\).*/\1/p' "$log" | head -n 1)
    error=$(sed -n 's/^ERROR: //p' "$log" | tail -n 1)
    if grep -q 'connection broken by\|Max retries exceeded' "$log"; then
        error="no package registry can be reached"
    fi
    printf 'could not install %s: %s' "${missing:-${lock##*/}}" "${error:-pip failed}"
}

# Drops an unfinished .venv; the one before it, if any, takes its place again.
put_back() {
    rm -rf -- "$venv"
    [[ ! -e $venv.previous ]] || mv -- "$venv.previous" "$venv"
}

make_venv() {
    if [[ -s $stamp && $(< "$stamp") != unfinished ]]; then
        rm -rf -- "$venv.previous"
    elif [[ -e $stamp || -e $venv.previous ]]; then
        put_back # an earlier set-up was killed
    elif [[ -e $venv ]]; then
        fail 1 "$venv was not made by launch.sh; move it away, or use it with python -m experiments.VERB"
    fi
    ! is_ready || return 0

    local duration="about a minute"
    [[ $extra == base ]] || duration="several minutes"
    say "setting up .venv (once, $duration)"
    log=$root/.venv.log
    trap put_back EXIT
    trap 'fail 129 "set-up interrupted; nothing was changed"' HUP
    trap 'fail 130 "set-up interrupted; nothing was changed"' INT
    trap 'fail 143 "set-up interrupted; nothing was changed"' TERM
    [[ ! -e $venv ]] || mv -- "$venv" "$venv.previous"
    mkdir -- "$venv"
    echo unfinished > "$stamp"
    "$python" -Im venv "$venv" > "$log" 2>&1 ||
        fail 1 "$python could not make .venv; nothing was changed; its log: $log"
    "$venv/bin/python" -Im pip install --disable-pip-version-check --no-input --progress-bar off \
        --require-hashes -r "$lock" >> "$log" 2>&1 || fail 1 "$(pip_failure); nothing was changed; pip's log: $log"
    state_under "$venv/bin/python" > "$stamp.new"
    mv -- "$stamp.new" "$stamp"
    trap - EXIT
    rm -rf -- "$venv.previous" "$log"
}

set_up() {
    choose_lock
    ! is_ready || return 0
    find_python
    # A subshell: its traps, and the lock on descriptor 9, end with the set-up.
    (
        if command -v flock > /dev/null; then
            flock --nonblock 9 || { say "waiting for another set-up of .venv" && flock 9; }
        fi
        make_venv
    ) 9> "$root/.venv.lock"
}

renew_locks() {
    local scratch name
    find_python
    scratch=$(mktemp -d)
    # shellcheck disable=SC2064  # the folder's name is known now
    trap "rm -rf -- '$scratch'" EXIT
    log=$root/.venv.log lock=$uv
    "$python" -Im venv "$scratch/venv"
    "$scratch/venv/bin/python" -Im pip install --disable-pip-version-check --no-input "$uv" > "$log" 2>&1 ||
        fail 1 "$(pip_failure); nothing was changed; pip's log: $log"
    for name in requirements requirements-cuda13 requirements-tpu; do
        say "resolving $name.lock"
        echo "# Written by ./launch.sh lock; universal for Python 3.11 and newer." > "$scratch/$name.lock"
        set -- --extra test
        [[ $name == requirements ]] || set -- "$@" --extra "${name#requirements-}"
        "$scratch/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
            --no-annotate "$@" "$root/pyproject.toml" >> "$scratch/$name.lock" ||
            fail 1 "could not resolve $name.lock; nothing was changed"
        ! grep '://\|^ *-' "$scratch/$name.lock" | grep -v '^ *--hash=' >&2 ||
            fail 1 "$name.lock would hold an address; nothing was changed"
    done
    mv -- "$scratch"/*.lock "$root/"
    rm -f -- "$log"
    say "renewed requirements.lock, requirements-cuda13.lock and requirements-tpu.lock; the next start sets up .venv"
}

run_tests() {
    local argument previous="" suite="fast (every test not marked slow)" status=0
    for argument in "$@"; do
        [[ $previous != -m ]] || suite=${argument:-all}
        previous=$argument
    done
    echo "test suite: $suite"
    cd -- "$root"
    # One process a core; more than four would each compile the same programs. A later -n replaces this one.
    "$venv/bin/python" -m pytest -n auto --maxprocesses 4 "$@" || status=$?
    ((status != 4)) || status=2 # pytest's own number for a wrong option
    exit "$status"
}

verb=${1-}
(($# == 0)) || shift
case $verb in
    "" | run | train | sweep | evaluate | search | report | sample | pictures) module=experiments.${verb:-run} ;;
    bench) module=experiments.benchmarks ;;
    test) module="" ;;
    conformance) module="" && set -- tests/conformance "$@" ;;
    lock | help | -h | --help)
        (($# == 0)) || [[ $* == --help ]] || refuse "$verb takes no '$1'"
        [[ $verb == lock && $# == 0 ]] || { usage && exit 0; }
        renew_locks
        exit 0
        ;;
    -*) refuse "unknown option '$verb'" ;;
    *) refuse "unknown verb '$verb'" ;;
esac

set_up
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
export PYTHONSAFEPATH=1 # the caller's folder may hold a models/ or train/ of its own
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL-2}
[[ -n $module ]] || run_tests "$@"
if [[ -z $verb ]]; then
    quickstart=experiments/configs/quickstart.py
    [[ $PWD -ef $root ]] || quickstart=$root/$quickstart
    set -- "$quickstart"
fi
exec "$venv/bin/python" -m "$module" "$@"
