"""Small tokenizers of the kinds that there are, which spell text from other bits each."""

from __future__ import annotations

import json
from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

FAMILY, FLAGS, THUMB, ACCENT = "👩\u200d👩\u200d👧", "🇩🇪🇫🇷", "👍🏽", "e\u0301"
STRINGS = [
    "Hello world, how are you?",
    f"{FAMILY} {FLAGS}{THUMB} \U0001f3f4\U000e0067\U000e0062\U000e007f ❤\ufe0f 1\ufe0f\u20e3",
    f"caf{ACCENT} na\u00efve  two  spaces \n\n\ttab",
    "日本語と한국어 和 עִבְרִית اَلْعَرَبِيَّة हिन्दी \u1100\u1161\u11a8",
]
KINDS = ("byte-level", "metaspace", "slow")


class CharacterTokenizer:
    """A tokenizer without a Rust backend: one token per byte, the decoding left to Python."""

    unk_token_id = None

    def __len__(self) -> int:
        return 256

    def __call__(self, text: str, **_: object) -> list[int]:
        return list(text.encode())

    def convert_tokens_to_ids(self, token: str) -> None:
        return None

    def decode(self, ids: list[int], **_: object) -> str:
        return bytes(ids).decode(errors="replace")


@cache
def make(kind: str):
    if kind == "slow":
        return CharacterTokenizer()
    if kind == "byte-level":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        special, letters = ["<s>", "</s>"], pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        prepend, spaces = normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")
        tokenizer.normalizer = normalizers.Sequence([prepend, spaces])
        space = decoders.Replace("▁", " ")
        tokenizer.decoder = decoders.Sequence(
            [space, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        special = ["<s>", "</s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
        letters = []
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=letters, show_progress=False
    )
    tokenizer.train_from_iterator(STRINGS[:1] * 5, trainer)
    data = json.loads(tokenizer.to_str())
    # Only these are special: bytes are text.
    data["added_tokens"] = [t for t in data["added_tokens"] if not t["content"].startswith("<0x")]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(data)),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>" if kind == "metaspace" else None,
    )


def encode(kind: str, text: str) -> list[int]:
    if kind == "slow":
        return make(kind)(text)
    return make(kind)(text, add_special_tokens=False).input_ids


def decode(kind: str, ids: list[int]) -> str:
    return make(kind).decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
