"""What is asked of Ray: a connection, the cores there are, seats, and which of them have answered."""

from __future__ import annotations

import dataclasses
from typing import Any

from epsinas_onnx.scoring.cluster.messages import Gone, Model, Order
from epsinas_onnx.scoring.cluster.seat import Seat
from epsinas_onnx.scoring.options import ProviderName


class Ray:
    """The cluster that `connect` has connected this process with."""

    def __init__(self, order: Order) -> None:
        import ray

        self._ray: Any = ray
        order = with_provider(order, ray.cluster_resources().get("GPU", 0))
        self._order = ray.put(order)  # it may hold a minibatch, which every node is sent once
        self._asks_for_gpus = order.options.providers in ("cuda", "tensorrt")
        actor = self._ray.remote(Seat)
        self._seat = actor.options(
            num_cpus=1,
            num_gpus=int(self._asks_for_gpus),
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )

    @property
    def kind(self) -> str:
        """What a seat takes one of: `CPU`, or `GPU` beside it."""
        return "GPU" if self._asks_for_gpus else "CPU"

    def nodes(self) -> dict[str, int]:
        """Return the nodes that live, and for how many seats each has room."""
        return {node["NodeID"]: int(node["Resources"].get(self.kind, 0)) for node in self._ray.nodes() if node["Alive"]}

    def seat(self) -> Any:
        """Ask for a seat, which starts once there is room for it."""
        return self._seat.remote(self._order, int(self._asks_for_gpus))

    def hello(self, seat: Any) -> Any:
        """Ask a seat for its Hello."""
        return seat.hello.remote()

    def exchange(self, seat: Any, models: list[Model], pause: float) -> Any:
        """Hand a seat models, and ask it for a Report."""
        return seat.exchange.remote(models, pause)

    def wait(self, calls: list[Any], seconds: float) -> list[Any]:
        """Return those of the calls that are answered: at once, or once one is, or none when the time is over."""
        ready, _ = self._ray.wait(calls, num_returns=1, timeout=seconds)
        if ready and len(calls) > 1:
            ready, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)
        return list(ready)

    def answer(self, call: Any) -> Any:
        """Return the answer of a call, or Gone."""
        try:
            return self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            return Gone(str(error))

    def end(self, seat: Any) -> None:
        """End a seat, whatever it does, and the process that it scores in."""
        self._ray.kill(seat, no_restart=True)


def with_provider(order: Order, gpus: float) -> Order:
    """Return the order with one provider for all nodes: for `auto` what this machine has, if the cluster has GPUs."""
    if order.options.providers != "auto":
        return order
    provider: ProviderName = "cuda" if order.has_cuda and gpus else "cpu"
    return dataclasses.replace(order, options=dataclasses.replace(order.options, providers=provider))


def connect(address: str | None) -> str | None:
    """Connect with a cluster, or start one on this machine where there is none; return why that is impossible."""
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    try:
        if address is not None:
            ray.init(address=address, **options)
            return None
        try:
            ray.init(address="auto", **options)
        except ConnectionError:
            ray.init(address="local", include_dashboard=False, **options)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        return _refusal(address, error)
    return None


def _refusal(address: str | None, error: Exception) -> str:
    text = " ".join(str(error).split())
    of = "the Ray cluster of this machine" if address is None else f"the Ray cluster at {address}"
    if "Version mismatch" in text:
        found = text.partition("The cluster was started with:")[2].partition("This process")[0].strip()
        here = text.rpartition("was started with:")[2].strip()
        return (
            f"{of} runs another version ({found}) than this command ({here}); install the same Ray and Python on this "
            f"machine and on every node"
        )
    return (
        f"{of} cannot be reached ({text[:200]}); look whether it runs with 'ray status', and where it asks for a token "
        f"set RAY_AUTH_MODE=token"
    )
