# xtuner train configs/elysia_llama3_qlora.py --deepspeed deepspeed_zero2
_base_ = ["./elysia_qlora.py"]

pretrained_model_name_or_path = "meta-llama/Llama-3.2-1B-Instruct"
prompt_template = "llama3_chat"
