"""A real server of the protocol: `transformers serve` with a small random model, started once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from blip2sweep.backends.dummy import Dummy
from blip2sweep.chat import messages
from blip2sweep.chat.asking import Asking
from blip2sweep.chat.client import ChatError, Client
from blip2sweep.chat.replies import Replies, Request
from blip2sweep.wire.pack import Settings
from blip2sweep.workers.in_context import run_in_context
from tests.checkpoints import TINY
from tests.composing import plan
from tests.waiting import ending

for _name in ("fastapi", "uvicorn", "openai", "sse_starlette", "multipart"):
    pytest.importorskip(_name, reason="transformers serve needs it; it is one of the dev extras")

pytestmark = pytest.mark.thorough
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
START_SECONDS = 180.0


class Served(NamedTuple):
    url: str
    model: str


def write_model(folder: Path) -> Path:
    """A Llama of two layers with random weights, and the shipped tokenizer with a chat template."""
    import torch

    torch.manual_seed(0)
    own = AutoTokenizer.from_pretrained(TINY)
    ends = {"eos_token": own.eos_token, "pad_token": own.pad_token}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(TINY / "tokenizer.json"), chat_template=TEMPLATE, **ends)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, bos_token_id=None, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = write_model(tmp_path_factory.mktemp("llama"))
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with socket.socket() as held, (folder / "log").open("wb") as log:
        # The port stays bound, so that no other test gets it; with REUSEADDR, which asyncio sets too, a server may share it.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        with ending(subprocess.Popen(command(port), env=env, stdout=log, stderr=log)) as server:
            wait_for(server, f"http://127.0.0.1:{port}/v1/models", folder / "log")
            yield Served(f"http://127.0.0.1:{port}/v1", str(folder))


def command(port: int) -> list[str]:
    return [sys.executable, "-m", "transformers.cli.transformers", "serve", "--device", "cpu", "--dtype", "float32",
            "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip


def wait_for(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError(log.read_text()[-3000:])


def about(served: Served, question: str, model: str | None = None) -> Request:
    said = messages.context(["a photo of a red circle"], question, 3)
    return Request(model or served.model, said, {"temperature": 0.0, "max_tokens": 6})


def test_a_real_server_replies_equally_each_time_and_counts_tokens(served: Served, tmp_path: Path) -> None:
    requests = [about(served, question) for question in ("what is it?", "what color is it?")]
    runs = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        asking = Asking(Replies(folder), "cell", Client({"base_url": served.url, "timeout": 120.0, "retries": 1}))
        runs.append([(r.text, r.prompt_tokens, r.completion_tokens) for r in asking(requests)])
        assert asking.usage.hits == 0
    assert runs[0] == runs[1]
    for text, prompt, completion in runs[0]:
        assert text
        assert prompt > 50
        assert 0 < completion <= 6


def test_a_cell_is_answered_by_a_real_server(served: Served, tmp_path: Path) -> None:
    words = ("task=shapes_vqa", "task.kind=incontext", "chat=local", f"chat.model={served.model}", "task.limit=4")
    (cell,) = plan(*words, "part=none", "backend=dummy").cells.values()
    settings = Settings(chat={"base_url": served.url, "online": True, "timeout": 120.0, "retries": 1, "concurrency": 2})
    answered = run_in_context(cell.job(), Dummy({}), tmp_path, settings)
    assert len(answered.predictions.text or ()) == 4
    assert all(0 < n <= 10 for n in answered.predictions.tokens or ())
    assert answered.cost["chat_requests"] == 4
    waiting = Settings(chat={"base_url": None, "online": False})
    again = run_in_context(cell.job(), Dummy({}), tmp_path, waiting)  # all replies are there
    assert again.predictions == answered.predictions


def test_a_model_that_a_real_server_lacks_is_one_line(served: Served) -> None:
    client = Client({"base_url": served.url, "timeout": 60.0, "retries": 0})
    with pytest.raises(ChatError, match=r"/v1/chat/completions: HTTP \d+") as found:
        client(about(served, "what is it?", model="nobody/has-it"))
    assert "\n" not in str(found.value)
