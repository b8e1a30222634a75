# NPROC_PER_NODE=8 xtuner train configs/elysia_full.py --deepspeed deepspeed_zero3
# Every weight is trained: no adapter comes out of it but a whole model.
_base_ = ["./elysia_qlora.py"]

method = "full"
lr = 2e-5
weight_decay = 0.1
save_total_limit = 1
