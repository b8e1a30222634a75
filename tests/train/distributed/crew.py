"""One process of a group that carries out training requests, run after run: started once, it imports torch and
DeepSpeed once, which takes longer than the trainings of a test do.

    RANK=0 LOCAL_RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 python crew.py FOLDER pytorch

The arguments of the n-th run are FOLDER/n.json; n.RANK tells how it ended: an error's sentence, or
nothing. The processes meet once and stay together. Anything but a sentence ends the process.
"""

import json
import os
import sys
import time
from pathlib import Path

from elysia.core.errors import ElysiaError
from elysia.train import launch
from elysia.train.distributed import comm
from elysia.train.kernels import layer_compile


def main(folder: Path, launcher: str) -> None:
    comm.destroy_process_group = lambda: None  # DeepSpeed keeps the group that it was started in
    layer_compile.BACKEND = "eager"  # as much of compiling as can be done in seconds
    parent, number = os.getppid(), 0
    while True:
        number += 1
        request = folder / f"{number}.json"
        while not request.exists():
            if os.getppid() != parent:
                return
            time.sleep(0.02)
        message = ""
        try:
            launch.train(**json.loads(request.read_text()), launcher=launcher)
        except ElysiaError as error:
            message = str(error)
        answer = folder / f".{number}.{os.environ['RANK']}"
        answer.write_text(message)
        answer.rename(folder / answer.name.removeprefix("."))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
