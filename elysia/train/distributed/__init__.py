"""Several processes: their group and its collectives, the strategies of one device, DDP and ZeRO, and
sequence parallelism."""

from elysia.train.distributed.comm import (
    all_gather_object,
    all_reduce_sum,
    barrier,
    destroy_process_group,
    init_process_group,
)

__all__ = [
    "all_gather_object",
    "all_reduce_sum",
    "barrier",
    "destroy_process_group",
    "init_process_group",
]
