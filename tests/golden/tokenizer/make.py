#!/usr/bin/env python3
"""Goldens of the tokenizer: libsentencepiece and Hugging Face tokenizers on random strings, ftfy on random prompts.

    pip install sentencepiece==0.2.3 tokenizers==0.23.3 ftfy==6.3.1 safetensors==0.8.0 numpy==2.4.6
    python make.py            # writes tokenizer.safetensors beside itself

Three small unigram models are trained on made-up text: `umt5` as that model is (identity rule, byte fallback, pad 0,
eos 1, bos 2, unk 3, user-defined symbols), `nfkc` with a character map, `plain` without byte fallback, dummy prefix and
white-space removal. Each encodes its own random strings, malformed UTF-8 among them. `wan` is what the original Wan does
with the first model: clean, split at spaces, unigram per word without byte fallback, at most 512 ids. `clean` holds
prompts before and after cleaning; the repair of mojibake (fix_encoding) is off, as longtake leaves it out.
"""
import html
import io
import pathlib
import random
import re

import ftfy
import numpy as np
import sentencepiece
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

COUNT = 1500
SYMBOLS = ["[web]", "[news]", "[w"]


def corpus(draw):
    """Sentences of made-up words of several scripts, repeated so that pieces are worth learning."""
    def word(alphabet, least, most):
        return "".join(draw.choice(alphabet) for _ in range(draw.randrange(least, most)))
    syllables = [a + b for a in "bcdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "é", "ü")]
    latin = [word(syllables, 1, 4) for _ in range(400)]
    cyrillic = [word("абвгдежзиклмнопрстуфхш", 2, 7) for _ in range(60)]
    han = [word([chr(c) for c in range(0x4E00, 0x4E60)], 1, 4) for _ in range(120)]
    kana = [word([chr(c) for c in range(0x3042, 0x3080)], 1, 5) for _ in range(60)]
    hangul = [word([chr(c) for c in range(0xAC00, 0xAC80)], 1, 4) for _ in range(40)]
    lines = []
    for _ in range(3000):
        words = draw.choices([latin, cyrillic, han, kana, hangul], [8, 2, 3, 1, 1])[0]
        text = " ".join(words[min(int(draw.expovariate(0.05)), len(words) - 1)] for _ in range(draw.randrange(3, 12)))
        lines.append(text + draw.choice([".", ",", "!", " 12", "，", "。", ""]))
    return lines


ODD = (["\t", "\n", "\r\n", "  ", " ", "\u00a0", "\u2581", "\u3000", "\u0085", "\u2028", "\u200b", "\ufeff", "\u200d"]
       + SYMBOLS + ["[we", "</s>", "<s>", "<pad>", "<unk>", "<0x41>", "<extra_id_0>", "<extra_id_17>", "😀", "👩‍🚀", "🇫🇷"]
       + ["e\u0301", "\u0308", "ﬁ", "ﬃ", "Ĳ", "ǆ", "ＡＢ１", "ｶﾞ", "ﾡ", "￥", "“", "”", "‘", "’", "ʼ", "…", "½", "①", "ç", "Å"]
       + ["&amp;", "&lt;", "&eacute;", "&eacute", "&#65;", "&#x4e00;", "&#150;", "&nosuch;", "&notit;", "&amp;amp;lt;", "<b>"]
       + ["\x1b[31m", "\x1b[0;1m", "\x07", "\x7f", "\x93", "\u206a", "\ufff9", "\ufffd", "龘", "ꯍ", "𝒜", "ᄒ", "ᅡ", "ᆫ"])


def strings(draw, lines, count):
    words = [w for line in lines[:300] for w in line.split()]
    for _ in range(count):
        parts = []
        for _ in range(draw.randrange(0, 9)):
            kind = draw.random()
            if kind < 0.4:
                parts.append(draw.choice(words))
            elif kind < 0.7:
                parts.append(draw.choice(ODD))
            elif kind < 0.8:
                parts.append("".join(draw.choice("abcdefgrstnaeiou ,.ABC019_-") for _ in range(draw.randrange(1, 8))))
            elif kind < 0.9:
                parts.append(chr(draw.choice([draw.randrange(0x20, 0x250), draw.randrange(0x4E00, 0x4E70),
                                              draw.randrange(0x3040, 0x30A0), draw.randrange(0xFF01, 0xFFF0)])))
            if draw.random() < 0.5:
                parts.append(" ")
        yield "".join(parts)


def damage(draw, text):
    """Malformed UTF-8 now and then: bytes cut out, put in, changed."""
    data = bytearray(text.encode())
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(data) + 1)
        if draw.random() < 0.5:
            data[at:at] = bytes([draw.choice([0x80, 0xBF, 0xC0, 0xC3, 0xE4, 0xED, 0xF0, 0xF5, 0xFF])])
        else:
            del data[at:at + 1]
    return bytes(data)


def train(lines, **options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="unigram", pad_id=0, eos_id=1, bos_id=2, unk_id=3,
        user_defined_symbols=SYMBOLS, minloglevel=2, num_threads=1, **options)
    return model.getvalue()


def pack(out, name, texts, ids):
    out[f"{name}.texts"] = np.frombuffer(b"".join(texts), np.uint8)
    out[f"{name}.text_bytes"] = np.array([len(t) for t in texts], np.int32)
    out[f"{name}.ids"] = np.array([i for one in ids for i in one], np.int16)
    out[f"{name}.id_count"] = np.array([len(one) for one in ids], np.int32)


def clean(text):
    """whitespace_clean(basic_clean(text)) of the original."""
    text = ftfy.fix_text(text, fix_encoding=False)
    text = html.unescape(html.unescape(text)).strip()
    return re.sub(r"\s+", " ", text).strip()


def original_tokenizer(processor):
    pieces = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.get_piece_size())]
    extra = [f"<extra_id_{i}>" for i in range(299, -1, -1)]
    tokenizer = Tokenizer(models.Unigram(pieces + [(e, 0.0) for e in extra], unk_id=3, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ["<pad>", "</s>", "<s>", "<unk>"] + extra])
    tokenizer.add_tokens([AddedToken(s, normalized=False) for s in SYMBOLS])
    return tokenizer


if __name__ == "__main__":
    draw = random.Random(20260703)
    lines = corpus(draw)
    outputs = {}
    trained = {
        "umt5": train(lines, vocab_size=840, normalization_rule_name="identity", byte_fallback=True),
        "nfkc": train(lines, vocab_size=840, normalization_rule_name="nmt_nfkc", byte_fallback=True),
        "plain": train(lines, vocab_size=560, normalization_rule_name="identity", byte_fallback=False,
                       add_dummy_prefix=False, remove_extra_whitespaces=False),
    }
    for name, model in trained.items():
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        texts = [t.encode() if draw.random() < 0.9 else damage(draw, t) for t in strings(draw, lines, COUNT)]
        outputs[f"{name}.model"] = np.frombuffer(model, np.uint8)
        pack(outputs, name, texts, [processor.encode(t, add_eos=True) for t in texts])
        print(name, len(model), "bytes", processor.get_piece_size(), "pieces", sum(map(len, texts)), "bytes of text")
    processor = sentencepiece.SentencePieceProcessor(model_proto=trained["umt5"])
    tokenizer = original_tokenizer(processor)
    prompts = list(strings(draw, lines, COUNT)) + [" ".join(draw.choice(lines) for _ in range(40)) for _ in range(3)]
    cleaned = [clean(t) for t in prompts]
    pack(outputs, "wan", [t.encode() for t in prompts], [tokenizer.encode(t).ids[:511] + [1] for t in cleaned])
    outputs["clean.texts"] = np.frombuffer("".join(cleaned).encode(), np.uint8)
    outputs["clean.text_bytes"] = np.array([len(t.encode()) for t in cleaned], np.int32)
    save_file(outputs, pathlib.Path(__file__).parent / "tokenizer.safetensors")
