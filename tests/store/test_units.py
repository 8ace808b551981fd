from argparse import ArgumentTypeError

import pytest

from segslim.store.units import age, bytes_of, seconds_of, size


def test_ages_and_sizes_are_read_as_people_write_them():
    assert (seconds_of("30d"), seconds_of("1.5h"), bytes_of("10GB"), bytes_of("2 kb")) == (2592000, 5400, 10**10, 2000)


@pytest.mark.parametrize(
    ("read", "text"), [(seconds_of, "30"), (seconds_of, "2y"), (bytes_of, "-1GB"), (bytes_of, "x")]
)
def test_anything_else_is_named(read, text):
    with pytest.raises(ArgumentTypeError, match=f"{text}: should be a number and one of"):
        read(text)


def test_ages_and_sizes_are_written_with_a_unit_that_fits():
    assert [age(seconds) for seconds in (5, 300, 93784, 9e5)] == ["5 s", "5 m", "26 h", "10 d"]
    assert [size(count) for count in (999, 1500, 5_730_000)] == ["999 B", "1.5 KB", "5.73 MB"]
