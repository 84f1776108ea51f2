"""Rows of layers: what replaces a layer stands beside it, and nothing is lost or counted twice."""

from compressor.render import format as form
from compressor.render.layers import REST, rows, total
from compressor.render.sections.layers import figures, table
from compressor.report import LayerCost
from tests.render.views import changed


def cost(name, parameters=1, milliseconds=0.5):
    return LayerCost(name=name, parameters=parameters, nonzeros=0, bytes=7, macs=None, milliseconds=milliseconds)


def test_what_replaces_a_layer_stands_in_its_row():
    before = [cost("embed"), cost("rnn", 11), cost("")]
    after = [cost("embed"), cost("rnn.nodes.0", 3), cost("rnn.nodes.1", 5), cost("")]
    found = rows(before, after)
    assert [row.name for row in found] == ["embed", "rnn", REST]
    assert total(found[1].before, lambda one: one.parameters) == 11
    assert total(found[1].after, lambda one: one.parameters) == 8


def test_a_layer_with_a_name_that_only_begins_alike_is_another():
    assert [row.name for row in rows([cost("rnn"), cost("rnn2")], [])] == ["rnn", "rnn2"]


def test_a_layer_that_is_gone_or_new_has_one_side():
    gone, new = rows([cost("old")], [cost("new")])
    assert (gone.name, gone.after, new.name, new.before) == ("old", (), "new", ())
    assert total(gone.after, lambda one: one.parameters) is None


def test_many_layers_are_put_together_by_the_beginnings_of_their_names():
    names = [f"encoder.layer.{index}.{part}.{leaf}" for index in range(7) for part in "ab" for leaf in "xyz"]
    costs = [cost(name) for name in names]
    found = rows(costs, costs)
    assert [row.name for row in found] == [f"encoder.layer.{index}.{part}" for index in range(7) for part in "ab"]
    assert sum(len(row.before) for row in found) == len(names)


def test_a_quantity_that_is_unknown_of_one_layer_is_unknown_of_their_row():
    assert total([cost("a", milliseconds=None), cost("b")], lambda one: one.milliseconds) is None


def test_every_number_of_the_plots_is_the_reports(report):
    before, after = report.original.costs[0], report.compressed[0].costs[0]
    parameters, stored, products, spent = (figure.svg for figure in figures(report))
    assert f"encoder, original: {form.large_count(before.parameters)}" in parameters
    assert f"encoder, compressed: {form.size(after.bytes)}" in stored
    assert f"encoder, original: {form.large_count(before.macs)}" in products
    assert f"encoder, compressed: {1000 * after.milliseconds:.4g} µs" in spent


def test_a_report_of_an_older_version_has_no_layers(report):
    assert table(changed(report, costs=())).rows == ()
    assert list(figures(changed(report, costs=()))) == []


def test_a_quantity_that_was_not_measured_is_left_out(report):
    unknown = tuple(one.model_copy(update={"macs": None, "milliseconds": None}) for one in report.original.costs)
    original = report.original.model_copy(update={"costs": unknown})
    smaller = tuple(one.model_copy(update={"macs": None, "milliseconds": None}) for one in report.compressed[0].costs)
    bare = changed(report, costs=smaller).model_copy(update={"original": original})
    assert table(bare).header == ("layer", "parameters", "bytes")
