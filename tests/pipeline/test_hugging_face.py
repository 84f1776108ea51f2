"""Models of the `transformers` package, unchanged, with random weights: their output classes in runs and exports."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor import Task
from compressor.errors import TaskError
from compressor.formats import Job, export
from compressor.pipeline.run import run
from compressor.recipe import load
from compressor.recipe.exports import options_of
from compressor.task.guard import GuardedTask
from compressor.testing import check_file

WIDTHS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}


class Sentences(Task):
    length, min_length, max_length = 7, 2, 13
    target = "classes"

    def model(self):
        torch.manual_seed(0)
        import transformers

        config = transformers.BertConfig(vocab_size=23, max_position_embeddings=17, num_labels=3, **WIDTHS)
        return transformers.BertForSequenceClassification(config)

    def example(self, batch, length):
        kept = torch.arange(length) < torch.randint(1, length + 1, (batch, 1))
        return {"input_ids": torch.randint(23, (batch, length)), "attention_mask": kept.long()}

    def batches(self, generator):
        for _ in range(2):
            words = torch.randint(23, (4, 7), generator=generator)
            yield {"input_ids": words, "attention_mask": torch.ones_like(words), "classes": words[:, 0] % 3}

    def loss(self, outputs, target):
        return nn.functional.cross_entropy(outputs.logits, target)

    def evaluate(self, forward):
        words = torch.randint(23, (32, 7), generator=torch.Generator().manual_seed(1))
        outputs = forward(input_ids=words, attention_mask=torch.ones_like(words))
        return (outputs.logits.argmax(1) == words[:, 0] % 3).float()


class Words(Sentences):
    cached = False

    def model(self):
        torch.manual_seed(0)
        names = {"vocab_size": 23, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 17}
        import transformers

        return transformers.GPT2LMHeadModel(
            transformers.GPT2Config(**names, use_cache=self.cached, bos_token_id=0, eos_token_id=0)
        )

    def example(self, batch, length):
        return {"input_ids": torch.randint(23, (batch, length))}


class Cached(Words):
    cached = True


class Speech(Sentences):
    length, min_length, max_length = 90, 40, 170

    def model(self):
        torch.manual_seed(0)
        layers = {"conv_dim": (8, 8), "conv_stride": (3, 2), "conv_kernel": (5, 3), "num_feat_extract_layers": 2}
        positions = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
        import transformers

        return transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(vocab_size=11, **WIDTHS, **layers, **positions))

    def example(self, batch, length):
        return {"input_values": torch.randn(batch, length)}


@pytest.mark.slow
def test_bert_is_stored_in_8_bits_with_a_metric_that_reads_logits(tmp_path):
    report = run(load("int8"), GuardedTask(Sentences(), __file__), tmp_path / "out", quick=True, device="cpu")
    (compressed,) = report.compressed
    assert report.limits_met
    assert compressed.artifact.bytes < 0.9 * report.original.artifact.bytes
    assert [output.name for output in compressed.artifact.outputs] == ["logits"]
    assert {point.origin for point in compressed.artifact.parity.points} == {"example", "batches", "evaluate"}


@pytest.mark.slow
@pytest.mark.parametrize("task", [Words, Speech])
def test_other_output_classes_are_exported_and_right_at_unseen_sizes(tmp_path, task):
    guarded = GuardedTask(task(), __file__)
    model = guarded.model()
    export(Job(model, guarded, tmp_path / "model.onnx", options_of("onnx")))
    assert check_file(tmp_path / "model.onnx", model, guarded).passed


def test_a_cache_among_the_outputs_is_refused_with_the_switch_to_turn():
    with pytest.raises(TaskError, match="is a DynamicCache") as caught:
        GuardedTask(Cached(), __file__).model()
    assert "use_cache = False" in caught.value.hint
