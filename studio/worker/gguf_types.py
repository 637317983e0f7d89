"""The quantization type of each tensor of a GGUF file: f16 and q8_0 throughout, and llama.cpp's mixes of K-quants.

The mixes follow llama.cpp's llama_tensor_get_type (src/llama-quant.cpp): more bits for the head, for values, and for
feed-forward outputs in the first and last eighth of the layers and every third between.
"""

from __future__ import annotations

import re

import gguf

T, F = gguf.GGMLQuantizationType, gguf.LlamaFileType
KINDS = {
    "f16": (T.F16, F.MOSTLY_F16),
    "f32": (T.F32, F.ALL_F32),
    "q8_0": (T.Q8_0, F.MOSTLY_Q8_0),
    "q4_k_m": (T.Q4_K, F.MOSTLY_Q4_K_M),
    "q5_k_m": (T.Q5_K, F.MOSTLY_Q5_K_M),
    "q6_k": (T.Q6_K, F.MOSTLY_Q6_K),
}
FALLBACK = {T.Q4_K: T.Q5_0, T.Q5_K: T.Q5_1, T.Q6_K: T.Q8_0}  # where a row does not fill blocks of 256
BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.weight")


class Mix:
    """kind: one of KINDS. tied: the embedding is the head."""

    def __init__(self, kind: str, layers: int, tied: bool):
        self.kind, self.layers, self.tied = kind, layers, tied

    def of(self, name: str, width: int) -> gguf.GGMLQuantizationType:
        """The type of a matrix, given its GGUF name and the length of its rows."""
        quant_type = self._preferred(name)
        if width % gguf.GGML_QUANT_SIZES[quant_type][0]:
            quant_type = FALLBACK.get(quant_type, T.F16)
        return quant_type if width % gguf.GGML_QUANT_SIZES[quant_type][0] == 0 else T.F16

    def _preferred(self, name: str) -> gguf.GGMLQuantizationType:
        default = KINDS[self.kind][0]
        if self.kind not in ("q4_k_m", "q5_k_m"):
            return default
        if name == "output.weight" or (self.tied and name == "token_embd.weight"):
            return T.Q6_K
        block = BLOCK.fullmatch(name)
        if block and block[2] in ("attn_v", "ffn_down") and self._use_more_bits(int(block[1])):
            return T.Q6_K
        if block and block[2] == "attn_qkv":
            return T.Q5_K if self.kind == "q4_k_m" else T.Q6_K
        return default

    def _use_more_bits(self, layer: int) -> bool:
        eighth = self.layers // 8
        return layer < eighth or layer >= 7 * self.layers // 8 or (layer - eighth) % 3 == 2
