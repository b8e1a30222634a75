# xtuner train configs/elysia_dpo.py
# Prefer replies in character over replies out of it, by DPO: on a model that was tuned to the persona before.

# Model: the persona's SFT, merged (xtuner convert merge), or a chat model as it is
pretrained_model_name_or_path = "internlm/internlm2-chat-1_8b"

# Data: preference pairs
data_path = "data/elysia_pairs.json"
dataset_format = "preference"
prompt_template = "internlm2_chat"
persona = "configs/personas/elysia.json"
max_length = 1024  # of both replies and their prompts together
heldout = 8  # pairs that are never trained on

# Method
method = "qlora"
lora_r = 16
lora_alpha = 16
lora_dropout = 0.05

# Objective
objective = "dpo"
dpo_beta = 0.1  # lower strays further from the model it starts from
dpo_loss_type = "sigmoid"

# Optimizer and schedule
batch_size = 1  # per device
accumulative_counts = 2
max_epochs = 3
lr = 5e-6
betas = (0.9, 0.999)
weight_decay = 0
max_norm = 1
warmup_ratio = 0.1

# What it leaves, counted in optimizer steps
save_steps = 50
save_total_limit = 2
logging_interval = 1

# Evaluation
evaluation_freq = 50
evaluation_inputs = ["你是谁？", "今天有点累", "Who are you?"]

seed = 42
