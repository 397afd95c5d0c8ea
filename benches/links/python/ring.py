"""One process of gloo's ring all-reduce: ring.py RANK WORLD STORE DIMENSION CALLS. Prints when its calls began and ended.

torch asks gloo for no algorithm in particular, and gloo then takes its ring: parts are summed once around, and the sums passed on
once around. That it does is seen from the bytes that leave an interface: 2 (P - 1) / P times the tensor.
"""

import datetime
import json
import os
import sys
import time

PATIENCE_S = 300


def sent():
    with open("/sys/class/net/eth0/statistics/tx_bytes", encoding="ascii") as file:
        return int(file.read())


def main():
    rank, world, store, dimension, calls = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    os.environ.update(GLOO_SOCKET_IFNAME="eth0", OMP_NUM_THREADS="1")
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world,
                            timeout=datetime.timedelta(seconds=PATIENCE_S))
    tensor = torch.full((dimension,), float(rank))
    dist.all_reduce(tensor)
    wanted = world * (world - 1) / 2
    if tensor[0].item() != wanted or tensor[-1].item() != wanted:
        sys.exit(f"rank {rank}: all-reduce gives {tensor[0].item()}, not {wanted}")
    tensor.zero_()
    times, bytes_sent = [], []
    for _ in range(calls):
        dist.barrier()
        before, began = sent(), time.monotonic()
        dist.all_reduce(tensor)
        times.append([began, time.monotonic()])
        bytes_sent.append(sent() - before)
    dist.barrier()
    print(json.dumps({"times": times, "sent": bytes_sent}))


if __name__ == "__main__":
    main()
