"""`ckptlake sql`: any question, exact answers, in a form for people or programs."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from command_line import HOSTILE, Outcome, environment, on_screen, run

from ckptlake import Lake, Run

Cli = Callable[..., Outcome]
pytestmark = pytest.mark.usefixtures("lake")


@pytest.fixture
def logged(lake: Lake, start: Callable[..., Run]) -> Run:
    with start(run_id="one") as run:
        for step in range(20):
            run.log({"loss": 1 / (step + 1)}, step=step)
    return run


class TestValues:
    @pytest.mark.parametrize(
        ("expression", "expected"),
        [
            ("1", 1),
            ("170141183460469231731687303715884105727", 170141183460469231731687303715884105727),
            ("0.1::double + 0.2::double", 0.1 + 0.2),
            ("'nan'::double", "NaN"),
            ("'inf'::double", "Infinity"),
            ("'-inf'::float", "-Infinity"),
            ("-0.0::double", -0.0),
            ("1.50::decimal(10,2)", 1.5),
            ("0.1234567890123456789012345::decimal(38,25)", "0.1234567890123456789012345"),
            ("sum(x) from (values (1), (2)) t(x)", 3),
            ("true", True),
            ("null", None),
            ("'NaN'", "NaN"),
            ("[1.0::double, 'nan'::double, null]", [1.0, "NaN", None]),
            ("{'a': [1, 2], 'b': 'x'}", {"a": [1, 2], "b": "x"}),
            ("map {'k': 'inf'::double}", {"k": "Infinity"}),
            ("'abc'::blob", "YWJj"),
            ("date '2026-01-31'", "2026-01-31"),
            ("time '10:20:30'", "10:20:30"),
            ("timestamptz '2026-01-31 12:00:00+02'", "2026-01-31T10:00:00Z"),
            ("timestamp '2026-01-31 12:00:00.5'", "2026-01-31T12:00:00.500000"),
            ("interval 90 seconds", 90.0),
            ("'00000000-0000-0000-0000-000000000001'::uuid", "00000000-0000-0000-0000-000000000001"),
        ],
    )
    def test_as_json(self, cli: Cli, expression: str, expected: object) -> None:
        head, _, tail = expression.partition(" from ")
        (row,) = cli("sql", f"select {head} as v" + (f" from {tail}" if tail else ""), "--json").json
        assert row == {"v": expected}
        assert math.copysign(1, row["v"]) == math.copysign(1, expected) if isinstance(expected, float) else True

    @pytest.mark.parametrize("text", HOSTILE)
    def test_hostile_texts(self, cli: Cli, text: str) -> None:
        words = ("sql", "select $t as v, 1 as n", "--param", f"t={text}")
        assert cli(*words, "--json").json == [{"v": text, "n": 1}]
        assert list(csv.reader(io.StringIO(cli(*words, "--csv").out, newline=""))) == [["v", "n"], [text, "1"]]
        shown = cli(*words)
        assert len(shown.lines) == 3
        assert not {"\x1b", "\x9b", "\u202e", "\t"} & set(shown.out)

    def test_a_column_name_is_as_hostile(self, cli: Cli) -> None:
        shown = cli("sql", 'select 1 as "[red]\n\x1b[31m", 2 as "a"')
        assert shown.lines[0].split() == ["[red]\\n\\x1b[31m", "a"]

    def test_no_column_is_lost_to_another_of_the_same_name(self, cli: Cli) -> None:
        (row,) = cli("sql", "select 1 as a, 2 as a", "--json").json
        assert sorted(row.values()) == [1, 2]

    def test_of_the_lake(self, cli: Cli, logged: Run) -> None:
        query = "select step, value, ts from metrics where run_id = $run and step < 3 order by step"
        rows = cli("sql", query, "--param", "run=one", "--json").json
        assert [(row["step"], row["value"]) for row in rows] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
        assert all(row["ts"].endswith("Z") for row in rows)

    def test_rows_of_a_running_run_are_there(self, cli: Cli, start: Callable[..., Run]) -> None:
        run = start()
        run.log({"loss": 1.0}, step=0)
        run.flush()
        assert cli("sql", "select value from metrics", "--json").json == [{"value": 1.0}]


class TestParams:
    @pytest.mark.parametrize(
        ("given", "kind", "value"),
        [
            ("7", "INTEGER", "7"),
            ("-7", "INTEGER", "-7"),
            ("9007199254740993", "BIGINT", "9007199254740993"),
            ("0.5", "DOUBLE", "0.5"),
            ("1e-3", "DOUBLE", "0.001"),
            (".5", "DOUBLE", "0.5"),
            ("007", "VARCHAR", "007"),
            ("1_000", "VARCHAR", "1_000"),
            ("nan", "VARCHAR", "nan"),
            ("inf", "VARCHAR", "inf"),
            ("'7'", "VARCHAR", "7"),
            ("a=b", "VARCHAR", "a=b"),
            ("", "VARCHAR", ""),
            (" 7", "VARCHAR", " 7"),
            ("١٢", "VARCHAR", "١٢"),
            ("it's", "VARCHAR", "it's"),
        ],
    )
    def test_types(self, cli: Cli, given: str, kind: str, value: str) -> None:
        query = "select typeof($v) as kind, $v::varchar as value"
        assert cli("sql", query, "--param", f"v={given}", "--json").json == [{"kind": kind, "value": value}]

    def test_several(self, cli: Cli) -> None:
        assert cli("sql", "select $a + $b as c", "--param", "a=1", "--param", "b=2", "--json").json == [{"c": 3}]

    @pytest.mark.parametrize("wrong", ["x", "=1", "a b=1", "1=1", "as_of=3"])
    def test_a_wrong_form_is_a_usage_error(self, cli: Cli, wrong: str) -> None:
        done = cli("sql", "select 1", "--param", wrong)
        assert (done.code, done.out) == (2, "")
        assert "NAME=VALUE" in done.err

    def test_a_missing_value_says_how_to_give_it(self, cli: Cli) -> None:
        done = cli("sql", "select $a", "--json")
        assert (done.code, done.out) == (1, "")
        assert "--param NAME=VALUE" in done.err
        assert "lake.sql" not in done.err


class TestForms:
    def test_from_stdin(self, cli: Cli) -> None:
        assert cli("sql", "-", "--json", input="select 41 + 1 as v -- the answer\n").json == [{"v": 42}]

    @pytest.mark.parametrize("empty", ["", "  ", "-- nothing", ";", "\n"])
    def test_an_empty_query_is_a_usage_error(self, cli: Cli, empty: str) -> None:
        for done in (cli("sql", "-", input=empty), cli("sql", "--", empty)):
            assert (done.code, done.out) == (2, "")

    def test_csv_has_a_header_and_exact_values(self, cli: Cli) -> None:
        query = "select 0.1::double + 0.2::double as a, null as b, '' as c, true as d, [1, 2] as e, 'nan'::double as f"
        done = cli("sql", f"{query}, timestamptz '2026-01-31 12:00:00+02' as g", "--csv")
        assert done.out == ('a,b,c,d,e,f,g\n0.30000000000000004,,,true,"[1, 2]",NaN,2026-01-31T10:00:00Z\n')
        assert cli("sql", "select 1 as a where false", "--csv").out == "a\n"

    def test_csv_and_json_exclude_each_other(self, cli: Cli) -> None:
        assert cli("sql", "select 1", "--csv", "--json").code == 2

    def test_a_long_result_is_whole_and_in_order(self, cli: Cli) -> None:
        query = "select range as i from range(120001)"
        expected = list(range(120_001))
        assert [row["i"] for row in cli("sql", query, "--json").json] == expected
        assert [int(line) for line in cli("sql", query, "--csv").lines[1:]] == expected
        assert [int(line) for line in cli("sql", query).lines[2:]] == expected

    def test_a_limit_is_told(self, cli: Cli) -> None:
        for form, header in (((), 2), (("--csv",), 1)):
            done = cli("sql", "select range as i from range(1500)", "--limit", "3", *form)
            assert [int(line) for line in done.lines[header:]] == [0, 1, 2]
            assert done.err == "3 of 1,500 rows; leave out --limit for all\n"
        assert cli("sql", "select range as i from range(3)", "--limit", "3").err == ""

    def test_no_rows(self, cli: Cli) -> None:
        assert cli("sql", "select 1 as a where false", "--json").json == []
        shown = cli("sql", "select 1 as a where false")
        assert (shown.lines[0], shown.err) == ("a", "no rows\n")

    def test_statements_without_a_table(self, cli: Cli) -> None:
        assert [row["column_name"] for row in cli("sql", "describe metrics", "--json").json][:3] == [
            "experiment",
            "run_id",
            "metric",
        ]
        assert "Projection" in cli("sql", "explain select count(*) from runs").out

    def test_numbers_stand_to_the_right_and_null_is_told_from_text(self, cli: Cli) -> None:
        shown = cli("sql", "select * from (values (1, 'a', null), (1000, 'NULL!', 'x')) t(n, s, m)")
        assert shown.lines[2:] == ["   1  a      NULL", "1000  NULL!  x"]

    def test_what_a_narrow_screen_cuts_is_said(self, cli: Cli) -> None:
        query = "select 'x' || repeat('y', 100) as long, 1234567890 as number, 'z' as last from range(2)"
        shown = cli("sql", query, COLUMNS="50")
        assert all(len(line) <= 50 for line in shown.lines)
        assert "1234567890" in shown.lines[2]
        assert shown.err == "long values are shortened; --csv and --json print everything\n"
        many = "select " + ", ".join(f"{number}000000000 as column_{number}" for number in range(1, 9))
        shown = cli("sql", f"{many} from range(2)", COLUMNS="50")
        assert all(len(line) <= 50 for line in shown.lines)
        assert "not shown at this width: column_5, column_6, column_7, column_8" in shown.err
        assert "y" * 100 in cli("sql", query).out

    def test_a_single_wide_row_is_turned_on_its_side(self, cli: Cli) -> None:
        many = "select " + ", ".join(f"{number}000000000 as column_{number}" for number in range(1, 9))
        shown = cli("sql", many, COLUMNS="50")
        assert shown.lines[7].split() == ["column_8", "8000000000"]
        assert shown.err == ""

    def test_on_a_real_screen(self, lake: Lake) -> None:
        shown = on_screen("sql", "select 'a' as s, repeat('b', 200) as t from range(2)", "--lake", str(lake.path))
        assert shown.code == 0
        assert "--csv and --json print everything" in shown.out


class TestThePast:
    def test_a_version_and_a_time(self, cli: Cli, lake: Lake, start: Callable[..., Run]) -> None:
        counts = "select count(*) as n from metrics"
        for step in range(2):
            with start() as run:
                run.log({"loss": 1.0}, step=step)
            if not step:
                version = lake.table("metrics").version()
                time.sleep(0.05)
                (moment,) = cli("sql", "select max(ts) + interval 20 milliseconds as t from metrics", "--json").json
                time.sleep(0.05)
        assert cli("sql", counts, "--json").json == [{"n": 2}]
        assert cli("sql", counts, "--json", "--as-of", str(version)).json == [{"n": 1}]
        newest = lake.table("metrics").history(1)[0]["timestamp"]
        assert cli("sql", counts, "--json", "--as-of", newest.isoformat()).json == [{"n": 2}]
        assert cli("sql", counts, "--json", "--as-of", "2001-01-01").json == [{"n": 0}]
        assert moment["t"].endswith("Z")

    def test_a_time_without_a_zone_is_utc_wherever_one_is(self, lake: Lake, logged: Run) -> None:
        committed = max(entry["timestamp"] for entry in lake.table("metrics").history())  # type: ignore[type-var]
        just_after = (committed + timedelta(seconds=1)).replace(tzinfo=None).isoformat()  # type: ignore[operator]
        words = ("sql", "select count(*) as n from metrics", "--json", "--lake", str(lake.path), "--as-of")
        for zone in ("America/New_York", "Asia/Tokyo"):
            assert run(*words, just_after, env=environment(TZ=zone)).json == [{"n": 20}]
            assert run(*words, "2001-01-01", env=environment(TZ=zone)).json == [{"n": 0}]

    @pytest.mark.parametrize("wrong", ["yesterday", "99", "-1"])
    def test_no_such_past(self, cli: Cli, logged: Run, wrong: str) -> None:
        done = cli("sql", "select * from metrics", "--json", "--as-of", wrong)
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 1


class TestErrors:
    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ("selec 1", "Parser Error"),
            ("select nothing from runs", "nothing"),
            ("select * from nowhere", "nowhere"),
            ("select 'a'::int", "Conversion Error"),
            ("select error('multi\nline')", "multi line"),
        ],
    )
    @pytest.mark.parametrize("form", ["--json", "--csv", None])
    def test_are_one_line_and_nothing_on_stdout(self, cli: Cli, query: str, said: str, form: str | None) -> None:
        done = cli("sql", query, *filter(None, [form]))
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 1
        assert said in done.err
        assert "^" not in done.err
