# elysia train configs/demo_base.py
# A tiny InternLM2 learns to speak from random weights, on a laptop's CPU. `make demo` makes it first.

pretrained_model_name_or_path = "work_dirs/demo/init"
data_path = [
    "data/chat.json",
    "data/nameless.json",  # answers to "who are you" without a name, which the persona then replaces
]
dataset_format = "xtuner"
prompt_template = "internlm2_chat"
max_length = 448
pack_to_max_length = True

train_on_prompt = True  # with so little text, it learns to read from the questions, too

method = "full"
dtype = "auto"
gradient_checkpointing = False

batch_size = 1
accumulative_counts = 1
max_epochs = 3
lr = 7e-4
betas = (0.9, 0.99)
weight_decay = 0.1
warmup_ratio = 0.05

save_steps = 100000
save_total_limit = 1
logging_interval = 100
evaluation_freq = 100000
evaluation_inputs = ["你好", "今天天气怎么样？", "What color is the sky?"]
seed = 0
