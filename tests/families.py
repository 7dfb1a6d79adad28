"""A tiny model of any family of causal LMs that transformers has, with weights drawn anew."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY = 61
#: What a small model has, whatever its configuration calls it.
SMALL = {
    ("vocab_size",): VOCABULARY,
    ("hidden_size", "n_embd", "d_model"): 32,
    ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"): 2,
    ("encoder_layers", "num_encoder_layers", "num_decoder_layers"): 2,
    ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"): 4,
    ("encoder_attention_heads",): 4,
    ("num_key_value_heads",): 2,
    ("intermediate_size", "ffn_dim", "n_inner", "decoder_ffn_dim", "encoder_ffn_dim"): 48,
    ("head_dim",): 8,
    ("max_position_embeddings", "n_positions", "n_ctx"): 64,
    ("word_embed_proj_dim", "embedding_size"): 32,
    ("num_experts", "num_local_experts", "n_routed_experts"): 4,
    ("num_experts_per_tok",): 2,
    ("moe_intermediate_size",): 16,
    ("rotary_dim", "state_size"): 4,
    ("bos_token_id", "eos_token_id"): 0,
}
_LATENT = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_SSM = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1}
#: What a family needs besides.
ALSO = {
    "axk1": {"n_group": 1, "topk_group": 1} | _LATENT,
    "dots1": {"n_shared_experts": 1},
    "falcon": {"num_kv_heads": 4},
    "falcon_h1": {"mamba_d_ssm": 64} | _SSM,
    "gemma3n_text": {
        "num_hidden_layers": 5,
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 4,
        "layer_types": ["sliding_attention"] * 2
        + ["full_attention", "sliding_attention", "full_attention"],
        "activation_sparsity_pattern": None,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]} | _SSM,
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
    },
    "lfm2": {"full_attn_idxs": [1]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2, "state_size": 4, "n_groups": 1},
    "minimax": {"layer_types": ["full_attention", "linear_attention"], "block_size": 8},
    "qwen3_5_text": _LINEAR,
    "qwen3_next": _LINEAR,
    "reformer": {"axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16]},
} | dict.fromkeys(
    ("axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite")
    + ("glm_moe_dsa", "hy_v4", "longcat_flash", "minicpm3", "youtu"),
    _LATENT,
)


def build(family):
    """Return a small float32 model of ``family``, a ``model_type`` of transformers, on the CPU."""
    failure = None
    for left_out in ((), ("head_dim",), ("num_key_value_heads",), ("num_experts_per_tok",)):
        for padding in (None, 1):
            try:
                return _build(family, left_out, padding)
            except Exception as error:  # sizes that do not go together in this family
                failure = error
    raise failure


def _build(family, left_out, padding):
    default = AutoConfig.for_model(family)
    known = default.to_dict().keys() | default.attribute_map.keys()
    values = {
        name: value
        for names, value in SMALL.items()
        for name in names
        if name in known and name not in left_out
    }
    if "pad_token_id" in known:
        values["pad_token_id"] = padding
    if getattr(default, "sliding_window", None) is not None:
        values["sliding_window"] = 6
    if getattr(default, "is_decoder", None) is False:
        values["is_decoder"] = True
    if "mlp_layer_types" in known:
        values["mlp_layer_types"] = None
    config = AutoConfig.for_model(family, **values | ALSO.get(family, {}))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # wide enough for every token to depend on the whole sequence
                torch.nn.init.normal_(parameter, 0, 0.5)
        model(torch.ones(1, 9, dtype=torch.long))
    return model.requires_grad_(False)
