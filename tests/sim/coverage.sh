#!/bin/sh
# Prints what of the core the simulator reaches, per file: regions, functions, lines; then every function that
# it never reaches. `tests/sim/README.md` says why for those that are not to be reached.
#
#   tests/sim/coverage.sh [hostile seeds] [ordinary seeds]
#
# Needs LLVM's tools for this compiler: rustup component add llvm-tools-preview
set -eu
cd "$(dirname "$0")/../.."
hostile=${1:-300} ordinary=${2:-60}
out=${CARGO_TARGET_DIR:-$PWD/target}/sim-coverage
tools=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
[ -x "$tools/llvm-cov" ] || { echo "no llvm-cov: rustup component add llvm-tools-preview" >&2; exit 1; }
mkdir -p "$out"
rm -f "$out"/*.profraw

# The core, and the simulator, in which what is generic of the core comes to be code. Nothing else: everything
# they are built on is taken as it is.
wrapper=$out/rustc-wrapper
cat >"$wrapper" <<'WRAPPER'
#!/bin/sh
case " $* " in
*" --crate-name swarmkv_protocol "* | *" --crate-name sim "*) exec "$@" -C instrument-coverage ;;
*) exec "$@" ;;
esac
WRAPPER
chmod +x "$wrapper"
RUSTC_WRAPPER=$wrapper cargo test -p swarmkv-tests --test sim --no-run --target-dir "$out/target" 2>"$out/build.log" \
    || { cat "$out/build.log" >&2; exit 1; }
binary=$(sed -n 's/.*(\(.*deps\/sim-[0-9a-f]*\)).*/\1/p' "$out/build.log")

cd tests
run() { LLVM_PROFILE_FILE="$out/%p.profraw" "$binary" --exact "$1" --nocapture | grep "seeds in" || true; }
SWARMKV_SIM_HOSTILE_SEEDS=$hostile run hostile::hostile_seeds
SWARMKV_SIM_SEEDS=$ordinary run every_invariant_holds_on_every_seed
cd ..

"$tools/llvm-profdata" merge -sparse "$out"/*.profraw -o "$out/all.profdata"
report() { "$tools/llvm-cov" "$@" "$binary" -instr-profile "$out/all.profdata"; }
report report -sources protocol/src | tee "$out/report.txt"
report export -format=text -skip-expansions -sources protocol/src >"$out/export.json"
python3 tests/sim/unreached.py "$out/export.json"
