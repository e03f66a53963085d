"""Loads exported folders in a process of its own, offline, with transformers alone. A test sends it JSON and reads JSON."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

PLAIN, LOADER, DEQUANTIZED, README = "plain", "load.py", "dequantized", "README.md"


class Found(NamedTuple):
    """What was loaded. weights: {name: sha256 of the float32 numbers}. texts: of each image."""

    weights: dict[str, str]
    texts: list[str]


def reload(folders: Sequence[tuple[Path, str]], images: Sequence[Path] = ()) -> list[Found]:
    """Load folders, each by plain `from_pretrained`, by its load.py or by the code of its README.md, and write a text to each image."""
    asked = {"folders": [[str(folder), how] for folder, how in folders], "images": [str(i) for i in images]}
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(asked), capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [Found(**one) for one in json.loads(done.stdout.splitlines()[-1])]


def digests(model: Any) -> dict[str, str]:
    """{name: sha256} of the parameters, which may be dense weights or those of a library."""
    named = {n: _dense(p).detach().float().contiguous() for n, p in model.named_parameters()}
    return {n: hashlib.sha256(p.numpy().tobytes()).hexdigest() for n, p in named.items()}


def _dense(x: Any) -> Any:
    """A parameter of a library as the weight it stands for."""
    if getattr(x, "quant_state", None) is not None:
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(x.data, x.quant_state)
    return x.dequantize() if hasattr(x, "qdata") else x


def _load(folder: Path, how: str) -> Any:
    if how == LOADER:
        spec = importlib.util.spec_from_file_location("load", folder / "load.py")
        module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
        spec.loader.exec_module(module)  # type: ignore[union-attr]
        return module.load()
    if how == README:
        return _as_told(folder)
    import transformers

    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    model, report = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    assert not any(report[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    return (model.dequantize() if how == DEQUANTIZED else model).eval()


def _as_told(folder: Path) -> Any:
    """The model that the first code of README.md makes in the folder."""
    code = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    found: dict[str, Any] = {}
    os.chdir(folder)
    sys.modules.pop("load", None)
    sys.path.insert(0, str(folder))
    exec(code, found)
    sys.path.remove(str(folder))
    return found["model"].eval()


def _texts(model: Any, folder: Path, images: Sequence[str]) -> list[str]:
    from PIL import Image
    from transformers import AutoProcessor

    processor, found = AutoProcessor.from_pretrained(folder), list[str]()
    if getattr(processor, "chat_template", None):  # its text is another one, and its weights say enough
        return found
    for image in images:
        batch = processor(images=Image.open(image).convert("RGB"), text="", return_tensors="pt")
        ids = model.generate(**batch, do_sample=False, max_new_tokens=32)[:, batch["input_ids"].shape[1] :]
        found += processor.batch_decode(ids, skip_special_tokens=True)
    return [text.strip() for text in found]


def main() -> None:
    import torch

    torch.set_num_threads(1)
    asked, found = json.loads(sys.stdin.read()), []
    for folder, how in asked["folders"]:
        model = _load(Path(folder), how)
        found.append({"weights": digests(model), "texts": _texts(model, Path(folder), asked["images"])})
    assert "blip2sweep" not in sys.modules
    print(json.dumps(found))


if __name__ == "__main__":
    main()
