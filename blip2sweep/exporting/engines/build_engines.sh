#!/usr/bin/env bash
# Builds the engines of one variant: build_engines.sh fp16|int8|int4 [FOLDER]
#
# fp16 keeps the weights; int8 and int4 round the language model's alone, by TensorRT-LLM itself, a scale for each output.
# Needs: a GPU, tensorrt_llm of the version in engines.env, and TENSORRT_LLM, a checkout of its repository at that version.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=/dev/null
source "$here/engines.env"

variant=${1:-}
case "$variant" in
  fp16) rounding=() ;;
  int8 | int4) rounding=(--use_weight_only --weight_only_precision "$variant") ;;
  *)
    echo "build_engines.sh ${variant:-(nothing)}: no such variant; right: fp16, int8 or int4" >&2
    exit 2
    ;;
esac
to=${2:-$here/engines/$variant}

if [ ! -d "${TENSORRT_LLM:-}/examples/models/core/multimodal" ]; then
  echo "TENSORRT_LLM=${TENSORRT_LLM:-}: no checkout; right: that of github.com/NVIDIA/TensorRT-LLM at v$TENSORRT_LLM_VERSION" >&2
  exit 2
fi
found=$(python3 -c 'from importlib.metadata import version; print(version("tensorrt_llm"))')
if [ "$found" != "$TENSORRT_LLM_VERSION" ]; then
  echo "tensorrt_llm $found is installed; right: pip install tensorrt_llm==$TENSORRT_LLM_VERSION" >&2
  exit 2
fi
if [ -e "$to" ]; then
  echo "$to: is there already; right: a new folder" >&2
  exit 2
fi

part=$to.part-$$
trap 'rm -rf "$part"' EXIT
mkdir -p "$part"

python3 "$TENSORRT_LLM/examples/models/contrib/opt/convert_checkpoint.py" \
  --model_type blip2 \
  --model_dir "$here/checkpoint" \
  --output_dir "$part/converted" \
  --dtype float16 \
  "${rounding[@]}"

trtllm-build \
  --checkpoint_dir "$part/converted" \
  --output_dir "$part/llm" \
  --gemm_plugin float16 \
  --max_beam_width 1 \
  --max_batch_size "$MAX_BATCH_SIZE" \
  --max_input_len "$MAX_INPUT_LEN" \
  --max_seq_len "$MAX_SEQ_LEN" \
  --max_multimodal_len "$MAX_MULTIMODAL_LEN"

python3 "$TENSORRT_LLM/examples/models/core/multimodal/build_multimodal_engine.py" \
  --model_type blip2 \
  --model_path "$here/checkpoint" \
  --output_dir "$part/vision" \
  --max_batch_size "$MAX_BATCH_SIZE"

rm -rf "$part/converted"
mv "$part" "$to"
trap - EXIT
echo "built $to; next: run_engines.py $to"
