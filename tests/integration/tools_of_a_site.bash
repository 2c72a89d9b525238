# A login profile that stands in for a site's environment-modules and Apptainer, where neither is installed.
# `module load NAME` keeps LOADEDMODULES as the real one does, brings $HOME/modules/NAME if that is there, and knows
# no module of the name `missing`. `apptainer exec [--nv] IMAGE COMMAND…` says what it was asked for, names the image
# in APPTAINER_CONTAINER as the real one does, brings $HOME/IMAGE.bash if that is there, and runs the command.
module() {
  case "$1 $2" in
    "load missing"*) echo "ERROR: Unable to locate a modulefile for '$2'" >&2; return 1 ;;
    "load "*) LOADEDMODULES="${LOADEDMODULES:+$LOADEDMODULES:}$2"; export LOADEDMODULES
      if [ -r "$HOME/modules/$2" ]; then . "$HOME/modules/$2"; fi ;;
    *) return 1 ;;
  esac
}
mkdir -p "$HOME/bin"
cat > "$HOME/bin/apptainer" <<'END'
#!/bin/bash
[ "$1" = exec ] || exit 2
said="apptainer exec"
shift
if [ "$1" = --nv ]; then said="$said --nv"; shift; fi
echo "$said $1"
export APPTAINER_CONTAINER="$1"
if [ -r "$HOME/$1.bash" ]; then . "$HOME/$1.bash"; fi
shift
exec "$@"
END
chmod 755 "$HOME/bin/apptainer"
PATH="$HOME/bin:$PATH"
