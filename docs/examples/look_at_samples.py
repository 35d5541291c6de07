from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.training.settings import Settings

settings = Settings.from_config(
    {
        "tasks": ["rotation", "jigsaw:2x1"],
        "seed": 0,
        "epochs": 2,
        "val_samples": 16,
        "answer_format": "answer_only",
        "source": {"name": "sample_photos", "max_pixels": 1048576},
    }
)
stream = SampleStream(settings, load_manifest(settings), "train")
made = stream[41]  # the same every time, on every machine
print(made.arm.key, made.item_id, made.gold)
print(made.prompt)
made.sample.images[0].save("first_picture.png")
