from compressor.render.blocks import Table


def test_a_column_is_numeric_if_most_of_its_cells_are_short_and_start_like_a_number():
    rows = (
        ("1", "12", "8 bits", "-0.5", "4 heads of 8, and 8 for the values"),
        ("2", "not measured", "float", "", ""),
        ("3", "5 ms", "half", "", ""),
    )
    assert Table(("name", "a", "b", "c", "d"), rows).numeric == (False, True, False, True, False)


def test_a_table_without_rows_has_no_numbers():
    assert Table(("name", "a"), ()).numeric == (False, False)


def test_empty_columns_are_left_out():
    table = Table(("name", "empty", "full"), (("a", "", "1"), ("b", "", "")))
    assert table.without_empty_columns() == Table(("name", "full"), (("a", "1"), ("b", "")))
