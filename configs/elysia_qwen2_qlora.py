# xtuner train configs/elysia_qwen2_qlora.py --deepspeed deepspeed_zero2
# Another base, its own prompt template: this is all that changes.
_base_ = ["./elysia_qlora.py"]

pretrained_model_name_or_path = "Qwen/Qwen2-1.5B-Instruct"
prompt_template = "qwen_chat"
