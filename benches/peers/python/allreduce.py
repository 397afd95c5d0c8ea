"""gloo's all-reduce: every worker a process, over the loopback device. What a round costs that trusts everybody."""

import json
import os
import subprocess
import sys
import tempfile
import time



# Until all processes have met, and for each call.
PATIENCE_S = 300


def rank(index, world, store, dimensions, repetitions, seconds):
    """One process: prints what its calls took."""
    import datetime

    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=index, world_size=world,
                            timeout=datetime.timedelta(seconds=PATIENCE_S))
    results = []
    for dimension in dimensions:
        tensor = torch.full((dimension,), float(index))
        dist.all_reduce(tensor)
        wanted = world * (world - 1) / 2
        if tensor[0].item() != wanted or tensor[-1].item() != wanted:
            sys.exit(f"rank {index}: all-reduce gives {tensor[0].item()}, not {wanted}")
        tensor.zero_()
        # All make as many calls: the slowest of a few says how many.
        start = time.perf_counter()
        for _ in range(3):
            dist.all_reduce(tensor)
        taken = torch.tensor([(time.perf_counter() - start) / 3])
        dist.all_reduce(taken, op=dist.ReduceOp.MAX)
        calls = max(3, min(200, int(seconds / taken.item())))

        def many():
            for _ in range(calls):
                dist.all_reduce(tensor)

        samples = {"cpu_s": [], "wall_s": []}
        for _ in range(repetitions):
            dist.barrier()
            cpu, wall = time.process_time(), time.perf_counter()
            many()
            samples["wall_s"].append((time.perf_counter() - wall) / calls)
            samples["cpu_s"].append((time.process_time() - cpu) / calls)
        results.append({"dimension": dimension, **samples})
    dist.barrier()
    print(json.dumps(results))


def run(world, dimensions, repetitions, seconds):
    """Per dimension the wall seconds of a call, and the processor seconds of all processes together."""
    with tempfile.TemporaryDirectory(prefix="solon-peers-") as directory:
        environment = dict(os.environ, OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo")
        arguments = json.dumps([world, f"{directory}/store", dimensions, repetitions, seconds])
        start = lambda index: subprocess.Popen([sys.executable, __file__, str(index), arguments],
                                               stdout=subprocess.PIPE, env=environment, text=True)
        children = [start(index) for index in range(world)]
        try:
            said = [child.communicate(timeout=2 * PATIENCE_S)[0] for child in children]
        except subprocess.TimeoutExpired:
            sys.exit(f"run.py: gloo's all-reduce of {world} processes did not end within {2 * PATIENCE_S} s")
        finally:
            for child in children:
                child.kill()
    if any(child.returncode for child in children):
        sys.exit("run.py: a process of gloo's all-reduce failed; what it said is above")
    all_ranks = [json.loads(text) for text in said]
    results = []
    for at, dimension in enumerate(dimensions):
        turns = range(repetitions)
        cpu = [sum(rank[at]["cpu_s"][turn] for rank in all_ranks) for turn in turns]
        wall = [max(rank[at]["wall_s"][turn] for rank in all_ranks) for turn in turns]
        results.append({"what": "gloo all-reduce", "workers": world, "dimension": dimension,
                        "cpu_s": sorted(cpu), "wall_s": sorted(wall)})
    return results


if __name__ == "__main__":
    rank(int(sys.argv[1]), *json.loads(sys.argv[2]))
