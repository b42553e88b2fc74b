"""Trains the demo model on what prepare.ts wrote, and writes its weights as float32 for export.ts.

A decoder of the llama architecture: RMS norm, interleaved rotary positions (what llama.cpp calls NORM), SwiGLU, tied
embeddings. Hidden matrices learn by Muon (orthogonalised momentum), embeddings and norms by AdamW. Beside the next
token it learns that paraphrases have close embeddings (means of hidden states). Processes of one
thread each learn together, since threads of one process wait for each other more than they work. Fixed seed: with the
same --steps and --processes the same machine writes the same weights. Needs PyTorch 1.13 or newer and NumPy.
"""

import argparse
import ctypes
import json
import multiprocessing
import os
import sys
import time
import warnings

os.environ["OPENBLAS_NUM_THREADS"] = "1"
if sys.platform == "linux":
    # Keep freed memory in the process: fresh pages for every large tensor cost up to a third of the time.
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(-4, 0)  # M_MMAP_MAX
    libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

DIM, LAYERS, HEADS, FFN = 192, 5, 6, 512
HEAD = DIM // HEADS
ROPE_BASE = 10000.0
EPSILON = 1e-5
ROW_LENGTHS = (128, 256, 512)
TOKENS_PER_STEP = 4096
# Tokens of one forward and backward pass: what stays in the cache of a core.
TOKENS_AT_ONCE = 2048
# How much a token counts that the model only reads: at first enough to learn the language, then next to nothing, since
# most of what it still gets wrong there (made-up words) cannot be known.
READ_WEIGHT_EARLY, READ_WEIGHT_LATE, EARLY_SHARE = 0.15, 0.02, 0.3
PADDING = 255
# Embeddings: every fourth step, 24 pairs of up to 24 tokens, with this weight and temperature.
PAIRS_EVERY, PAIRS_AT_ONCE, PAIR_LENGTH, PAIR_WEIGHT, PAIR_TEMPERATURE = 4, 24, 24, 0.1, 0.1
MUON_RATE, ADAM_RATE, WEIGHT_DECAY = 0.02, 0.004, 0.05
WARM_UP_STEPS, DECAY_SHARE = 30, 0.7


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn_norm = nn.Parameter(torch.ones(DIM))
        self.ffn_norm = nn.Parameter(torch.ones(DIM))
        self.q, self.k, self.v, self.o = (nn.Linear(DIM, DIM, bias=False) for _ in range(4))
        self.gate = nn.Linear(DIM, FFN, bias=False)
        self.up = nn.Linear(DIM, FFN, bias=False)
        self.down = nn.Linear(FFN, DIM, bias=False)
        nn.init.zeros_(self.o.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, x, rope, mask):
        batch, length, _ = x.shape
        h = rms(x, self.attn_norm)
        q, k, v = (part(h).view(batch, length, HEADS, HEAD).transpose(1, 2) for part in (self.q, self.k, self.v))
        scores = ((rotate(q, rope) * HEAD**-0.5) @ rotate(k, rope).transpose(-2, -1)).add_(mask)
        x = x + self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, DIM))
        h = rms(x, self.ffn_norm)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Model(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, DIM)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.Parameter(torch.ones(DIM))

    def hidden(self, tokens, mask):
        rope = rope_table(tokens.shape[1])
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, rope, mask)
        return rms(x, self.norm)

    def forward(self, tokens, mask):
        return self.hidden(tokens, mask) @ self.embedding.weight.t()


def rms(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * weight


def rope_table(length):
    frequencies = ROPE_BASE ** (-torch.arange(0, HEAD, 2).float() / HEAD)
    angles = torch.arange(length).float()[:, None] * frequencies[None, :]
    return angles.cos(), angles.sin()


def rotate(x, rope):
    """Turns the pairs (0, 1), (2, 3), ... of each head: llama.cpp reads them interleaved for this architecture."""
    cos, sin = rope
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def document_mask(documents):
    """0 where a token may look (its own text, not ahead), minus infinity elsewhere."""
    length = documents.shape[1]
    same = documents[:, :, None] == documents[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return torch.zeros(same.shape).masked_fill_(~(same & causal), float("-inf"))[:, None]


class Muon:
    """Momentum whose update is made orthogonal by five Newton-Schulz steps (Keller Jordan, 2024)."""

    def __init__(self, parameters, momentum=0.95):
        self.parameters, self.momentum = list(parameters), momentum
        self.buffers = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, rate):
        for parameter, buffer in zip(self.parameters, self.buffers):
            buffer.mul_(self.momentum).add_(parameter.grad)
            update = orthogonal(parameter.grad.add(buffer, alpha=self.momentum))
            scale = max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
            parameter.mul_(1 - rate * WEIGHT_DECAY).add_(update, alpha=-rate * scale)


def orthogonal(gradient):
    a, b, c = 3.4445, -4.7750, 2.0315
    is_tall = gradient.shape[0] > gradient.shape[1]
    x = gradient.t() if is_tall else gradient
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        s = x @ x.t()
        x = a * x + (b * s + c * s @ s) @ x
    return x.t() if is_tall else x


class Team:
    """Processes that share one model: each learns from rows of its own and moves its own share of the parameters."""

    def __init__(self, model, size):
        self.size, self.rank = size, 0
        self.parameters = list(model.share_memory().parameters())
        self.gradients = [[torch.zeros_like(p).share_memory_() for p in self.parameters] for _ in range(size)]
        # A process that died must not leave the others waiting for ever.
        self.barrier = multiprocessing.get_context("fork").Barrier(size, timeout=600)

    def own(self, parameters):
        return parameters[self.rank :: self.size]

    @torch.no_grad()
    def gather(self, parameters):
        """Sets the gradients of `parameters` to the mean over all processes, added in a fixed order."""
        for parameter, shared in zip(self.parameters, self.gradients[self.rank]):
            shared.copy_(parameter.grad)
        self.barrier.wait()
        for index, parameter in enumerate(self.parameters):
            if any(parameter is own for own in parameters):
                parameter.grad.copy_(sum(gradients[index] for gradients in self.gradients) / self.size)


def read(work, name, kind):
    return torch.from_numpy(np.fromfile(os.path.join(work, name), dtype=kind).astype(np.int64))


class Rows:
    """Rows of one length, handed out in a random order that starts again when they are used up."""

    def __init__(self, work, length, team):
        self.length, self.count = length, TOKENS_PER_STEP // team.size // length
        part = slice(team.rank, None, team.size)
        self.tokens = read(work, f"tokens-{length}", np.uint16).view(-1, length)[part]
        self.weights = read(work, f"weights-{length}", np.uint8).view(-1, length)[part]
        self.documents = read(work, f"documents-{length}", np.uint8).view(-1, length)[part]
        self.order = []

    def next(self, generator):
        while len(self.order) < self.count:
            self.order.extend(generator.permutation(len(self.tokens)).tolist())
        rows = [self.order.pop() for _ in range(self.count)]
        return self.tokens[rows], self.weights[rows], self.documents[rows]


def learn_text(model, rows, generator, read_weight):
    """Adds the gradients of one step of text; answers the loss of what the assistant says."""
    tokens, weights, documents = rows.next(generator)
    spoken = weights[:, 1:].sum().clamp(min=1).item()
    part = max(1, TOKENS_AT_ONCE // rows.length)
    total = 0.0
    for at in range(0, len(tokens), part):
        x, w, d = tokens[at : at + part], weights[at : at + part], documents[at : at + part]
        logits = model(x[:, :-1], document_mask(d[:, :-1]))
        # A target counts when it is in the same text as the token before it.
        inside = (d[:, 1:] == d[:, :-1]) & (d[:, 1:] != PADDING)
        weight = torch.where(w[:, 1:] == 1, 1.0, read_weight) * inside
        losses = F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="none")
        ((losses * weight.flatten()).sum() / spoken).backward()
        total += (losses.detach() * (w[:, 1:] * inside).flatten()).sum().item()
    return total / spoken


def learn_pairs(model, pairs, meanings, generator):
    """Adds the gradients of one batch of paraphrases: each side must find its other side among the others."""
    chosen = generator.choice(len(pairs), PAIRS_AT_ONCE, replace=False)
    tokens, meaning = pairs[chosen].transpose(0, 1).flatten(0, 1), meanings[chosen]
    real = (tokens != 0).float()[:, :, None]
    hidden = model.hidden(tokens, document_mask(torch.zeros_like(tokens)))
    vectors = F.normalize((hidden * real).sum(1) / real.sum(1).clamp(min=1), dim=-1)
    left, right = vectors[:PAIRS_AT_ONCE], vectors[PAIRS_AT_ONCE:]
    same = (meaning[:, None] == meaning[None, :]) & ~torch.eye(PAIRS_AT_ONCE, dtype=torch.bool)
    scores = (left @ right.t() / PAIR_TEMPERATURE).masked_fill(same, -1e4)
    target = torch.arange(PAIRS_AT_ONCE)
    loss = F.cross_entropy(scores, target) + F.cross_entropy(scores.t(), target)
    (loss * PAIR_WEIGHT / 2).backward()
    return loss.item() / 2


def named_tensors(model):
    """The tensors by the names that GGUF has for them."""
    tensors = {"token_embd.weight": model.embedding.weight, "output_norm.weight": model.norm}
    for index, block in enumerate(model.blocks):
        for name, tensor in {
            "attn_norm": block.attn_norm,
            "ffn_norm": block.ffn_norm,
            "attn_q": block.q.weight,
            "attn_k": block.k.weight,
            "attn_v": block.v.weight,
            "attn_output": block.o.weight,
            "ffn_gate": block.gate.weight,
            "ffn_up": block.up.weight,
            "ffn_down": block.down.weight,
        }.items():
            tensors[f"blk.{index}.{name}.weight"] = tensor
    return tensors


def load(model, directory):
    """Sets the weights to those that an earlier run saved."""
    with open(os.path.join(directory, "weights.json")) as file:
        shapes = json.load(file)["tensors"]
    tensors = named_tensors(model)
    if {name: list(tensor.shape) for name, tensor in tensors.items()} != shapes:
        raise SystemExit(f"the weights in {directory} are of a model of another shape")
    numbers = torch.from_numpy(np.fromfile(os.path.join(directory, "weights.f32"), dtype=np.float32))
    with torch.no_grad():
        for tensor, part in zip(tensors.values(), numbers.split([tensor.numel() for tensor in tensors.values()])):
            tensor.copy_(part.view_as(tensor))


def save(model, directory):
    """The tensors as one float32 file, and their names and shapes, in its order, in weights.json."""
    tensors = named_tensors(model)
    shape = {"dim": DIM, "layers": LAYERS, "heads": HEADS, "ffn": FFN, "ropeBase": ROPE_BASE, "epsilon": EPSILON}
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    # A reader between the two files sees the old weights or the new ones, never half of them.
    path = os.path.join(directory, "weights.f32")
    with open(path + ".new", "wb") as file:
        for tensor in tensors.values():
            file.write(tensor.detach().numpy().astype(np.float32).tobytes())
    with open(os.path.join(directory, "weights.json"), "w") as file:
        json.dump({"model": shape, "tensors": shapes}, file)
    os.replace(path + ".new", path)


def train(model, options, team):
    # The lengths are drawn by one generator for all, so that the processes have the same amount of work.
    lengths, generator = np.random.default_rng(options.seed), np.random.default_rng([options.seed, team.rank])
    sets = [Rows(options.work, length, team) for length in ROW_LENGTHS]
    shares = np.array([float(rows.tokens.numel()) for rows in sets])
    pairs = read(options.work, f"pairs-{PAIR_LENGTH}", np.uint16).view(-1, 2, PAIR_LENGTH)
    meanings = read(options.work, "meanings", np.uint16)
    matrices = [p for block in model.blocks for p in block.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    matrices, others = team.own(matrices), team.own(others)
    muon = Muon(matrices)
    adam = torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    log = Log(options.steps)
    for step in range(options.steps):
        model.zero_grad(set_to_none=True)
        rows = sets[lengths.choice(len(sets), p=shares / shares.sum())]
        is_early = step < EARLY_SHARE * options.steps and options.start is None
        log.text(learn_text(model, rows, generator, READ_WEIGHT_EARLY if is_early else READ_WEIGHT_LATE))
        if step % PAIRS_EVERY == 0:
            log.pairs(learn_pairs(model, pairs, meanings, generator))
        team.gather(matrices + others)
        left = (options.steps - step) / (DECAY_SHARE * options.steps)
        ramp = min(1.0, (step + 1) / WARM_UP_STEPS) * min(1.0, left) * options.rate
        muon.step(MUON_RATE * ramp)
        adam.param_groups[0]["lr"] = ADAM_RATE * ramp
        adam.step()
        team.barrier.wait()
        if team.rank == 0:
            log.show(step + 1)
            # The others cannot move a parameter before this process has its next gradients.
            if (step + 1) % 100 == 0 or step + 1 == options.steps:
                save(model, options.work)


class Log:
    """Smoothed losses, and a line about them every ten steps."""

    def __init__(self, steps):
        self.steps, self.started, self.text_loss, self.pair_loss = steps, time.time(), None, None

    def text(self, loss):
        self.text_loss = loss if self.text_loss is None else 0.95 * self.text_loss + 0.05 * loss

    def pairs(self, loss):
        self.pair_loss = loss if self.pair_loss is None else 0.9 * self.pair_loss + 0.1 * loss

    def show(self, step):
        if step % 10 != 0 and step != self.steps:
            return
        seconds = time.time() - self.started
        print(
            f"step {step}/{self.steps} loss {self.text_loss:.3f} paraphrases {self.pair_loss:.3f} "
            f"{TOKENS_PER_STEP * step / seconds:.0f} tokens/s {seconds / step * (self.steps - step):.0f} s left",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, help="folder that prepare.ts wrote to")
    parser.add_argument("--steps", type=int, default=1900, help=f"steps of {TOKENS_PER_STEP} tokens")
    parser.add_argument("--processes", type=int, default=2, help="processes that learn together, one core each")
    parser.add_argument("--start", help="folder of an earlier run to go on from, with the same vocabulary")
    parser.add_argument("--rate", type=float, default=1.0, help="share of the usual learning rate, to go on gently")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    # Numbers too small to matter cost a hundred times as much as others.
    torch.set_flush_denormal(True)
    warnings.filterwarnings("ignore", message="The value of the smallest subnormal")
    with open(os.path.join(options.work, "vocabulary.json")) as file:
        vocabulary_size = len(json.load(file)["tokens"])
    model = Model(vocabulary_size)
    if options.start is not None:
        load(model, options.start)
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    team = Team(model, options.processes)
    helpers = []
    for rank in range(1, options.processes):
        team.rank = rank
        helper = multiprocessing.get_context("fork").Process(target=train, args=(model, options, team), daemon=True)
        helper.start()
        helpers.append(helper)
    team.rank = 0
    train(model, options, team)
    for helper in helpers:
        helper.join()


if __name__ == "__main__":
    main()
