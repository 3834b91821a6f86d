"""A writer of CTranslate2's flat model file, the inverse of the reader that it tests."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

_CODES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
Arrays = dict[str, np.ndarray]


def flat_bytes(arrays: Arrays, version: int = 6, spec: str = "WhisperSpec") -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    out = [struct.pack("<I", version), text(spec), struct.pack("<II", 3, len(arrays))]
    for name, array in arrays.items():
        shape = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        out += [text(name), shape, struct.pack("<BI", _CODES[array.dtype.name], array.nbytes), array.tobytes()]
    out += [struct.pack("<I", 1), text("decoder/projection/weight"), text("decoder/embeddings/weight")]
    return b"".join(out)


def flat_arrays(model: Any) -> Arrays:
    """A Hugging Face Whisper's weights under CTranslate2's names, attention fused as its converter does."""
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    out: Arrays = {"encoder/num_heads": np.array(model.config.encoder_attention_heads, dtype=np.int16)}

    def linear(target: str, *sources: str) -> None:
        out[f"{target}/weight"] = np.concatenate([state[f"{source}.weight"] for source in sources])
        width = state[f"{sources[0]}.weight"].shape[0]
        zero = np.zeros(width, np.float32)
        out[f"{target}/bias"] = np.concatenate([state.get(f"{source}.bias", zero) for source in sources])

    def norm(target: str, source: str) -> None:
        out[f"{target}/gamma"], out[f"{target}/beta"] = state[f"{source}.weight"], state[f"{source}.bias"]

    out["decoder/embeddings/weight"] = state["model.decoder.embed_tokens.weight"]
    for number in (1, 2):
        linear(f"encoder/conv{number}", f"model.encoder.conv{number}")
    for half, layers in (("encoder", model.config.encoder_layers), ("decoder", model.config.decoder_layers)):
        out[f"{half}/position_encodings/encodings"] = state[f"model.{half}.embed_positions.weight"]
        norm(f"{half}/layer_norm", f"model.{half}.layer_norm")
        for layer in range(layers):
            to, source = f"{half}/layer_{layer}", f"model.{half}.layers.{layer}"
            norm(f"{to}/self_attention/layer_norm", f"{source}.self_attn_layer_norm")
            linear(f"{to}/self_attention/linear_0", *(f"{source}.self_attn.{name}_proj" for name in "qkv"))
            linear(f"{to}/self_attention/linear_1", f"{source}.self_attn.out_proj")
            if half == "decoder":
                norm(f"{to}/attention/layer_norm", f"{source}.encoder_attn_layer_norm")
                linear(f"{to}/attention/linear_0", f"{source}.encoder_attn.q_proj")
                linear(f"{to}/attention/linear_1", *(f"{source}.encoder_attn.{name}_proj" for name in "kv"))
                linear(f"{to}/attention/linear_2", f"{source}.encoder_attn.out_proj")
            norm(f"{to}/ffn/layer_norm", f"{source}.final_layer_norm")
            linear(f"{to}/ffn/linear_0", f"{source}.fc1")
            linear(f"{to}/ffn/linear_1", f"{source}.fc2")
    return out
