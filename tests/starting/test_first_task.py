"""Every written task runs unchanged: the dry run of all of them, a whole run of one."""

from __future__ import annotations

import textwrap

import pytest
import torch

from compressor import recipe as recipes
from compressor.errors import CheckpointError, OutputError, TaskError, UsageError
from compressor.pipeline import run as pipeline
from compressor.pipeline.dry_run import try_out
from compressor.starting.first_task import write
from compressor.task.loading import load

TOPOLOGIES = (
    *("EveryStep(nn.GRU)", "LastStep(nn.LSTM)", "IndexByLength(nn.RNN)", "MaskedMean(nn.GRU)", "LastState(nn.LSTM)"),
    *("SequenceFirst(nn.LSTM)", "Packed(nn.GRU)", "Bidirectional(nn.LSTM)", "GatedConvolution(nn.GRU)"),
    *("ConvolutionInFront(nn.LSTM)", "AttentionPooling(nn.GRU)", "CellLoop(nn.GRUCell)", "Streaming(nn.LSTM)"),
    *("SelfAttentionBehind(nn.GRU)", "Embedded(nn.GRU)"),
)
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48, "vocab_size": 50}
HUGGING_FACE = {
    "BertForSequenceClassification": ("BertConfig", SMALL),
    "DistilBertForTokenClassification": (
        "DistilBertConfig",
        {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 48, "vocab_size": 50, "max_position_embeddings": 64},
    ),
    "GPT2LMHeadModel": (
        "GPT2Config",
        {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 50, "n_positions": 64},
    ),
    "LlamaForCausalLM": ("LlamaConfig", SMALL | {"num_key_value_heads": 2}),
    "Wav2Vec2ForCTC": (
        "Wav2Vec2Config",
        SMALL
        | {"conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3)}
        | {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2},
    ),
}


@pytest.mark.parametrize("spec", TOPOLOGIES)
def test_a_task_is_written_for_every_topology_and_runs_unchanged(spec, tmp_path):
    written = write(f"tests.surgery.topologies:{spec}", tmp_path / "task.py")
    check(tmp_path)
    assert written.random
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.yaml", "task.py"]


@pytest.mark.slow
@pytest.mark.parametrize("name", HUGGING_FACE)
def test_a_task_is_written_for_a_folder_of_hugging_face(name, tmp_path):
    import transformers

    config, options = HUGGING_FACE[name]
    getattr(transformers, name)(getattr(transformers, config)(**options)).save_pretrained(tmp_path / "model")
    written = write(str(tmp_path / "model"), tmp_path / "task.py")
    check(tmp_path)
    assert not written.random


def check(folder):
    """The dry run of a written task, and its recipe on its model as far as nothing is trained."""
    task = load(str(folder / "task.py"))
    model = task.model()
    try_out(task, model, torch.device("cpu"))
    recipe = recipes.load(str(folder / "recipe.yaml"), ())
    for step in recipe.steps:
        step.check_task(model, task)


@pytest.fixture
def file(tmp_path):
    """A file with two models, one of which is a part of the other."""
    text = """
        from torch import nn

        class Front(nn.Module):
            def __init__(self):
                super().__init__()
                self.convolution = nn.Conv1d(3, 8, 3, padding=1)

            def forward(self, x):
                return self.convolution(x).transpose(1, 2)

        class Tagger(nn.Module):
            def __init__(self):
                super().__init__()
                self.front, self.rnn = Front(), nn.GRU(8, 16, batch_first=True)

            def forward(self, x):
                return self.rnn(self.front(x))[0]

        class Sized(nn.Module):
            def __init__(self, units):
                super().__init__()
                self.layer = nn.Linear(units, 2)

            def forward(self, x):
                return self.layer(x)

        def build():
            return Tagger()
    """
    path = tmp_path / "written_model.py"
    path.write_text(textwrap.dedent(text))
    return path


@pytest.mark.slow
def test_a_whole_run_of_what_was_written_gives_a_smaller_file(file, tmp_path):
    torch.manual_seed(3)
    state = {name: torch.randn(shape) for name, shape in shapes_of(file).items()}
    torch.save(state, tmp_path / "weights.pt")
    out = tmp_path / "tasks" / "first.py"
    write(f"{file}:Tagger", out, checkpoint=tmp_path / "weights.pt")
    task, recipe = load(str(out)), recipes.load(str(out.with_suffix(".yaml")), ())
    report = pipeline.run(recipe, task, tmp_path / "run", quick=True)
    assert report.compressed[0].artifact.bytes < report.original.artifact.bytes
    assert report.original.score.metric == "fidelity"
    assert "No labels were used" in report.remark
    for name, value in task.model().state_dict().items():
        assert torch.equal(value, state[name])


def shapes_of(file):
    from compressor.starting import source

    return {name: value.shape for name, value in source.find(f"{file}:Tagger").build().state_dict().items()}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "defines several models"),
        (":Tager", "has no `Tager`"),
        (":Sized", "`Sized` needs `units`"),
        (":Sized(", "is not Python"),
        (":nn.functional", "gives a module, not a torch.nn.Module"),
        (":Sized('a')", "raised TypeError"),
    ],
)
def test_a_model_that_cannot_be_meant_is_refused_with_what_to_give(file, tmp_path, name, text):
    with pytest.raises((UsageError, TaskError), match=text):
        write(f"{file}{name}", tmp_path / "task.py")
    assert not (tmp_path / "task.py").exists()


def test_a_function_and_arguments_build_a_model_too(file, tmp_path):
    assert write(f"{file}:build", tmp_path / "a.py").example == "torch.randn(batch, 3, length)"
    assert write(f"{file}:Sized(5)", tmp_path / "b.py").example == "torch.randn(batch, length, 5)"


def test_what_is_there_is_replaced_only_if_asked(file, tmp_path):
    write(f"{file}:Tagger", tmp_path / "task.py")
    with pytest.raises(OutputError, match=r"task\.py` exists"):
        write(f"{file}:Tagger", tmp_path / "task.py")
    write(f"{file}:Tagger", tmp_path / "task.py", force=True)


def test_weights_that_do_not_fit_are_refused_before_anything_is_written(file, tmp_path):
    torch.save({"other": torch.zeros(3)}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="does not fit the model"):
        write(f"{file}:Tagger", tmp_path / "task.py", checkpoint=tmp_path / "weights.pt")
    assert not (tmp_path / "task.py").exists()


def test_an_example_of_the_users_is_taken_as_it_is(file, tmp_path):
    write(f"{file}:Tagger", tmp_path / "task.py", example="0.1 * torch.randn(batch, 3, length)")
    assert "return 0.1 * torch.randn(batch, 3, length)" in (tmp_path / "task.py").read_text()
    with pytest.raises(TaskError, match=r"the model does not run on `torch\.randn"):
        write(f"{file}:Tagger", tmp_path / "other.py", example="torch.randn(batch, 4, length)")
