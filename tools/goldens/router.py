"""Models whose choice of experts does not depend on rounding."""

import torch

# Between the last chosen and the first refused expert. A smaller gap could close by rounding.
SMALLEST_ROUTER_GAP = 0.02
MOST_SEEDS = 5000


@torch.no_grad()
def router_gap(model, tokens: torch.Tensor, run) -> float | None:
    """Smallest distance of a last chosen and a first refused router logit; None without experts."""
    gaps, hooks = [], []

    def note(module, inputs, output):
        top = output.topk(module.chosen + 1, dim=-1).values
        gaps.append((top[..., -2] - top[..., -1]).min().item())

    for layer in model.model.layers:
        if getattr(layer, "router", None) is not None:
            layer.router.proj.chosen = model.config.top_k_experts
            hooks.append(layer.router.proj.register_forward_hook(note))
    run(model, tokens)
    for hook in hooks:
        hook.remove()
    return min(gaps) if gaps else None


def first_apart(build, run, seed: int):
    """Model, tokens and gap of the first seed from `seed` on with gaps above the smallest one."""
    for offset in range(MOST_SEEDS):
        model, tokens = build(seed + 1_000 * offset)
        gap = router_gap(model, tokens, run)
        if gap is None or gap >= SMALLEST_ROUTER_GAP:
            return model, tokens, gap
    raise RuntimeError(f"no seed from {seed} on has router gaps of {SMALLEST_ROUTER_GAP}")
