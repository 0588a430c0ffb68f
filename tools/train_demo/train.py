#!/usr/bin/env python3
"""Trains the demo model: a small Gemma 4 with the 31B model's kinds of layers.

    python3 train.py --corpus corpus --out demo

Writes a Hugging Face checkpoint in float32 and report.json with the losses. The checkpoint has
config.json, model.safetensors, tokenizer.json, tokenizer_config.json, generation_config.json and
chat_template.jinja. `gemma4-wgpu quantize` makes the embedded int4 model of it.

The last part of the training rounds weights as they will be stored: int4 in groups of 32, the
embedding in int8. It is kept if it lowers the held-out loss after rounding; the report has both
losses. Needs torch, transformers >= 5.17, tokenizers and a CUDA device with bfloat16. For tests
with --steps 4 it runs on a CPU too.
"""

import argparse
import copy
import json
import math
import os
import random
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from tokenizers import (  # noqa: E402
    AddedToken,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)
from torch.nn.utils import parametrize  # noqa: E402
from transformers import Gemma4ForCausalLM, Gemma4TextConfig  # noqa: E402

SEED = 31
VOCABULARY = 4096
CONTROL = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<|turn>",
    "<turn|>",
    "<|think|>",
    "<|channel>",
    "<channel|>",
    "<|tool>",
    "<tool|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    '<|"|>',
]
PAD, EOS, BOS, END_OF_TURN, TOOL_RESPONSE = 0, 1, 2, 5, 13
SLIDING, FULL = "sliding_attention", "full_attention"

# 10.7 M weights in the layers and 1.3 M in the embedding: 7.4 MB in int4 and int8.
CONFIG = {
    "vocab_size": VOCABULARY,
    "hidden_size": 320,
    "intermediate_size": 1280,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "global_head_dim": 512,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "sliding_window": 256,
    "layer_types": [SLIDING] * 5 + [FULL],
    "final_logit_softcapping": 30.0,
    "max_position_embeddings": 2048,
    "hidden_size_per_layer_input": 0,
    "tie_word_embeddings": True,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": [EOS, END_OF_TURN, TOOL_RESPONSE],
    "rope_parameters": {
        SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
        FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
    },
}

# The built-in Gemma 4 template without the empty thought channel, which only large models need.
TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- set role = 'model' if message.role == 'assistant' else message.role -%}
    {{- '<|turn>' ~ role ~ '\\n' ~ message.content | trim ~ '<turn|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|turn>model\\n' -}}
{%- endif -%}
"""


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def train_tokenizer(documents: list[dict]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    control = [AddedToken(text, special=True, normalized=False) for text in CONTROL]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=control,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([document["text"] for document in documents], trainer)
    if tokenizer.get_vocab_size() != VOCABULARY or tokenizer.token_to_id("<turn|>") != END_OF_TURN:
        raise RuntimeError(f"a vocabulary of {tokenizer.get_vocab_size()}")
    return tokenizer


class Data:
    """Sequences of tokens drawn from documents and conversations."""

    def __init__(self, corpus: Path, tokenizer: Tokenizer, length: int, documents: int | None):
        self.rng = random.Random(SEED)
        self.length = length
        self.documents = [
            [BOS, *ids] for ids in self.encode(tokenizer, read(corpus / "train.jsonl"), "text")
        ]
        turns = read(corpus / "turns.jsonl")
        for turn in turns:
            turn["all"] = (
                f"<|turn>user\n{turn['user']}<turn|>\n<|turn>model\n{turn['model']}<turn|>\n"
            )
        self.turns = [[BOS, *ids] for ids in self.encode(tokenizer, turns, "all")]
        self.stream = torch.tensor([token for document in self.documents for token in document])
        self.held_out = self.encode(tokenizer, read(corpus / "heldout.jsonl")[:documents], "text")
        self.excerpt = [BOS, *tokenizer.encode((corpus / "heldout.txt").read_text()).ids]
        if len(self.excerpt) > CONFIG["max_position_embeddings"]:
            raise RuntimeError(f"the excerpt has {len(self.excerpt)} tokens")

    @staticmethod
    def encode(tokenizer: Tokenizer, items: list[dict], key: str) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch([item[key] for item in items])]

    def text(self) -> torch.Tensor:
        start = self.rng.randrange(len(self.stream) - self.length)
        sequence = self.stream[start : start + self.length].clone()
        sequence[0] = BOS
        return sequence

    def conversation(self) -> torch.Tensor:
        tokens: list[int] = []
        while len(tokens) < self.length:
            tokens += self.rng.choice(self.turns)
        return torch.tensor(tokens[: self.length])

    def batch(self, size: int, conversations: int) -> torch.Tensor:
        return torch.stack(
            [self.conversation() if i < conversations else self.text() for i in range(size)]
        )


def loss_of(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten()
    )


@torch.no_grad()
def perplexities(model, data: Data, device: str) -> dict:
    """Of all held-out text, in float32 and windows of 2048, and of the excerpt in one context."""
    model.eval()
    total, count = 0.0, 0
    for document in data.held_out:
        for start in range(0, len(document), data.length - 1):
            tokens = torch.tensor(
                [[BOS, *document[start : start + data.length - 1]]], device=device
            )
            total += loss_of(model(input_ids=tokens).logits, tokens).item() * (tokens.shape[1] - 1)
            count += tokens.shape[1] - 1
    tokens = torch.tensor([data.excerpt], device=device)
    excerpt = loss_of(model(input_ids=tokens).logits, tokens).item()
    model.train()
    return {
        "heldout_tokens": count,
        "heldout": math.exp(total / count),
        "excerpt_tokens": tokens.shape[1] - 1,
        "excerpt": math.exp(excerpt),
    }


def round_int4(weight: torch.Tensor) -> torch.Tensor:
    """What int4 in groups of 32 keeps: the scheme of `src/quant/round.rs`."""
    groups = weight.float().unflatten(-1, (-1, 32))
    extreme = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    scale = (extreme / -8).half().float()
    q = torch.where(scale == 0, torch.zeros_like(groups), (groups / scale).add(0.5).floor()).clamp(
        -8, 7
    )
    return (q * scale).flatten(-2)


def round_int8(weight: torch.Tensor) -> torch.Tensor:
    groups = weight.float().unflatten(-1, (-1, 32))
    scale = (groups.abs().amax(-1, keepdim=True) / 127).half().float()
    q = torch.where(scale == 0, torch.zeros_like(groups), (groups / scale).add(0.5).floor()).clamp(
        -127, 127
    )
    return (q * scale).flatten(-2)


class Rounded(torch.nn.Module):
    """A weight as it will be stored; gradients pass as if it were not rounded."""

    def __init__(self, rounding):
        super().__init__()
        self.rounding = rounding

    def forward(self, weight):
        return weight + (self.rounding(weight) - weight).detach()


def matrices(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not model.lm_head:
            yield module, round_int4
    yield model.model.embed_tokens, round_int8


def rounded_copy(model):
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for module, rounding in matrices(copied):
            module.weight.copy_(rounding(module.weight))
    return copied


def add_dropout(model, probability: float):
    """On the outputs of attention and MLP: the texts are seen some thirty times."""

    def dropout(module, output):
        return torch.nn.functional.dropout(output, probability, module.training)

    for layer in model.model.layers:
        layer.mlp.register_forward_hook(lambda module, _, out: dropout(module, out))
        layer.self_attn.register_forward_hook(
            lambda module, _, out: (dropout(module, out[0]), *out[1:])
        )


def train(model, data: Data, args, steps: int, seconds: float, peak: float, warmup: int, log: list):
    """AdamW with a cosine schedule over `steps`, or over `seconds` if these are over sooner."""
    decay = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95), fused=args.device == "cuda")
    start = time.time()
    for step in range(steps):
        progress = max(step / steps, (time.time() - start) / seconds)
        if progress >= 1:
            break
        rate = (
            peak
            * min(1.0, (step + 1) / warmup)
            * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        tokens = data.batch(args.batch, args.conversations).to(args.device, non_blocking=True)
        with torch.autocast(args.device, dtype=torch.bfloat16):
            logits = model(input_ids=tokens, use_cache=False).logits
        loss = loss_of(logits, tokens)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 200 == 199 or step == steps - 1:
            line = {
                "step": step + 1,
                "loss": round(loss.item(), 4),
                "seconds": round(time.time() - start, 1),
            }
            if step % 1000 == 999:
                line |= perplexities(model, data, args.device)
            log.append(line)
            print(json.dumps(line), flush=True)


def save(model, tokenizer: Tokenizer, out: Path):
    model.float().save_pretrained(out)
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    (out / "chat_template.jinja").write_text(TEMPLATE)
    (out / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<bos>",
                "eos_token": "<eos>",
                "pad_token": "<pad>",
                "unk_token": "<unk>",
                "add_bos_token": True,
                "clean_up_tokenization_spaces": False,
            },
            indent=2,
        )
        + "\n"
    )
    (out / "generation_config.json").write_text(
        json.dumps(
            {
                "bos_token_id": BOS,
                "eos_token_id": CONFIG["eos_token_id"],
                "pad_token_id": PAD,
                "do_sample": True,
                "temperature": 0.7,
                "top_k": 64,
                "top_p": 0.95,
            },
            indent=2,
        )
        + "\n"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1860, help="steps with plain weights")
    parser.add_argument("--rounded-steps", type=int, default=320, help="steps with rounded weights")
    parser.add_argument(
        "--seconds",
        type=float,
        default=3600,
        help="end the first part sooner; the second gets a fifth",
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--conversations", type=int, default=4, help="of the batch")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--heldout-documents", type=int, help="measure only so many, for tests")
    parser.add_argument("--dropout", type=float, default=0.1)
    args = parser.parse_args()
    args.device = "cuda" if torch.cuda.is_available() else "cpu"

    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    tokenizer = train_tokenizer(read(args.corpus / "train.jsonl"))
    data = Data(args.corpus, tokenizer, args.length, args.heldout_documents)
    sizes = {
        "text_tokens": len(data.stream),
        "turn_tokens": sum(map(len, data.turns)),
        "excerpt_tokens": len(data.excerpt),
    }
    config = Gemma4TextConfig(**copy.deepcopy(CONFIG))
    model = Gemma4ForCausalLM._from_config(
        config, attn_implementation="sdpa", dtype=torch.float32
    ).to(args.device)
    sizes["parameters"] = sum(p.numel() for p in model.parameters())
    print(json.dumps(sizes), flush=True)
    add_dropout(model, args.dropout)
    model.train()

    log: list = []
    train(model, data, args, args.steps, args.seconds, 2e-3, 200, log)
    report = {
        "versions": {"torch": torch.__version__},
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "sizes": sizes,
        "arguments": {k: str(v) for k, v in vars(args).items()},
    }
    torch.set_float32_matmul_precision("highest")
    report["plain"] = {
        "float32": perplexities(model, data, args.device),
        "rounded": perplexities(rounded_copy(model), data, args.device),
    }
    torch.set_float32_matmul_precision("high")
    print(json.dumps(report["plain"]), flush=True)
    plain = copy.deepcopy(model.state_dict())

    for module, rounding in matrices(model):
        parametrize.register_parametrization(module, "weight", Rounded(rounding), unsafe=True)
    # The tied head must use the same rounded weights.
    model.lm_head.forward = lambda x: torch.nn.functional.linear(x, model.model.embed_tokens.weight)
    train(model, data, args, args.rounded_steps, args.seconds / 5, 3e-4, 50, log)
    for module, _ in list(matrices(model)):
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
    model.tie_weights()
    torch.set_float32_matmul_precision("highest")
    report["aware"] = {
        "float32": perplexities(model, data, args.device),
        "rounded": perplexities(rounded_copy(model), data, args.device),
    }
    print(json.dumps(report["aware"]), flush=True)
    better = min(("plain", "aware"), key=lambda kind: report[kind]["rounded"]["heldout"])
    if better == "plain":
        model.load_state_dict(plain)
    report |= {"kept": better, "log": log}
    save(model, tokenizer, args.out)
    (args.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"kept {better}")


if __name__ == "__main__":
    main()
