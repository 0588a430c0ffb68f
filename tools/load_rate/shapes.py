"""The published shapes of Gemma 4, and small ones for tests."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: tuple  # of sliding and of full layers
    vocabulary: int = 262144
    head_dims: tuple = (256, 512)
    window: int = 1024
    context: int = 262144
    period: int = 6  # Every layer at a multiple of it has full attention.
    k_eq_v: bool = True  # Full layers have no matrix of values.
    shared: int = 0  # The last layers use other layers' keys and values.
    double_wide: bool = False  # Their MLP is twice as wide.
    per_layer: int = 0  # elements of the vector that every layer gets for a token
    experts: int = 0
    used_experts: int = 0
    expert_ffn: int = 0

    def is_full(self, layer):
        return layer % self.period == self.period - 1

    def shares(self, layer):
        return layer >= self.layers - self.shared

    def ffn_of(self, layer):
        return self.ffn * (2 if self.double_wide and self.shares(layer) else 1)


EFFECTIVE = {"heads": 8, "window": 512, "context": 131072, "k_eq_v": False, "per_layer": 256}
SHAPES = {
    "31b": Shape(5376, 21504, 60, 32, (16, 4)),
    "12b": Shape(3840, 15360, 48, 16, (8, 1)),
    "26b-a4b": Shape(2816, 2112, 30, 16, (8, 2), experts=128, used_experts=8, expert_ffn=704),
    "e4b": Shape(2560, 10240, 42, kv_heads=(2, 2), shared=18, **EFFECTIVE),
    "e2b": Shape(
        1536, 6144, 35, kv_heads=(1, 1), shared=20, period=5, double_wide=True, **EFFECTIVE
    ),
    # For tests of the tools.
    "tiny": Shape(512, 1024, 6, 4, (2, 1), vocabulary=2048, window=64),
    "tiny-experts": Shape(
        512, 352, 6, 4, (2, 1), 2048, window=64, experts=16, used_experts=4, expert_ffn=160
    ),
    "tiny-effective": Shape(
        512, 1024, 6, kv_heads=(1, 1), vocabulary=2048, shared=3, period=3, **EFFECTIVE
    ),
}
