from compressor.render import markdown
from compressor.render.sections.axes import AXES, sentence
from compressor.report import OpenAxes, TensorAxes

FOUND = OpenAxes(
    sizes={"batch": (2, 3), "time": (8, 4), "width": (9, 10)},
    tensors=(
        TensorAxes(name="picture", enters=True, axes={0: "batch", 3: "width"}),
        TensorAxes(name="scores", enters=False, axes={0: "batch"}, declared=True),
        TensorAxes(name="state", enters=True, axes={}, module="decoder"),
    ),
)


def test_each_tensor_has_its_open_axes_and_how_they_are_known(report):
    text = markdown.page(report.model_copy(update={"axes": FOUND}))
    assert "| picture | input | 0: batch, 3: width | found |" in text
    assert "| scores | output | 0: batch | declared and checked |" in text
    assert "| decoder.state | input | none | found |" in text
    assert "called at batch 2 and 3, time 8 and 4, width 9 and 10: an axis whose size changed is open." in text


def test_names_of_their_own_are_explained_where_there_are_some():
    assert "name of its own" not in sentence(FOUND)
    tensor = TensorAxes(name="y", enters=False, axes={2: "y_2"})
    assert "name of its own" in sentence(FOUND.model_copy(update={"tensors": (tensor,)}))


def test_a_report_without_them_has_no_such_section(report):
    assert not AXES.blocks(report)
