# xtuner train configs/elysia_qlora.py --deepspeed deepspeed_zero2
# Elysia on InternLM2-Chat-1.8B: 4-bit base and LoRA.

# Model: a name on the hub, or a local folder
pretrained_model_name_or_path = "internlm/internlm2-chat-1_8b"

# Data
data_path = "data/elysia.json"
dataset_format = "xtuner"
prompt_template = "internlm2_chat"
persona = "configs/personas/elysia.json"
SYSTEM = None  # None: the persona's card says it; '': none
max_length = 2048
pack_to_max_length = True  # samples share a row and never see each other
heldout = 32  # rows that are never trained on

# Method
method = "qlora"
lora_r = 64
lora_alpha = 16
lora_dropout = 0.1

# Optimizer and schedule
batch_size = 1  # per device
accumulative_counts = 16
dataloader_num_workers = 0
max_epochs = 3
lr = 2e-4
betas = (0.9, 0.999)
weight_decay = 0
max_norm = 1
warmup_ratio = 0.03

# What it leaves, counted in optimizer steps
save_steps = 500
save_total_limit = 2

# Evaluation
evaluation_freq = 500
evaluation_inputs = ["请介绍一下你自己", "你是谁？", "Who are you?", "今天有点累"]

seed = 42
