# elysia voice train configs/voice/elysia_voice.py
# A voice fine-tuned from a base that you bring, on one GPU.

# elysia voice import G_latest.pth finetune_speaker.json --name base
# elysia voice prepare RECORDINGS --out work_dirs/recordings --model work_dirs/voices/base
data_path = "work_dirs/recordings"

# '' begins with random weights, which wants hours of recordings; a G_*.pth wants base_config beside it
base = "work_dirs/voices/base"
base_discriminator = "D_latest.pth"  # '' where it was not kept: slower, and rougher at first
speaker = 0

batch_size = 16
max_epochs = 100
lr = 2e-4
lr_schedule = "cosine"
dtype = "auto"  # bfloat16 on a GPU that has it, float16 on others, float32 on a CPU

save_steps = 1000
save_total_limit = 2
logging_interval = 20
listen_steps = 500
listen_texts = ["你好，很高兴认识你。", "今天天气不错，我们一起去公园散步，好不好？"]
seed = 0
