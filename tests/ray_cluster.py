"""A Ray cluster of two nodes on this machine, a program: each line on standard input does something with it."""

from __future__ import annotations

import os
import sys

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


def main() -> None:
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        second = cluster.add_node(**node)
        print(cluster.address, flush=True)  # noqa: T201
        for line in sys.stdin:
            if line == "kill\n":
                cluster.remove_node(second, allow_graceful=False)
            elif line == "add\n":
                second = cluster.add_node(**node)
            print("done", flush=True)  # noqa: T201
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
