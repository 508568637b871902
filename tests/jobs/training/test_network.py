"""Networks of the VQ-GAN family, trained, resumed, loaded, and tokenized with."""

import json
import shutil
from typing import Any

import pytest
import torch
from fixtures_training import TrainingJob, edit_birth
from support import sampled

from pipeline.config import ImageConfig, ModelConfig
from pipeline.errors import ConfigError
from pipeline.jobs.tokenizing import job as tokenize
from pipeline.jobs.training import job as train
from pipeline.jobs.training.network import network_to_train
from pipeline.models.tokenizers.network import NetworkTokenizer
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_store", "fixtures_training"]

VQGAN = {"network": "vqgan", "vocab_size": 32, "embedding_dim": 4, "hidden_dim": 32, "residual_blocks": 1}
UPKEEP = {"ema_decay": 0.9, "kmeans_init": True, "revive_after": 1}
MODELS: dict[str, tuple[dict[str, Any], tuple[str, tuple[int, ...]]]] = {
    "scales": ({**VQGAN, "quantizer": "multiscale", "patch_nums": [1, 2, 4], **UPKEEP}, ("multiscale", (1, 4, 16))),
    "scales by gradient": ({**VQGAN, "quantizer": "multiscale", "patch_nums": [1, 4]}, ("multiscale", (1, 16))),
    "one grid": ({**VQGAN, "cosine": True, "kmeans_init": True, "downsampling": 8}, ("quadrants", (1, 1, 1, 1))),
}


@pytest.mark.parametrize(("model", "layout"), sampled(*MODELS.values()), ids=MODELS)
def test_it_trains_and_resumes_and_tokenizes(
    untrained: TrainingJob, model: dict[str, Any], layout: tuple[str, tuple[int, ...]]
) -> None:
    job = untrained.write(model=model, holdout=[], steps=12, checkpoint_every=6, learning_rate=1e-3)
    assert train.run(job.config()).trained
    whole = job.weights
    folder = job.tokenizer
    tokenizer = load_tokenizer(folder)
    assert isinstance(tokenizer, NetworkTokenizer)
    geometry = tokenizer.geometry((16, 16))
    assert (geometry.layout, geometry.block_lengths) == layout
    identity = json.loads((folder / "config.json").read_text())["identity"]
    assert identity["architecture"] == "Vqgan"

    assert tokenize.run(job.config(), show_progress=False).complete
    store = TokenStore(job.folder / "store")
    idx_Bl = store.read([0, 1, 2]).idx_Bl
    assert torch.equal(store.idxBl_to_var_input(idx_Bl), tokenizer.idxBl_to_var_input(idx_Bl))
    assert tokenizer.decode(idx_Bl, geometry.grid).shape == (3, 3, 16, 16)

    # As a kill after the sixth step leaves it, trained on to the same weights.
    shutil.rmtree(folder / "checkpoints/step-000012")
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    edit_birth(job, lambda birth: birth.update(result=None))
    assert train.run(job.config()).trained
    assert job.weights == whole


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "simple with scales": ({"quantizer": "multiscale"}, r"train\.model\.quantizer: multiscale is for .*network=vqgan"),
    "simple at 8": ({"downsampling": 8}, r"train\.model\.downsampling: 8 is for"),
    "odd widths": ({**VQGAN, "hidden_dim": 40}, r"hidden_dim: 40 is no multiple of 32"),
    "no scales": (
        {**VQGAN, "quantizer": "multiscale"},
        r"patch_nums: missing; .* the last one 4, such as \[1, 2, 3, 4\]",
    ),
    "scales of another grid": (
        {**VQGAN, "quantizer": "multiscale", "patch_nums": [1, 2]},
        r"patch_nums: the scales 1, 2 end in a grid of 2 x 2 tokens, and this image has 4 x 4",
    ),
    "scales in disorder": (
        {**VQGAN, "quantizer": "multiscale", "patch_nums": [2, 1, 4]},
        r"patch_nums: 2,1,4: .*each is finer",
    ),
    "scales of one grid": ({**VQGAN, "patch_nums": [1, 4]}, r"patch_nums: is for train\.model\.quantizer=multiscale"),
    "a size that it cannot take": ({**VQGAN, "downsampling": 16, "quantizer": "plain"}, r"image\.size: .*16"),
}


@pytest.mark.parametrize(("model", "message"), BAD.values(), ids=BAD)
def test_what_does_not_go_together_is_refused(model: dict[str, Any], message: str) -> None:
    size = 24 if "downsampling" in model and "network" in model else 16
    with pytest.raises(ConfigError, match=message):
        network_to_train(ModelConfig.model_validate(model), ImageConfig(size=size))
