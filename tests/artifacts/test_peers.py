"""The peers agree: PEFT and diffusers load our files and compute what adding alpha / r * B A by hand does."""

import numpy as np
import pytest

from likeness.artifacts import adapter as folders
from likeness.artifacts import exporting
from likeness.artifacts.foreign import foreign_card
from likeness.artifacts.importing import read_foreign
from likeness.diffusion.family import SD_21_BASE, BaseOutline
from tests.artifacts.peer_libraries import diffusers, peft, torch, transformers

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_unet():
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        cross_attention_dim=16,
        layers_per_block=1,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()


def tiny_text_encoder():
    torch.manual_seed(1)
    config = transformers.CLIPTextConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=0,
        eos_token_id=1,
    )
    return transformers.CLIPTextModel(config).eval()


def merged(network, tools, adapter, name):
    """W + alpha / r * B A, written into the plain network."""
    layers = dict(network.named_modules())
    with torch.no_grad():
        for module in adapter.weights[name]:
            weight = layers[module].weight
            weight += torch.from_numpy(tools.delta(adapter, name, module)).to(weight.dtype).reshape(weight.shape)
    return network


@torch.no_grad()
def run_unet(unet):
    generator = torch.Generator().manual_seed(2)
    noise, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 5, 16, generator=generator)
    return unet(noise, torch.tensor([3, 500]), text).sample


@torch.no_grad()
def run_text_encoder(encoder):
    return encoder(torch.tensor([[0, 5, 9, 1], [0, 7, 1, 1]])).last_hidden_state


def tiny_pipeline():
    return diffusers.StableDiffusionPipeline(
        vae=None,
        text_encoder=tiny_text_encoder(),
        tokenizer=None,
        unet=tiny_unet(),
        scheduler=diffusers.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture(scope="module")
def by_hand(tools):
    adapter = tools.adapter()
    unet = run_unet(merged(tiny_unet(), tools, adapter, "unet"))
    text = run_text_encoder(merged(tiny_text_encoder(), tools, adapter, "text_encoder"))
    assert (unet - run_unet(tiny_unet())).abs().max() > 1e-2  # the adapter does something
    assert (text - run_text_encoder(tiny_text_encoder())).abs().max() > 1e-2
    return unet, text


def outline_of_tiny(tools):
    """What the two tiny networks ask of an adapter."""
    layers = {
        network: {
            name: tuple(layer.weight.shape)
            for name, layer in module.named_modules()
            if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
        }
        for network, module in {"unet": tiny_unet(), "text_encoder": tiny_text_encoder()}.items()
    }
    return BaseOutline("tiny", tools.base_sha256, SD_21_BASE, layers)


def assert_close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_peft_loads_our_folders(tools, tmp_path, by_hand):
    folders.write(tools.adapter(), tmp_path / "a")
    unet = peft.PeftModel.from_pretrained(tiny_unet(), tmp_path / "a" / "unet")
    text = peft.PeftModel.from_pretrained(tiny_text_encoder(), tmp_path / "a" / "text_encoder")
    assert_close(run_unet(unet.eval()), by_hand[0])
    assert_close(run_text_encoder(text.eval()), by_hand[1])


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_diffusers_loads_our_files(tools, tmp_path, by_hand, layout):
    exporting.FORMATS[layout].export(tools.adapter(), tmp_path / "pytorch_lora_weights.safetensors")
    pipeline = tiny_pipeline()
    pipeline.load_lora_weights(str(tmp_path), weight_name="pytorch_lora_weights.safetensors")
    assert_close(run_unet(pipeline.unet), by_hand[0])
    assert_close(run_text_encoder(pipeline.text_encoder), by_hand[1])


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"use_rslora": True},
        {"alpha_pattern": {"to_q": 12, "^conv_in": 1, "q_proj": 5}},
        {"rank_pattern": {"conv1": 2, "text_model.encoder.layers.0.mlp.fc1": 4, "encoder.layers.0.mlp.fc1": 4}},
        {"use_rslora": True, "rank_pattern": {"to_q": 5}, "alpha_pattern": {"to_q": 12, "q_proj": 5}},
    ],
    ids=str,
)
def test_we_load_what_the_peers_save(tools, tmp_path, how):
    """A LoRA made by PEFT, saved by diffusers' save_lora_weights and by PEFT's save_pretrained."""
    wanted = {"unet": ["to_q", "conv1", "ff.net.0.proj"], "text_encoder": ["q_proj", "fc1"]}
    networks = {"unet": tiny_unet(), "text_encoder": tiny_text_encoder()}
    models, states = {}, {}
    for name, network in networks.items():
        config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=wanted[name], init_lora_weights="gaussian", **how)
        models[name] = peft.get_peft_model(network, config)
        with torch.no_grad():
            for key, parameter in models[name].named_parameters():
                if "lora_B" in key:
                    parameter.normal_(std=0.2)
        models[name].save_pretrained(tmp_path / "peft" / name)
        state = peft.get_peft_model_state_dict(models[name])
        state = {key.removeprefix("base_model.model."): value for key, value in state.items()}
        states[name] = diffusers.utils.convert_state_dict_to_diffusers(state)
    diffusers.StableDiffusionPipeline.save_lora_weights(
        tmp_path / "file",
        unet_lora_layers=states["unet"],
        text_encoder_lora_layers=states["text_encoder"],
        unet_lora_adapter_metadata={"r": 3, "lora_alpha": 6} | how,
        text_encoder_lora_adapter_metadata={"r": 3, "lora_alpha": 6} | how,
    )
    base = outline_of_tiny(tools)
    card = foreign_card("x", "man", "sks", base_id="tiny", base_sha256=tools.base_sha256, family="sd-1.5")
    expected = run_unet(models["unet"].eval()), run_text_encoder(models["text_encoder"].eval())
    one = read_foreign(tmp_path / "peft", base, card)
    two = read_foreign(tmp_path / "file" / "pytorch_lora_weights.safetensors", base, card)
    for adapter in (one, two):
        assert how or (adapter.card.rank, adapter.card.alpha) == (3, 6.0)
        assert_close(run_unet(merged(tiny_unet(), tools, adapter, "unet")), expected[0])
        assert_close(run_text_encoder(merged(tiny_text_encoder(), tools, adapter, "text_encoder")), expected[1])
    assert np.array_equal(
        one.weights["unet"]["mid_block.resnets.0.conv1"].A, two.weights["unet"]["mid_block.resnets.0.conv1"].A
    )
