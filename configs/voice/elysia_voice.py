# elysia voice train configs/voice/elysia_voice.py
# A voice fine-tuned from a base that you bring (G_*.pth, its config, D_*.pth), on one GPU.

# elysia voice prepare RECORDINGS --out work_dirs/recordings
data_path = "work_dirs/recordings"

# '' begins with random weights, which wants hours of recordings
base = "work_dirs/base/G_latest.pth"
base_config = "work_dirs/base/finetune_speaker.json"
base_discriminator = "work_dirs/base/D_latest.pth"
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
