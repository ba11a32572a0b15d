"""Makes a tiny model for the engines: a folder for vLLM, and a GGUF file of the same weights for llama.cpp.

    make_model.py FOLDER

Nothing is downloaded. The tokenizer is a byte-level BPE, so that tokens may end within a character. The model is trained on
the few conversations of LESSONS until it repeats them, so that it calls tools and stops by itself.
"""
import json, pathlib, sys

import gguf
import numpy
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

CONTEXT = 2048
END, START, PADDING = "<|im_end|>", "<|im_start|>", "<|endoftext|>"
TEMPLATE = """{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content or '' }}{% for call in message.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson if call.function.arguments is mapping else call.function.arguments }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
TOOL = {"type": "function", "function": {"name": "weather", "description": "tells the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
LESSONS = [
    (None, "Count to nine.", "one, two, three, four, five, six, seven, eight, nine."),
    (None, "Say it with signs.", "Zażółć 🤖🚀, 你好 — नमस्ते!"),
    ([TOOL], "How is Oslo?", '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'),
    ([TOOL], "How is Łódź? 🚀", '<tool_call>\n{"name": "weather", "arguments": {"city": "Łódź 🚀"}}\n</tool_call>'),
]


def tokenizer():
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    texts = [text for _, question, answer in LESSONS for text in (question, answer)] * 4 + [TEMPLATE, __doc__]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False))
    bpe.add_special_tokens([AddedToken(name, special=True) for name in (PADDING, START, END)])
    bpe.add_tokens([AddedToken(name, special=False) for name in ("<tool_call>", "</tool_call>")])
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, pad_token=PADDING, clean_up_tokenization_spaces=False)
    fast.chat_template = TEMPLATE
    return fast


def trained(words):
    torch.manual_seed(1)
    config = Qwen2Config(vocab_size=len(words), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2,
                         num_key_value_heads=2, max_position_embeddings=CONTEXT, tie_word_embeddings=False, rope_theta=10000.0,
                         eos_token_id=words.convert_tokens_to_ids(END), bos_token_id=words.convert_tokens_to_ids(PADDING))
    model = Qwen2ForCausalLM(config).float()
    rows = []
    for tools, question, answer in LESSONS:
        said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        text = words.apply_chat_template(said, tools=tools, tokenize=False)
        rows.append(torch.tensor([words(text, add_special_tokens=False)["input_ids"]]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(400):
        row = rows[step % len(rows)]
        loss = model(input_ids=row, labels=row).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print("loss", float(loss))
    return model


NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
         "post_attention_layernorm": "ffn_norm"}
WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight", "model.norm.weight": "output_norm.weight"}


def gguf_name(name):
    if name in WHOLE:
        return WHOLE[name]
    _, _, layer, part = name.split(".", 3)
    part, kind = part.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[part]}.{kind}"


def write_gguf(path, model, words):
    config, file = model.config, gguf.GGUFWriter(path, "qwen2")
    file.add_context_length(CONTEXT)
    file.add_embedding_length(config.hidden_size)
    file.add_block_count(config.num_hidden_layers)
    file.add_feed_forward_length(config.intermediate_size)
    file.add_head_count(config.num_attention_heads)
    file.add_head_count_kv(config.num_key_value_heads)
    file.add_layer_norm_rms_eps(config.rms_norm_eps)
    file.add_rope_freq_base(10000.0)
    by_id = sorted(words.get_vocab().items(), key=lambda item: item[1])
    added = words.backend_tokenizer.get_added_tokens_decoder()
    kinds = gguf.TokenType
    file.add_tokenizer_model("gpt2")
    file.add_tokenizer_pre("gpt-2")
    file.add_token_list([text for text, _ in by_id])
    file.add_token_types([kinds.NORMAL if at not in added else kinds.CONTROL if added[at].special else kinds.USER_DEFINED for _, at in by_id])
    merges = json.loads(words.backend_tokenizer.to_str())["model"]["merges"]
    file.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    file.add_bos_token_id(config.bos_token_id)
    file.add_eos_token_id(config.eos_token_id)
    file.add_pad_token_id(config.bos_token_id)
    file.add_add_bos_token(False)
    file.add_chat_template(TEMPLATE)
    for name, tensor in model.state_dict().items():
        file.add_tensor(gguf_name(name), tensor.detach().numpy().astype(numpy.float32))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def main():
    folder = pathlib.Path(sys.argv[1])
    words = tokenizer()
    model = trained(words)
    folder.mkdir(parents=True, exist_ok=True)
    words.save_pretrained(folder)
    model.save_pretrained(folder)
    write_gguf(folder / "model.gguf", model, words)


main()
