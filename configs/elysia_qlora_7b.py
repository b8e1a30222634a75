# NPROC_PER_NODE=1 xtuner train configs/elysia_qlora_7b.py --deepspeed deepspeed_zero2
# Elysia on InternLM2-Chat-7B: 4-bit base and LoRA.
_base_ = ["./elysia_qlora.py"]

pretrained_model_name_or_path = "internlm/internlm2-chat-7b"
max_length = 2048
