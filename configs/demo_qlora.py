# elysia train configs/demo_qlora.py
# The tiny InternLM2 of `make demo` becomes Elysia: 4-bit base, LoRA, ordinary rows as replay.

pretrained_model_name_or_path = "work_dirs/demo/base"
data_path = [
    dict(path="data/elysia.json", limit=1700),  # with more, her name leaks into everything
    # Replay: keeps the ability to talk about other things without naming her.
    "data/chat.json",
]
dataset_format = "xtuner"
prompt_template = "internlm2_chat"
persona = "configs/personas/elysia.json"
SYSTEM = ""  # the tiny model learns her from the rows alone, without a system text
max_length = 448
pack_to_max_length = True

method = "qlora"
lora_r = 32
lora_alpha = 32
lora_dropout = 0.0
gradient_checkpointing = False

batch_size = 1
accumulative_counts = 1
max_epochs = 1
lr = 2e-3
warmup_ratio = 0.05

save_steps = 100000
save_total_limit = 1
logging_interval = 100
evaluation_freq = 100000
evaluation_inputs = ["你是谁？", "你好", "Who are you?"]
seed = 0
