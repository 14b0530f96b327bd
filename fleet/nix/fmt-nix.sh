#!/usr/bin/env bash
# fmt-nix, which `nix fmt` runs: format the Nix files of the current flake with Alejandra. The files are passed by name:
# without names Alejandra reads stdin, and `nix fmt` passes none since Nix 2.24.
set -euo pipefail

# shellcheck disable=SC1091
declare -F flake_here >/dev/null || . "$(dirname -- "${BASH_SOURCE[0]}")/here.sh"

usage() {
  cat <<'EOT'
Usage: fmt-nix [--write|--check|--diff] [FILE|DIRECTORY…]
  --write  (default) format files in place, those that change
  --check  say which would change, and change none; status 1 if any would
  --diff   the same, as diffs
Without words: all Nix files of the flake that git tracks. Status 2: a file that cannot be formatted, or wrong usage.
EOT
}

mode=--write
words=()
while [ $# -gt 0 ]; do
  case $1 in
    --write | --check | --diff) mode=$1 ;;
    -h | --help)
      usage
      exit 0
      ;;
    --)
      shift
      words+=("$@")
      break
      ;;
    -*)
      echo "fmt-nix: unknown option $1; see fmt-nix --help (a file of that name: -- $1)" >&2
      exit 2
      ;;
    *) words+=("$1") ;;
  esac
  shift
done

scratch=$(mktemp -d)
half_written=
trap 'rm -rf -- "$scratch" ${half_written:+"$half_written"}' EXIT
files=()

# files_below DIRECTORY PREFIX OPTIONS…: the Nix files there, from `git ls-files` with these options; outside of git, by name.
files_below() {
  local directory=$1 prefix=$2 name
  shift 2
  if ! LC_ALL=C git -C "$directory" ls-files -z "$@" -- '*.nix' >"$scratch/list" 2>"$scratch/why"; then
    if ! grep -q 'not a git repository' "$scratch/why"; then
      echo "fmt-nix: git cannot list the files in $directory: $(tail -n 1 "$scratch/why")" >&2
      exit 2
    fi
    (cd -- "$directory" && find . \( -name .git -o -name .direnv -o -name 'result*' -type l \) -prune \
      -o -type f -name '*.nix' -print0) >"$scratch/list"
  fi
  while IFS= read -r -d '' name; do
    # a file that is deleted but not committed, or a link to another one of them
    if [ -f "$directory/$name" ] && [ ! -L "$directory/$name" ]; then
      files+=("$prefix${name#./}")
    fi
  done <"$scratch/list"
}

if [ ${#words[@]} -eq 0 ]; then
  if ! root=$(flake_here); then
    echo "fmt-nix: no flake.nix in this directory or above; change to a flake, or name files" >&2
    exit 2
  fi
  cd -- "$root"
  files_below . ''
fi
for word in "${words[@]}"; do
  if [ -d "$word" ]; then
    files_below "$word" "${word%/}/" --cached --others --exclude-standard
  elif [ ! -f "$word" ]; then
    echo "fmt-nix: $word: no such file" >&2
    exit 2
  elif [[ $word = *.nix ]]; then
    files+=("$word")
  else
    echo "$word: not a Nix file (*.nix), left unchanged" >&2
  fi
done
if [ ${#files[@]} -eq 0 ]; then
  echo "there are no Nix files to format" >&2
  exit 0
fi

# Copies are formatted, so that an interruption never leaves a half-written file.
copies=()
for at in "${!files[@]}"; do
  copies+=("$scratch/$at.nix")
  cat -- "${files[at]}" >"$scratch/$at.nix"
done
broken=0
if ! alejandra --quiet "${copies[@]}" >/dev/null 2>&1; then
  for at in "${!files[@]}"; do
    if ! why=$(alejandra --quiet "$scratch/$at.nix" 2>&1); then
      broken=2
      why=${why##*"$scratch/$at.nix: "}
      printf '%s: cannot be formatted: %s\n' "${files[at]}" "${why//$'\n'/ }" >&2
      cat -- "${files[at]}" >"$scratch/$at.nix"
    fi
  done
fi

changed=0
for at in "${!files[@]}"; do
  file=${files[at]}
  if cmp -s -- "$file" "$scratch/$at.nix"; then
    continue
  fi
  changed=1
  case $mode in
    --write)
      place=$(realpath -- "$file")
      half_written=$(mktemp -- "${place%/*}/.fmt-nix.XXXXXX")
      cp -p -- "$place" "$half_written"
      cat -- "$scratch/$at.nix" >"$half_written"
      mv -f -- "$half_written" "$place"
      half_written=
      echo "formatted: $file"
      ;;
    --check) echo "would format: $file" ;;
    --diff) diff -u --label "$file" --label "$file, formatted" -- "$file" "$scratch/$at.nix" || true ;;
  esac
done
if [ "$broken" -ne 0 ]; then
  exit "$broken"
elif [ "$mode" != --write ]; then
  exit "$changed"
fi
