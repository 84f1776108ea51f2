"""Every mistake in a recipe: the exact words, place and remedy."""

import os

import pytest

from compressor.errors import RecipeError, RecipeErrors
from compressor.methods import METHODS
from compressor.recipe import load, names
from compressor.recipe.source import MAX_BYTES


def test_an_unknown_option_names_the_nearest_one(with_steps, refused):
    name = with_steps("""
        - method: magnitude
          sparsty: 0.5
          prune: weights
        """)
    assert refused(name) == (
        "error: `magnitude` has no option `sparsty`\n"
        " --> recipe.yaml:5:5\n"
        "5 |     sparsty: 0.5\n"
        "  |     ^\n"
        "hint: did you mean `sparsity`?"
    )


def test_an_option_unlike_any_other_points_to_the_list(with_steps, refused):
    name = with_steps("- {method: retrain, zzzzzz: 1}")
    assert refused(name).endswith("hint: retrain has many options: `compressor methods show retrain` lists them")


def test_an_option_inside_an_option_is_checked_too(with_steps, refused):
    name = with_steps("""
        - method: magnitude
          prune: weights
          sparsity: 0.5
          schedule: cubic
          rounds: 3
          retrain: {epoch: 2}
        """)
    assert refused(name) == (
        "error: `retrain` has no option `epoch`\n"
        " --> recipe.yaml:9:15\n"
        "9 |     retrain: {epoch: 2}\n"
        "  |               ^\n"
        "hint: did you mean `epochs`?"
    )


def test_an_unknown_key_of_the_recipe(with_steps, refused):
    name = with_steps("- method: retrain", "exports: [{format: onnx}]\nlimit: {}\n")
    assert refused(name) == (
        "error: a recipe has no key `limit`\n --> recipe.yaml:6:1\n6 | limit: {}\n  | ^\nhint: did you mean `limits`?"
    )


def test_an_unknown_limit_lists_the_known_ones(with_steps, refused):
    name = with_steps("- method: retrain", "exports: [{format: onnx}]\nlimits: {zzz: 1}\n")
    assert refused(name) == (
        "error: `limits` has no key `zzz`\n"
        " --> recipe.yaml:6:10\n"
        "6 | limits: {zzz: 1}\n"
        "  |          ^\n"
        "hint: it has `metric_drop`, `metric_drop_relative`, `parameters_ratio`, `file_ratio`, `file_bytes`, "
        "`flash_bytes`, `ram_bytes`, `speedup`, `latency_ms`"
    )


@pytest.mark.parametrize(
    ("option", "said", "hint"),
    [
        ("epochs: x", "`epochs` is the text `x`, expected a whole number from 1 to 100000", None),
        (
            "epochs: '3'",
            "`epochs` is the text `3`, expected a whole number from 1 to 100000",
            "write the number without quotes, underscores or spaces",
        ),
        (
            "epochs: 1_000",
            "`epochs` is the text `1_000`, expected a whole number from 1 to 100000",
            "write the number without quotes, underscores or spaces",
        ),
        ("epochs: true", "`epochs` is true, expected a whole number from 1 to 100000", None),
        ("epochs: 2.5", "`epochs` is the number 2.5, expected a whole number from 1 to 100000", None),
        ("epochs: [2]", "`epochs` is a list, expected a whole number from 1 to 100000", None),
        ("epochs:", "`epochs` is empty, expected a whole number from 1 to 100000", None),
        ("lr: {a: 1}", "`lr` is a mapping, expected a number above 0", None),
        ("lr: false", "`lr` is false, expected a number above 0", None),
        ("optimizer: 5", "`optimizer` is the number 5, expected `adam`, `adamw` or `sgd`", None),
        (
            "optimizer: adan",
            "`optimizer` is the text `adan`, expected `adam`, `adamw` or `sgd`",
            "did you mean `adam`?",
        ),
        (
            "distill: yes",
            "`distill` is the text `yes`, expected true or false",
            "write `true`: in YAML 1.2 `yes` is text",
        ),
        (
            "distill_hidden: gru",
            "`distill_hidden` is the text `gru`, expected a list, each entry text",
            "write `[gru]`",
        ),
        ("distill_hidden: [gru, 5]", "entry 1 of `distill_hidden` is the number 5, expected text", None),
    ],
)
def test_a_wrong_type_says_what_was_found_and_what_was_expected(with_steps, refused, option, said, hint):
    name = with_steps(f"- method: retrain\n  {option}")
    lines = refused(name).split("\n")
    assert lines[0] == f"error: {said}"
    assert lines[1].startswith(" --> recipe.yaml:5:")
    assert lines[4:] == ([f"hint: {hint}"] if hint else [])


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("ratio: 1.5", "`ratio` is the number 1.5, expected a number above 0 and below 1"),
        ("ratio: 0", "`ratio` is the number 0, expected a number above 0 and below 1"),
        ("count: 0", "`count` is the number 0, expected a whole number at least 1"),
        ("round_to: -8", "`round_to` is the number -8, expected a whole number at least 1"),
    ],
)
def test_a_value_out_of_range_says_the_range(with_steps, refused, option, said):
    name = with_steps(f"- method: magnitude\n  prune: units\n  {option}")
    assert refused(name).split("\n")[:2] == [f"error: {said}", f" --> recipe.yaml:6:{len(option.split(':')[0]) + 7}"]


def test_a_rule_of_a_method_points_to_the_option_that_it_names(with_steps, refused):
    name = with_steps("""
        - method: magnitude
          prune: units
          ratio: 0.5
          rounds: 3
        """)
    assert refused(name) == (
        "error: `rounds` belongs to `prune: weights`, not to `prune: units`\n"
        " --> recipe.yaml:7:5\n"
        "7 |     rounds: 3\n"
        "  |     ^"
    )


def test_a_repeated_key_names_the_first_one(with_steps, refused):
    name = with_steps("- method: retrain\n  epochs: 3\n  epochs: 4")
    assert refused(name) == (
        "error: the key `epochs` is repeated\n"
        " --> recipe.yaml:6:5\n"
        "6 |     epochs: 4\n"
        "  |     ^\n"
        "hint: it is first given on line 5"
    )


def test_a_number_that_is_not_finite(with_steps, refused):
    name = with_steps("- method: retrain\n  lr: .nan")
    assert refused(name) == (
        "error: `.nan` is not a finite number\n"
        " --> recipe.yaml:5:9\n"
        "5 |     lr: .nan\n"
        "  |         ^\n"
        "hint: leave the key out for no bound"
    )


@pytest.mark.parametrize("text", ["", "\n\n", "# a comment\n", "---\n", "null\n", "\ufeff"])
def test_an_empty_recipe(write, refused, text):
    assert refused(write(text)) == (
        "error: the recipe is empty\n"
        " --> recipe.yaml\n"
        "hint: start from a shipped one: `compressor recipes copy quickstart`"
    )


def test_a_recipe_that_is_a_list(write, refused):
    assert refused(write("- method: retrain\n")) == (
        "error: a recipe is a mapping, this is a list\n"
        " --> recipe.yaml:1:1\n"
        "1 | - method: retrain\n"
        "  | ^\n"
        "hint: begin with `schema_version: 1`"
    )


def test_a_missing_key_comes_with_an_example(write, refused):
    name = write("schema_version: 1\nname: test\nsteps: [{method: retrain}]\n")
    assert refused(name) == (
        "error: a recipe needs `exports`\n"
        " --> recipe.yaml:1:1\n"
        "1 | schema_version: 1\n"
        "  | ^\n"
        "hint: `exports` is a list of at least 1 and at most 20 entries, for example `exports: [{format: onnx}]`"
    )


def test_a_missing_option_says_what_it_may_be(with_steps, refused):
    assert refused(with_steps("- method: magnitude")) == (
        "error: `magnitude` needs `prune`\n"
        " --> recipe.yaml:4:5\n"
        "4 |   - method: magnitude\n"
        "  |     ^\n"
        "hint: `prune` is `weights` or `units`"
    )


def test_a_later_version_of_the_format(write, refused):
    text = refused(write("schema_version: 2\nname: test\nsteps: [{method: retrain}]\nexports: [{format: onnx}]\n"))
    assert text.startswith("error: `schema_version` is the number 2, expected 1\n --> recipe.yaml:1:17\n")


def test_true_is_no_version(write, refused):
    text = refused(write("schema_version: true\nname: test\nsteps: [{method: retrain}]\nexports: [{format: onnx}]\n"))
    assert text.startswith("error: `schema_version` is true, expected 1\n")


def test_an_empty_list_of_steps(write, refused):
    text = refused(write("schema_version: 1\nname: test\nsteps: []\nexports: [{format: onnx}]\n"))
    assert text.startswith("error: `steps` is empty and no export has a `precision`: nothing would be compressed\n")


def test_a_limit_of_a_microcontroller_needs_one(with_steps, refused):
    exports = "exports: [{format: c}]\nlimits: {ram_bytes: 2048}\n"
    text = refused(with_steps("- method: retrain", exports))
    assert "`limits.ram_bytes` is that of a microcontroller, and no export has one" in text
    load(with_steps("- method: retrain", exports.replace("c}", "c, target: cortex-m4}")))


@pytest.mark.parametrize("precision", ["int4", "mixed"])
@pytest.mark.parametrize("block", [16, 32, 64])
def test_integers_that_were_trained_are_those_of_the_file(write, refused, precision, block):
    budget = "" if precision == "int4" else ", bits: 4.5"
    export = f"- format: onnx\n  precision: {precision}\n  rounding: {{block: {block}{budget}}}\n"
    step = "- method: retrain\n  quantize: int4\n"
    path = write(f"schema_version: 1\nname: t\nsteps:\n{step}exports:\n{export}")
    if block == 32:
        assert load(path).steps
    else:
        assert f"round them again in blocks of {block}" in refused(path)


def test_an_option_by_its_long_name_is_meant_by_its_initials(with_steps, refused):
    assert "hint: did you mean `lr`?" in refused(with_steps("- method: retrain\n  learning_rate: 0.001"))


@pytest.mark.parametrize("ratio", ["130%", "0%", "1.3x"])
def test_a_number_that_would_be_refused_too_is_not_proposed(with_steps, refused, ratio):
    text = refused(with_steps(f"- method: magnitude\n  prune: units\n  ratio: {ratio}"))
    assert "expected a number above 0 and below 1" in text
    assert "hint" not in text


def test_a_word_that_is_a_little_like_a_method_is_not_taken_for_one(with_steps, refused):
    assert "hint: methods: " in refused(with_steps("- ratio: 0.5"))


def test_an_unknown_method_names_the_nearest_one(with_steps, refused):
    assert refused(with_steps("- method: magnitud")) == (
        "error: unknown method `magnitud`\n"
        " --> recipe.yaml:4:13\n"
        "4 |   - method: magnitud\n"
        "  |             ^\n"
        "hint: did you mean `magnitude`?"
    )


def test_an_unknown_format_lists_the_known_ones(with_steps, refused):
    text = refused(with_steps("- method: retrain", "exports:\n  - format: coreml\n"))
    assert text == (
        "error: unknown format `coreml`\n"
        " --> recipe.yaml:6:13\n"
        "6 |   - format: coreml\n"
        "  |             ^\n"
        "hint: formats: `c`, `executorch`, `litert`, `mnn`, `ncnn`, `onnx`, `ort`"
    )


FLAT = """exports:
  - format: onnx
    precision: int8
    quantize_for: anywhere
    stream: true
    chunk: 4
    keep_float: ["*.W_l0", head]
"""


def test_an_option_of_a_group_names_the_line_that_says_it(with_steps):
    with pytest.raises(RecipeErrors) as caught:
        load(with_steps("- method: retrain", FLAT))
    rounding = 'write `rounding: {quantize_for: anywhere, keep_float: ["*.W_l0", head]}`'.replace('"', "'")
    assert [(error.place.line, error.message, error.hint) for error in caught.value.errors] == [
        (8, "`quantize_for` of `onnx` is an option of `rounding`", rounding),
        (10, "`chunk` of `onnx` is an option of `stream`", "write `stream: {chunk: 4}`"),
        (11, "`keep_float` of `onnx` is an option of `rounding`", rounding),
    ]


def test_the_line_that_an_error_names_is_valid_and_keeps_what_the_group_has(with_steps, refused):
    text = refused(
        with_steps("- method: retrain", "exports: [{format: onnx, stream: {batch: dynamic}, cells: native}]\n")
    )
    assert text.endswith("hint: write `stream: {batch: dynamic, cells: native}`")
    right = "exports: [{format: onnx, stream: {batch: dynamic, cells: native}}]\n"
    assert load(with_steps("- method: retrain", right)).exports[0].step.cells == "native"


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        (
            "yes",
            "`stream` is the text `yes`, expected true or false or a mapping",
            "write `true`: in YAML 1.2 `yes` is text",
        ),
        ("{chunk: 0}", "`chunk` is the number 0, expected a whole number from 1 to 256", None),
        ("{chunks: 4}", "`stream` has no option `chunks`", "did you mean `chunk`?"),
    ],
)
def test_a_switch_with_options_has_errors_at_their_place(with_steps, value, message, hint):
    with pytest.raises(RecipeErrors) as caught:
        load(with_steps("- method: retrain", f"exports: [{{format: onnx, stream: {value}}}]\n"))
    assert [(error.message, error.hint) for error in caught.value.errors] == [(message, hint)]


def test_a_step_without_a_method(with_steps, refused):
    assert refused(with_steps("- epochs: 3")) == (
        "error: entry 0 of `steps` has no `method`\n"
        " --> recipe.yaml:4:5\n"
        "4 |   - epochs: 3\n"
        "  |     ^\n"
        "hint: methods: " + ", ".join(f"`{word}`" for word in METHODS)
    )


@pytest.mark.parametrize(
    ("step", "meant"),
    [
        ("- tie_layers: {groups: [[0, 1]]}", "- {method: tie_layers, groups: [[0, 1]]}"),
        ("- retrain:\n    epochs: 3", "- {method: retrain, epochs: 3}"),
        ("- retrain:", "- {method: retrain}"),
        ("- heads: 4\n  ratio: 0.5", "- {method: heads, ratio: 0.5}"),
        ("- tie_layer: {groups: 2}", "- {method: tie_layers, groups: 2}"),
    ],
)
def test_a_step_whose_method_is_a_key(with_steps, step, meant):
    with pytest.raises(RecipeErrors) as caught:
        load(with_steps(step))
    [error] = caught.value.errors
    assert (error.message, error.hint) == ("entry 0 of `steps` has no `method`", f"write `{meant}`")


def test_an_export_whose_format_is_a_key(with_steps):
    with pytest.raises(RecipeErrors) as caught:
        load(with_steps("- method: retrain", "exports: [{onnx: {precision: int8}}]\n"))
    assert [error.hint for error in caught.value.errors] == ["write `- {format: onnx, precision: int8}`"]


def test_a_step_that_is_only_a_word(with_steps, refused):
    assert refused(with_steps("- retrain")) == (
        "error: entry 0 of `steps` is the text `retrain`, expected a mapping with a `method`\n"
        " --> recipe.yaml:4:5\n"
        "4 |   - retrain\n"
        "  |     ^\n"
        "hint: write `- method: retrain`"
    )


def test_a_method_that_is_a_number(with_steps, refused):
    text = refused(with_steps("- method: 5"))
    assert text.startswith("error: `method` is the number 5, expected a name\n --> recipe.yaml:4:13\n")


def test_all_the_mistakes_of_a_file_are_shown_in_its_order(with_steps):
    name = with_steps(
        """
        - method: magnitude
          prune: unit
          ratio: "0.5"
        - method: retrain
          epochs: 3
          epochs: 4
          lrr: 1
        """,
        "exports: [{format: onnx}]\nseed: -1\n",
    )
    with pytest.raises(RecipeErrors) as caught:
        load(name)
    assert [(error.place.line, error.message) for error in caught.value.errors] == [
        (5, "`prune` is the text `unit`, expected `weights` or `units`"),
        (6, "`ratio` is the text `0.5`, expected a number above 0 and below 1"),
        (9, "the key `epochs` is repeated"),
        (10, "`retrain` has no option `lrr`"),
        (12, "`seed` is the number -1, expected a whole number from 0 to 4294967295"),
    ]
    assert caught.value.render().count("error: ") == 5


def test_syntax_that_is_not_yaml(write, refused):
    assert refused(write("steps: [\n")) == (
        "error: not valid YAML: while parsing a flow node, expected the node content, but found '<stream end>'\n"
        " --> recipe.yaml:2:1\n"
        "2 | \n"
        "  | ^"
    )


def test_a_file_that_is_not_utf_8_names_the_byte_and_the_line(write, refused):
    assert refused(write(b"schema_version: 1\nname: caf\xe9\n")) == (
        "error: `recipe.yaml` is not UTF-8 text (byte 0xe9)\n --> recipe.yaml:2\nhint: give a YAML file in UTF-8"
    )


def test_a_byte_order_mark_is_no_part_of_the_first_key(write):
    text = "schema_version: 1\nname: test\nsteps: [{method: retrain}]\nexports: [{format: onnx}]\n"
    assert load(write(b"\xef\xbb\xbf" + text.encode())).name == "test"


def test_a_binary_file(write, refused):
    assert refused(write(b"\x00\x01\x02\x03")) == (
        "error: the control character U+0000 is not allowed in YAML\n --> recipe.yaml:1:1\nhint: is this a text file?"
    )


def test_a_huge_file_is_not_read(write, refused):
    assert refused(write(b"#" * (MAX_BYTES + 1))) == (
        "error: `recipe.yaml` is longer than 128 KiB\nhint: give a YAML file in UTF-8"
    )


def test_a_missing_file(refused):
    assert refused("nowhere/mine.yaml") == (
        "error: there is no file `nowhere/mine.yaml`\n"
        f"hint: shipped recipes: {', '.join(names())}; anything else is a path"
    )


def test_a_misspelt_shipped_name(refused):
    assert refused("quickstrt") == "error: unknown recipe `quickstrt`\nhint: did you mean `quickstart`?"


def test_a_folder(tmp_path, refused):
    assert refused(str(tmp_path)) == f"error: `{tmp_path}` is a folder, not a recipe\nhint: give a file in it"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
def test_a_file_that_may_not_be_read(write, refused, tmp_path):
    name = write("name: test\n")
    (tmp_path / name).chmod(0)
    assert refused(name) == "error: cannot read `recipe.yaml`: Permission denied"


@pytest.mark.parametrize(
    ("exports", "name"),
    [
        ("[{format: onnx}, {format: onnx}]", "model.onnx"),
        ("[{format: onnx, name: original}]", "original.onnx"),
        ("[{format: onnx, name: A}, {format: onnx, name: a}]", "a.onnx"),
        ("[{format: onnx, name: a, stream: true}, {format: onnx, name: a.step}]", "a.step.onnx"),
    ],
)
def test_two_files_of_one_name_are_refused_by_validate(with_steps, refused, exports, name):
    message = refused(with_steps("- method: retrain", f"exports: {exports}\n"))
    assert message.startswith(f"error: two files of `exports` would be called `{name}`: give one another `name`\n")
    assert " --> recipe.yaml:5:1" in message


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("steps.0.ratio=50%", "write `0.5`: a fraction of 1"),
        ("steps.0.ratio=50", "write a fraction: 50 % is `0.5`"),
        ("limits.file_bytes=600KB", "write `600000`: bytes"),
        ("limits.file_bytes=1.5 MiB", "write `1572864`: bytes"),
        ("limits.latency_ms=3ms", "write `3`, without a unit"),
        ("limits.speedup=2x", "write `2`, without a unit"),
    ],
)
def test_a_number_with_a_unit_is_shown_as_a_recipe_has_it(value, hint):
    with pytest.raises(RecipeErrors) as error:
        load("units-half", [value])
    assert error.value.hint == hint


@pytest.mark.parametrize("depth", [17, 2000])
@pytest.mark.parametrize("head", ["a", "steps.0.retrain", "limits"])
def test_a_key_that_is_very_deep_is_refused(head, depth):
    with pytest.raises(RecipeError, match=f"a key of {depth + head.count('.') + 1} parts"):
        load("quickstart", [f"{head}{'.a' * depth}=1"])


@pytest.mark.parametrize("value", ["retrain.epochs=1000000000000", "rounds=1000000000000"])
def test_a_count_that_no_run_would_end_with_is_refused(value):
    with pytest.raises(RecipeErrors, match="expected a whole number from"):
        load("weights-90", [f"steps.0.{value}"])


@pytest.mark.parametrize("entry", ["[retrain]", "[]", "7", "null", "true", "[[1]]"])
def test_an_entry_that_is_no_mapping_is_shown_how_it_is_written(with_steps, refused, entry):
    assert "hint: write `- method: magnitude`" in refused(with_steps(f"- {entry}"))
