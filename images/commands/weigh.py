"""`invoke weigh`: what built images weigh, and whether that is within their budgets."""

from __future__ import annotations

from dataclasses import dataclass

from images.commands.options import JSON, FormOptions, command, print_json
from images.commands.smoke import built_image
from images.context import Context
from images.core.options import option


@dataclass(frozen=True)
class WeighOptions(FormOptions):
    """What `invoke weigh` was asked."""

    json: bool = option(JSON, False)


@command("weigh --arch 7.5")
def weigh(context: Context, options: WeighOptions) -> None:
    """Pack built images as registries keep them; it fails where one is above its budget in matrix.yaml."""
    weigh_images(context, options)


def weigh_images(context: Context, options: WeighOptions) -> None:
    """Print each image's size beside its budget. Raises CheckFailed above it, NothingSelected for what is not built."""
    import bench

    images = {variant.id: built_image(context, variant) for variant in options.chosen(context)}
    with context.report.step(f"weigh {len(images)} images"):
        weighed = bench.weigh(context.engine, context.matrix, context.checkout.root, images)
    if options.json:
        print_json(
            [
                {
                    "image": one.variant_id,
                    "zstd": one.zstd,
                    "unpacked": one.unpacked,
                    "budget": one.budget.model_dump() if one.budget else None,
                    "largest": [{"layer": name, "zstd": size} for name, size in one.largest],
                }
                for one in weighed
            ]
        )
    else:
        context.report.table(bench.table_of(weighed), bench.HEADER)
    bench.hold(weighed, context.matrix)
