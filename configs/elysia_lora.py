# xtuner train configs/elysia_lora.py --deepspeed deepspeed_zero2
# The base in 16 bits instead of 4: faster steps, four times the memory for weights.
_base_ = ["./elysia_qlora.py"]

method = "lora"
