"""llama.cpp, by llama-cpp-python: it gets the loaded weights as a GGUF file.

It is called by the C functions that the package exports, not by its class `Llama`: two calls a
token, so that what is timed is llama.cpp. Its speculation is that of its own programs: a chain is
drafted and scored at once, and kept as far as its own sampler draws the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from typing_extensions import override

from nfox.decoding.generate import Limits, Prompt
from nfox.errors import ModelError
from nfox.eval.peers.base import OnTokens, Peer
from nfox.eval.peers.llama_cpp_context import LlamaContext, Machine
from nfox.eval.peers.llama_cpp_library import make_sampler, quantise, start
from nfox.eval.peers.packages import package
from nfox.reply import Settings

if TYPE_CHECKING:
    from nfox.engine import Engine
    from nfox.models.options import LoadedModel


class LlamaCpp(Peer):
    """Plain decoding by llama.cpp: same weights, keys and values in the same dtype, same threads.

    Its sums are rounded elsewhere than torch's, so near-ties between two tokens may fall the other
    way. Above temperature 0 it draws by its own random numbers.

    Args:
        file: the GGUF of the model.
        machine: what it computes with.
        max_context: the most tokens.
        dtype: of the cache, and of weights that nfox wrote, in words.
        stored: whether the GGUF is the model's own file, with weights of its own kind.

    Raises:
        ModelError: if it is not installed, does not load the model, or has no memory for it.
    """

    name: ClassVar[str] = "llama.cpp"
    quantisation: ClassVar[str] = ""

    def __init__(
        self, file: str, machine: Machine, max_context: int, dtype: str, stored: bool = False
    ) -> None:
        self._lib = lib = package("llama_cpp", "llama-cpp-python")
        self._machine = machine
        self._dtype, self._stored = dtype, stored
        if machine.gpu and not lib.llama_supports_gpu_offload():
            raise ModelError(
                "llama-cpp-python was built for the CPU alone, and the target is on a GPU",
                "CMAKE_ARGS=-DGGML_CUDA=on pip install --force-reinstall llama-cpp-python, "
                "or --device cpu",
            )
        start(lib)
        if self.quantisation:
            file = quantise(lib, file, self.quantisation, machine.threads)
        self.context = LlamaContext(lib, file, machine, max_context)

    @override
    @classmethod
    def recipe(cls, engine: Engine, folder: Path) -> dict[str, Any]:
        from nfox.eval.peers.gguf import ggml_type

        target = engine.model.target
        machine = Machine(
            threads=torch.get_num_threads(),
            gpu=target.device.type != "cpu",
            cache_type=int(ggml_type(target.dtype)),
            flash=target.dtype != torch.float32,
        )
        return {
            "file": written(engine.model, folder / "model.gguf"),
            "machine": machine,
            "max_context": engine.max_context,
            "dtype": str(target.dtype).removeprefix("torch."),
            "stored": target.stored_in is not None,
        }

    @override
    def answer(
        self, prompt: Prompt, settings: Settings, limits: Limits, on_tokens: OnTokens
    ) -> None:
        """Answer a prompt; the tokens that begin it and were read before are not read again."""
        lib, context, left = self._lib, self.context, limits.max_tokens
        # The last token is returned, not read.
        context.make_room(len(prompt.ids) + left - 1)
        context.read(prompt.ids)
        size, text = context.vocabulary_size, list(prompt.ids)
        sampler = make_sampler(lib, size, settings.sampling, prompt.ids, left)
        try:
            tokens = [lib.llama_sampler_sample(sampler, context.handle, -1)]
            while True:
                on_tokens(tokens)
                text += tokens
                left -= len(tokens)
                if left < 1 or tokens[-1] in limits.stop_ids:
                    return
                drafted = self.draft(text)[: left - 1]
                context.score([tokens[-1], *drafted])
                tokens = self._kept(sampler, drafted, limits)
                context.keep(len(text) + len(tokens) - 1)
        finally:
            lib.llama_sampler_free(sampler)

    def draft(self, text: list[int]) -> list[int]:
        """Return the tokens that are guessed to follow a text; plain decoding guesses none."""
        return []

    def _kept(self, sampler: Any, drafted: list[int], limits: Limits) -> list[int]:
        """Return the tokens that the sampler draws after a chain, as far as that foresaw them."""
        tokens: list[int] = []
        for place in range(len(drafted) + 1):
            # The only logits are those of the last token; of several, each has its number.
            row = place if drafted else -1
            tokens.append(self._lib.llama_sampler_sample(sampler, self.context.handle, row))
            if tokens[-1] in limits.stop_ids or tokens != drafted[: place + 1]:
                break
        return tokens

    @override
    def begin(self) -> None:
        self.context.keep(0)

    @override
    def describe(self) -> str:
        machine = self._machine
        device = "on the GPU" if machine.gpu else f"threads {machine.threads}"
        flash = "as it chooses" if machine.flash else "off"
        own = "weights of the file, " if self._stored else "weights and "
        weights = f"weights {self.quantisation}, " if self.quantisation else own
        return (
            f"llama-cpp-python {self._lib.__version__}, {weights}cache {self._dtype}, {device}, "
            f"flash attention {flash}"
        )

    @override
    def close(self) -> None:
        self.context.close()


class Q80(LlamaCpp):
    """The same with 8 bit weights, as llama.cpp quantises them."""

    name = "llama.cpp q8_0"
    quantisation = "Q8_0"
    other_weights = True


class Q40(Q80):
    """The same with 4 bit weights and a scale for 32 of them."""

    name = "llama.cpp q4_0"
    quantisation = "Q4_0"


class Q41(Q80):
    """The same with 4 bit weights, and a scale and a minimum for 32 of them."""

    name = "llama.cpp q4_1"
    quantisation = "Q4_1"


def written(model: LoadedModel, file: Path) -> str:
    """Return a GGUF of a model, written if no other peer has; the model's own file, under that
    name, where it has the weights that are stored there.
    """
    from nfox.eval.peers.gguf import write

    if not file.exists() and model.target.stored_in:
        file.symlink_to(model.target.stored_in.resolve())
    if not file.exists():
        part = file.with_suffix(".part")  # a file that is there is whole
        write(model, part)
        part.replace(file)
    return str(file)
