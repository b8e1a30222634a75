# elysia voice train configs/voice/tiny_voice.py
# A very small VITS from random weights, to try the whole road on a CPU within minutes. It hums; it does not speak.

# elysia voice prepare RECORDINGS --out work_dirs/tiny_recordings --rate 8000 --hop 100 --window 400 --cleaner chinese_cleaners
data_path = "work_dirs/tiny_recordings"

cleaner = "chinese_cleaners"
architecture = dict(
    hidden_size=32,
    flow_size=32,
    ffn_dim=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    upsample_rates=[5, 5, 4],
    upsample_kernel_sizes=[11, 11, 8],
    upsample_initial_channel=64,
    resblock_kernel_sizes=[3],
    resblock_dilation_sizes=[[1, 3, 5]],
    posterior_encoder_num_wavenet_layers=4,
)
discriminator_scale = 0.0625

batch_size = 4
max_steps = 500
lr = 1e-3
mel_bands = 40

save_steps = 250
logging_interval = 20
listen_steps = 250
seed = 0
