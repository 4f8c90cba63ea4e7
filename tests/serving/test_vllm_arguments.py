"""What vLLM's runners are started with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.vllm import OWN, SHARED, Runner, Setup, check_model, find_vllm, model_name, runners
from storage.errors import UsageError
from tests.serving.vllm_world import make_model

SETUP = Setup(executable=Path("/opt/vllm/bin/vllm"), model=Path("/models/cards"), name="cards")


def option(runner: Runner, name: str) -> str:
    assert runner.command.count(name) == 1, f"{name} is not there once"
    return runner.command[runner.command.index(name) + 1]


def test_one_runner_generates_and_the_other_pools() -> None:
    generate, embed = runners(SETUP, {})
    for runner, port, share in ((generate, "8000", SHARED[0]), (embed, "8001", SHARED[1])):
        assert runner.command[:3] == ("/opt/vllm/bin/vllm", "serve", "/models/cards")
        assert option(runner, "--served-model-name") == "cards"
        assert option(runner, "--host") == "127.0.0.1"
        assert option(runner, "--port") == port
        assert json.loads(option(runner, "--limit-mm-per-prompt")) == {"image": 8, "video": 0}
        assert option(runner, "--gpu-memory-utilization") == f"{share:g}"
        assert option(runner, "--tensor-parallel-size") == "1"
        assert option(runner, "--dtype") == "auto"
        assert "--enable-prefix-caching" in runner.command
        assert "--max-model-len" not in runner.command and "--trust-remote-code" not in runner.command
    assert option(generate, "--runner") == "generate" and "--convert" not in generate.command
    assert option(embed, "--runner") == "pooling" and option(embed, "--convert") == "embed"
    assert (generate.url, embed.url) == ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8001/v1")


def test_options_reach_the_runners_that_they_are_for() -> None:
    setup = replace(
        SETUP,
        images=3,
        max_model_len=4096,
        dtype="float32",
        extra=("--config-format", "hf", "--enforce-eager"),
        generate_extra=("--max-num-seqs", "64"),
        embed_extra=("--seed", "1"),
    )
    generate, embed = runners(setup, {})
    for runner in (generate, embed):
        assert json.loads(option(runner, "--limit-mm-per-prompt"))["image"] == 3
        assert (option(runner, "--max-model-len"), option(runner, "--dtype")) == ("4096", "float32")
    assert generate.command[-3:] == ("--enforce-eager", "--max-num-seqs", "64")
    assert embed.command[-3:] == ("--enforce-eager", "--seed", "1")


@pytest.mark.parametrize(
    ("given", "visible", "spread", "memory"),
    [
        ({}, (None, None), ("1", "1"), SHARED),
        ({"gpus": ("0",)}, ("0", "0"), ("1", "1"), SHARED),
        ({"gpus": ("0", "1")}, ("0,1", "0,1"), ("2", "2"), SHARED),
        ({"gpus": ("0", "1"), "tensor_parallel": 1}, ("0,1", "0,1"), ("1", "1"), SHARED),
        ({"gpus": ("0", "1"), "embed_gpus": ("2",)}, ("0,1", "2"), ("2", "1"), OWN),
        ({"gpus": ("0", "1"), "embed_gpus": ("1",)}, ("0,1", "1"), ("2", "1"), SHARED),
        ({"gpus": ("0",), "embed_gpus": ("1",), "memory": (0.9, 0.5)}, ("0", "1"), ("1", "1"), (0.9, 0.5)),
    ],
)
def test_gpus_and_their_memory(given: dict[str, Any], visible: Any, spread: Any, memory: Any) -> None:
    both = runners(replace(SETUP, **given), {})
    assert tuple(runner.environment.get("CUDA_VISIBLE_DEVICES") for runner in both) == visible
    assert tuple(option(runner, "--tensor-parallel-size") for runner in both) == spread
    assert tuple(float(option(runner, "--gpu-memory-utilization")) for runner in both) == memory


@pytest.mark.parametrize(
    ("ours", "gpus", "embed_gpus"),
    [("4,5,6", ("4", "5"), ("6",)), (" 4, 5 ", ("4", "5"), ()), ("GPU-1a", ("GPU-1a",), ()), ("4", ("MIG-7",), ())],
)
def test_gpus_are_chosen_among_those_of_the_environment(
    ours: str, gpus: tuple[str, ...], embed_gpus: tuple[str, ...]
) -> None:
    both = runners(replace(SETUP, gpus=gpus, embed_gpus=embed_gpus), {"CUDA_VISIBLE_DEVICES": ours})
    seen = [runner.environment["CUDA_VISIBLE_DEVICES"] for runner in both]
    assert seen == [",".join(gpus), ",".join(embed_gpus or gpus)]


def test_without_gpus_named_the_runners_see_those_of_the_environment() -> None:
    for ours in ("4,5", ""):
        for runner in runners(SETUP, {"CUDA_VISIBLE_DEVICES": ours}):
            assert runner.environment["CUDA_VISIBLE_DEVICES"] == ours


@pytest.mark.parametrize("ours", ["1,2", "", "GPU-0", "10,11", "NoDevFiles"])
@pytest.mark.parametrize("option", ["--gpus", "--embed-gpus"])
def test_gpus_that_the_environment_does_not_give_are_refused(ours: str, option: str) -> None:
    named: dict[str, Any] = {"gpus": ("0",)} if option == "--gpus" else {"gpus": ("GPU-0",), "embed_gpus": ("0",)}
    says = f"{option} 0: GPU 0 is not in CUDA_VISIBLE_DEVICES='{ours}': choose among those, or leave {option} out"
    with pytest.raises(UsageError, match=says):
        runners(replace(SETUP, **named), {"CUDA_VISIBLE_DEVICES": ours})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"embed_port": 8000}, "both runners on port 8000: give another --embed-port"),
        ({"embed_gpus": ("1",)}, "say with --gpus"),
        ({"gpus": ("0", "0")}, "--gpus 0,0: name each GPU once"),
        ({"gpus": ("0",), "tensor_parallel": 2}, "--tensor-parallel-size 2: --gpus names only 1"),
        ({"memory": (0.7, 0.4)}, "--memory-split 0.7,0.4: the runners share a GPU"),
        ({"memory": (0.0, 0.4)}, "--memory-split 0,0.4: give two shares"),
        ({"extra": ("other-model",)}, "'other-model' is no option of vLLM's"),
        ({"extra": ("--api-key", "sk-1")}, "--api-key can't be handed to vLLM: .* set PARTITA_API_KEY"),
        ({"extra": ("--api_key=sk-1",)}, "--api_key can't be handed to vLLM"),
        ({"extra": ("--config", "sk-1.yaml")}, "--config can't be handed to vLLM: .*: give options one by one"),
        ({"embed_extra": ("--conf=sk-1.yaml",)}, "--conf can't be handed to vLLM: .*: give options one by one"),
        ({"extra": ("--hf-token", "sk-1")}, "--hf-token can't be handed to vLLM: nothing is fetched"),
        ({"generate_extra": ("--hf_token=sk-1",)}, "--hf_token can't be handed to vLLM: nothing is fetched"),
        ({"extra": ("--ssl-ca-certs", "ca.pem")}, "watched without TLS"),
        ({"generate_extra": ("--trust-remote-code",)}, "no model that brings its own code"),
        ({"embed_extra": ("--seed", "1", "--trust_remote")}, "no model that brings its own code"),
        ({"extra": ("--port=9",)}, "give Partita's own --port"),
        ({"extra": ("--runner", "draft")}, "one runner generates"),
    ],
)
def test_what_contradicts_itself_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        runners(replace(SETUP, **given), {})
    assert "\n" not in str(caught.value) and "sk-1" not in str(caught.value)


def test_a_key_is_in_the_environment_and_nowhere_else() -> None:
    theirs = {
        "OPENAI_API_KEY": "sk-open",
        "PARTITA_API_KEY": "sk-ours",
        "PARTITA_DB": "postgresql://me:secret@db/x",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "PATH": "/usr/bin",
    }
    setup = replace(SETUP, api_key="sk-ours")
    for runner in runners(setup, theirs):
        assert runner.environment == {
            "HF_HUB_OFFLINE": "1",
            "PATH": "/opt/vllm/bin:/usr/bin",
            "VLLM_API_KEY": "sk-ours",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_REGEX_COMPILATION_TIMEOUT_S": "60",
        }
        assert "sk-ours" not in repr((runner, setup)) and "sk-ours" not in " ".join(runner.command)


def test_a_key_of_vllms_is_not_dropped_in_silence() -> None:
    with pytest.raises(UsageError, match="set PARTITA_API_KEY instead") as caught:
        runners(SETUP, {"VLLM_API_KEY": "sk-theirs"})
    assert "sk-theirs" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "url"), [("0.0.0.0", "http://127.0.0.1"), ("::", "http://[::1]"), ("box", "http://box")]
)
def test_a_host_as_it_is_reached_from_here(host: str, url: str) -> None:
    generate, _ = runners(replace(SETUP, host=host), {})
    assert option(generate, "--host") == host and generate.url == f"{url}:8000/v1"


def test_a_model_is_called_what_it_calls_itself(tmp_path: Path) -> None:
    assert model_name(make_model(tmp_path / "a", name="cards-7b")) == "cards-7b"
    assert model_name(make_model(tmp_path / "b")) == "b"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("--api-key=x", r"begins with a hyphen, as options do \('--api-key=x'\)"),
        ("two words", "has blanks or control characters"),
        ("line\n=== forged", r"has blanks or control characters \('line\\n=== forged'\)"),
        ("tab\t", "has blanks or control characters"),
        ("red\x1b[31m", "has blanks or control characters"),
        ("no\u00a0break", "has blanks or control characters"),
        ("half\ud800", "has blanks or control characters"),
        ("x" * 201, "has 201 characters, more than 200"),
        ("", "is no text"),
        (7, "is no text"),
        (None, "is no text"),
        (["cards"], "is no text"),
    ],
)
def test_a_name_that_is_none_for_a_command_or_a_line(tmp_path: Path, name: Any, says: str) -> None:
    with pytest.raises(
        UsageError, match=f"{says}.*: export it again with `partita serve export --name NAME`$"
    ) as caught:
        model_name(make_model(tmp_path / "model", name=name))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600


def test_names_that_will_do(tmp_path: Path) -> None:
    for number, name in enumerate(("Qwen/Qwen2-7B", "x" * 200, "spielkarten-ä", "卡片", "a'b")):
        assert model_name(make_model(tmp_path / f"{number}", name=name)) == name


def test_a_folder_whose_name_is_no_name(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="rename the folder, or export it again with `partita serve export --name NAME`"
    ):
        model_name(make_model(tmp_path / "two words"))
    assert model_name(make_model(tmp_path / "three more words", name="cards")) == "cards"


@pytest.mark.parametrize("architectures", [', "architectures": ["LlavaForConditionalGeneration"]', ""])
def test_a_model_with_a_tower_of_our_own_is_not_for_vllm(tmp_path: Path, architectures: str) -> None:
    folder = make_model(tmp_path / "mini")
    (folder / "config.json").write_text(f'{{"vision_config": {{"model_type": "partita_tower"}}{architectures}}}')
    with pytest.raises(UsageError) as caught:
        check_model(folder)
    assert str(caught.value) == (
        f"vLLM has no vision tower like this model's; serve it with `partita serve --model {folder}`"
    )
    (folder / "config.json").write_text('{"vision_config": ["odd"], "architectures": ["X"]}')
    assert check_model(folder) is None


def test_the_model_that_ships_is_not_for_vllm() -> None:
    with pytest.raises(UsageError, match="serve it with `partita serve --model"):
        check_model(Path(__file__).parents[2] / "serving/llava/weights/partita-mini")


def test_a_folder_that_is_no_exported_model_is_told_from_one(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with pytest.raises(UsageError, match="there is no model folder"):
        check_model(folder)
    make_model(folder)
    assert check_model(folder) is None
    (folder / "modules.json").unlink()
    caution = check_model(folder) or ""
    assert "without a trained head" in caution and "chat template and `<embedding>` are missing" in caution
    assert f"`partita serve export {folder} OUT` makes a folder that has them" in caution and "\n" not in caution
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="no weights"):
        check_model(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(UsageError, match="names no architecture"):
        check_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UsageError, match=r"config\.json can't be read"):
        check_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UsageError, match="partita serve export"):
        check_model(folder)


def test_vllm_is_looked_for_beside_python_then_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("env/bin", "path"):
        (tmp_path / place).mkdir(parents=True)
    monkeypatch.setattr("sys.executable", str(tmp_path / "env/bin/python"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    with pytest.raises(UsageError, match=r"pip install 'partita\[vllm\]'"):
        find_vllm()
    for place in ("path", "env/bin"):
        (tmp_path / place / "vllm").touch(0o755)
        assert find_vllm() == tmp_path / place / "vllm"
    assert find_vllm(tmp_path / "path/vllm") == tmp_path / "path/vllm"
    with pytest.raises(UsageError, match="elsewhere is no command"):
        find_vllm(tmp_path / "elsewhere")
