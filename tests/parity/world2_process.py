"""One of two processes that run one step together; arguments: FOLDER RENDEZVOUS RANK OUT."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from authors import build, make_batch, parameters, prepare
from ccop_pretrain.method import objective, plan
from ccop_pretrain.method.jitter import Candidates, key_candidates
from ccop_pretrain.method.losses import hardest_candidates
from folder import ParityFolder
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

IMAGES = 2


def main(folder: str, rendezvous: str, rank: int, out: str) -> None:
    torch.set_num_threads(1)
    parity = ParityFolder(Path(folder))
    recipe, facts = parity.recipe, parity.json("world2.json")
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    model = build(recipe)
    prepare(
        model, recipe, parity.json("model.json")["shapes"], facts["iter_before"], box_pointer=facts["roi_ptr_before"]
    )
    batch = make_batch(recipe, parity.npz("boxes.npz"), images=slice(rank * IMAGES, (rank + 1) * IMAGES))
    seen: dict[str, Tensor] = {}

    def candidates_of(*arguments: object) -> Candidates:
        candidates = key_candidates(*arguments)
        seen.update(
            boxes=candidates.boxes, valid=candidates.valid, draws_xy=arguments[1].centre, draws_wh=arguments[1].size
        )
        return candidates

    def spy(queries: Tensor, embeddings: Tensor, valid: Tensor) -> Tensor:
        choice = hardest_candidates(queries, embeddings, valid)
        similarity = queries.new_full(valid.shape, torch.nan)
        similarity[valid] = (queries.repeat_interleave(valid.sum(1), 0) * embeddings).sum(1)
        seen.update(choice=choice, similarity=similarity.detach(), box_queries=queries.detach())
        return choice

    plan.key_candidates, objective.hardest_candidates = candidates_of, spy
    for side in ("query", "key"):
        getattr(model, side).image_head.register_forward_hook(
            lambda _module, _inputs, output, side=side: seen.update({f"image_{side}": normalize(output.detach())})
        )
    # A tensor hook sees the gradient before it is averaged over processes.
    local: dict[str, float] = {}
    for name, parameter in parameters(model.query).items():
        parameter.register_hook(lambda grad, name=name: local.update({name: grad.norm().item()}))

    wrapped = DistributedDataParallel(model, broadcast_buffers=False)
    torch.manual_seed(facts["seeds"][rank])
    model.begin_step()
    totals = model.totals(batch)
    output = wrapped(batch, totals)
    output.loss.backward()
    model.end_step([output], totals)
    result = {
        **seen,
        "losses": {name: value.item() for name, value in output.losses.items()},
        "gradients": local,
        "averaged": {name: parameter.grad.norm().item() for name, parameter in parameters(model.query).items()},
        "queues": [queue.keys.T.clone() for queue in (model.image_queue, model.box_queue)],
        "pointers": [int(queue.pointer) for queue in (model.image_queue, model.box_queue)],
    }
    torch.save(result, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
