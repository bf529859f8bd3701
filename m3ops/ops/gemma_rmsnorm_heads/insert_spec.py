"""QK norm, rotary embedding, and the insertion of k and v into a paged cache: a layer's attention before attention.

The row becomes what it does in :mod:`m3ops.ops.gemma_rmsnorm_heads.spec`. Its k and v heads, and index_k heads where an
indexer has a cache, are also written to the slot of their row:

    cache[slot // block_size, slot % block_size] = heads

A row whose slot is negative, or none that the cache has, is not inserted. Everything else in the caches stays. k and
index_k go there as they are in fp32, rounded once to the dtype of the cache; E4M3 holds ``k / k_scale`` and
``v / v_scale``, the quotient rounded to fp32 and then to E4M3, where too large a number becomes the largest and NaN
stays NaN.

Sources: ``slot_mapping``, ``-1`` for padding and ``x / scale`` with saturation as in vLLM's ``reshape_and_cache_flash``
and ``fused_minimax_m3_qknorm_rope_kv_insert``. On AMD GPUs the latter rounds to bfloat16 before it divides, on NVIDIA's
not: so does this op nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from m3ops import row_count, validate
from m3ops.array import ArraySpec
from m3ops.axes import Axes
from m3ops.numerics.exact import caches
from m3ops.numerics.formats import ACTIVATION_DTYPES
from m3ops.op import Array, Arrays, parameter
from m3ops.ops.gemma_rmsnorm_heads.spec import E4M3_DTYPES, GemmaRMSNormRopeHeads, check_scale, stored

CACHE = "Shape ``[num_blocks, block_size, num_heads_{0}, head_dim]``; bfloat16, float16, float32 or an E4M3 dtype."
SLOTS = (
    "For each row the slot that {0}: ``block * block_size + offset``, int32 or int64 of the leading axes of qkv. A "
    "negative slot inserts nothing. No slot may be named twice: which row it then gets is not defined on a GPU."
)
SCALE = (
    "What {0} is divided by for a cache of E4M3: float32 of one element, ``[1]``; None for 1, and for a cache of "
    "another dtype."
)


@dataclass(frozen=True)
class Destination:
    """One of the caches: the names of its operand, its result, its slots and its scale, if any, and its heads."""

    cache: str
    result: str
    slots: str
    scale: str
    heads: str


DESTINATIONS = (
    Destination("key_cache", "new_key_cache", "slot_mapping", "k_scale", "k"),
    Destination("value_cache", "new_value_cache", "slot_mapping", "v_scale", "v"),
    Destination("index_cache", "new_index_cache", "index_slot_mapping", "", "index_k"),
)


def destinations(operands: Collection[str]) -> Iterator[Destination]:
    """The caches of a call with these inputs."""
    return (to for to in DESTINATIONS if to.cache in operands)


@dataclass(frozen=True)
class GemmaRMSNormRopeKVInsert(GemmaRMSNormRopeHeads):
    """QK norm, rotary embedding and insertion into a paged cache in one launch: :func:`gemma_rmsnorm_rope_heads` of a
    packed qkv, whose k and v heads, and with ``index_cache`` index_k heads, also go to the slots of their rows.
    """

    name: ClassVar[str] = "gemma_rmsnorm_rope_kv_insert"
    any_size: ClassVar[bool] = False
    inputs: ClassVar[Mapping[str, str]] = {
        **{
            name: doc
            for name, doc in GemmaRMSNormRopeHeads.inputs.items()
            if name not in GemmaRMSNormRopeHeads.optional
        },
        "key_cache": CACHE.format("k"),
        "value_cache": f"{CACHE.format('v')} It has as many blocks and slots as key_cache.",
        "slot_mapping": SLOTS.format("its k and v heads go to"),
        **{name: doc for name, doc in GemmaRMSNormRopeHeads.inputs.items() if "index" in name},
        "index_cache": f"{CACHE.format('index_k')} In E4M3 it has no scale. None if the index_k heads go to no cache.",
        "index_slot_mapping": f"{SLOTS.format('its index_k heads go to in index_cache')} It is given with index_cache.",
        "k_scale": SCALE.format("k"),
        "v_scale": SCALE.format("v"),
        "q_scale": GemmaRMSNormRopeHeads.inputs["q_scale"],
    }
    optional: ClassVar[Collection[str]] = (
        *GemmaRMSNormRopeHeads.optional,
        "index_cache",
        "index_slot_mapping",
        "k_scale",
        "v_scale",
    )
    returns: ClassVar[str] = (
        "``(qkv, key_cache, value_cache)``, and index_cache if that is given: the row as ``gemma_rmsnorm_rope_heads`` "
        "returns it, followed by q with ``q_dtype``, and the caches with what was inserted."
    )
    result_type: ClassVar[str] = "tuple[{array}, ...]"
    value_error: ClassVar[str] = (
        "The shapes do not fit each other, or a slot is past the cache or named twice, which is seen of slots in the "
        "host's memory"
    )
    updates: ClassVar[Mapping[str, str]] = {to.cache: to.result for to in DESTINATIONS}
    inserts: ClassVar[bool] = True
    checked: ClassVar[Collection[str]] = ("slot_mapping", "index_slot_mapping")

    num_heads_v: int = parameter(4, "Number of v heads, at least 1.")

    def __post_init__(self) -> None:
        super().__post_init__()
        validate.count("num_heads_v", self.num_heads_v)

    @property
    def axes(self) -> Axes:
        cache = "b! s! h! H!"
        rows = "*r N!, *r? H!, *r? H!, p! d!, *r?"
        return Axes.of(
            f"{rows}, {cache}, {cache}, *r, *r? H!, *r? H!, {cache}, *r, o!, o!, o! "
            f"-> *r N!, *r q!, {cache}, {cache}, {cache}"
        )

    def axes_of(self, operands: Collection[str]) -> Axes:
        axes = super().axes_of(operands)
        return axes if "index_cache" in operands else Axes(axes.inputs, axes.results[:-1])

    def infer(  # type: ignore[override]
        self,
        qkv: ArraySpec,
        weight_q: ArraySpec,
        weight_k: ArraySpec,
        cos_sin: ArraySpec,
        positions: ArraySpec,
        weight_index_q: ArraySpec | None = None,
        weight_index_k: ArraySpec | None = None,
        q_scale: ArraySpec | None = None,
        **caches: ArraySpec,
    ) -> dict[str, ArraySpec]:
        results = super().infer(qkv, weight_q, weight_k, cos_sin, positions, weight_index_q, weight_index_k, q_scale)
        if "index_cache" in caches and weight_index_k is None:
            raise ValueError("index_cache must be None where there are no index heads")
        numbers = {kind: number for kind, number, _ in self.kinds(weight_q, weight_k, weight_index_q, weight_index_k)}
        for to in destinations(caches):
            _check_cache(to, caches, (numbers[to.heads], weight_q.shape[-1]), qkv.shape[:-1])
            results[to.result] = ArraySpec(caches[to.cache].shape, caches[to.cache].dtype)
        key, value = caches["key_cache"], caches["value_cache"]
        if key.shape[:2] != value.shape[:2]:
            raise ValueError(f"value_cache must have the blocks of key_cache, {key.shape[:2]}, got shape {value.shape}")
        if "index_slot_mapping" in caches and "index_cache" not in caches:
            raise ValueError("index_slot_mapping must be None where index_cache is")
        return results

    def compute(  # type: ignore[override]
        self,
        qkv: Array,
        weight_q: Array,
        weight_k: Array,
        cos_sin: Array,
        positions: Array,
        weight_index_q: Array | None = None,
        weight_index_k: Array | None = None,
        q_scale: Array | None = None,
        **operands: Array,
    ) -> Arrays:
        kinds = self.kinds(weight_q, weight_k, weight_index_q, weight_index_k)
        heads = self.heads(qkv, kinds, self.turn(cos_sin, positions))
        results = self.row_and_q(qkv, heads, q_scale)
        for to in destinations(operands):
            cache, scale = operands[to.cache], operands.get(to.scale)
            own = stored(heads[to.heads], cache.dtype.name, scale)
            results[to.result] = caches.insert(cache, own, operands[to.slots])
        return results

    def check_values(self, operands: Mapping[str, Array]) -> None:
        slots_of = self._slots(operands)
        for to in destinations(operands):
            slots, (blocks, size) = slots_of[to.slots].ravel(), operands[to.cache].shape[:2]
            if (wrong := slots[(slots >= blocks * size) | (slots < -(2**31))]).size:  # JAX may cut them to 32 bits
                raise ValueError(
                    f"{to.slots} must be below {blocks * size}, the slots of {to.cache}, and at least -2**31, "
                    f"got {wrong[0]}"
                )
            named, counts = np.unique(slots[slots >= 0], return_counts=True)
            if (twice := named[counts > 1]).size:
                raise ValueError(f"{to.slots} must name no slot twice, got {twice[0]} {counts.max()} times")

    def written(self, operands: Mapping[str, Array], results: Mapping[str, Array]) -> Arrays:
        masks, slots_of = super().written(operands, results), self._slots(operands)
        for to in destinations(operands):
            rows = caches.rows_of_slots(slots_of[to.slots], operands[to.cache].shape[:2])
            masks[to.result] = (rows >= 0)[..., None, None] & np.True_
        return masks

    def _counted(self, operands: Mapping[str, Array], compute: Callable[[Arrays], Arrays]) -> Arrays:
        return super()._counted({**operands, **self._slots(operands)}, compute)

    def _slots(self, operands: Mapping[str, Array]) -> Arrays:
        """The slots, negative for rows that do not count."""
        slots = {to.slots: operands[to.slots] for to in destinations(operands)}
        if row_count.NAME not in operands:
            return slots
        counted = row_count.rows_that_count(operands["qkv"].shape[:-1], operands[row_count.NAME])
        return {name: own.__array_namespace__().where(counted, own, own * 0 - 1) for name, own in slots.items()}


def _check_cache(to: Destination, caches: Mapping[str, ArraySpec], heads: tuple[int, int], rows: Any) -> None:
    """Validates one cache with its slots and its scale."""
    cache = caches[to.cache]
    validate.dtype(to.cache, cache, (*ACTIVATION_DTYPES, *E4M3_DTYPES))
    if len(cache.shape) != 4 or cache.shape[2:] != heads or 0 in cache.shape:
        raise ValueError(
            f"{to.cache} must have shape [num_blocks, block_size, {heads[0]}, {heads[1]}], got {cache.shape}"
        )
    if to.slots not in caches:
        raise ValueError(f"{to.slots} must be given with {to.cache}, got None")
    validate.dtype(to.slots, caches[to.slots], ("int32", "int64"))
    if caches[to.slots].shape != rows:
        raise ValueError(f"{to.slots} must have the leading axes of qkv, {rows}, got shape {caches[to.slots].shape}")
    scale = caches.get(to.scale)
    if scale is None:
        return
    check_scale(to.scale, scale)
    if cache.dtype not in E4M3_DTYPES:
        raise ValueError(f"{to.scale} must be None for a cache of {cache.dtype}: only E4M3 has a scale")
