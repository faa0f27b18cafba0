"""Searches as queries of runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ckptlake
from ckptlake import Capture, InvalidInputError, Lake, col, metric


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with ckptlake.open(tmp_path_factory.mktemp("found") / "lake") as lake:
        for name, lr, tags in (
            ("vit ablation", 1e-4, ["baseline"]),
            ("vit large", 1e-2, {"fold": 3}),
            ("resnet", 1e-4, ["baseline", "vit-like"]),
        ):
            with lake.run("pose/vit", name, {"lr": lr, "arch": "x1"}, tags, capture=Capture.nothing()) as run:
                run.define("val/loss", direction="min")
                run.log({"val/loss": lr * 10}, step=0)
                run.note(f"uses cosine decay with {name}")
        lake.run("other", "vit running", capture=Capture.nothing())
        yield lake


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("vit", ["vit ablation", "vit large", "vit running", "resnet"]),
        ("vit lr:<1e-3 tag:baseline status:finished", ["vit ablation", "resnet"]),
        ('"cosine decay" -large', ["vit ablation", "resnet"]),
        ("abl*", ["vit ablation"]),
        ("tag:fold=3", ["vit large"]),
        ("-tag:baseline experiment:pose", ["vit large"]),
        ("experiment:pose best.val/loss:<0.01", ["vit ablation", "resnet"]),
        ("lr:1e-3..1e-1", ["vit large"]),
        ("name:vit* status:running", ["vit running"]),
        ("arch:x1 -vit", []),
        ("started:>2020-01-01 last.val/loss:>=0.1", ["vit large"]),
        ("nothing", []),
    ],
)
def test_what_is_found(lake: Lake, text: str, names: list[str]) -> None:
    found = [row["name"] for row in lake.search(text).to_dicts()]
    assert sorted(found) == sorted(names)
    if text == "vit":
        assert found[-1] == "resnet"


def test_what_is_found_is_a_query_that_goes_on(lake: Lake) -> None:
    found = lake.search("vit").where(col("status") == "finished").select("name", "score", metric("val/loss").min())
    assert found.columns == ("name", "score", "min.val/loss")
    scores = [row["score"] for row in found.to_dicts()]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0
    assert lake.search("vit").best("val/loss", n=1).to_dicts()[0]["name"] in ("vit ablation", "resnet")
    assert lake.search("vit").curves("val/loss").count() == 3


@pytest.mark.parametrize(("text", "message"), [("lrr:<3", "did you mean lr"), ('"open', "cannot be read at character")])
def test_what_cannot_be_searched_is_told(lake: Lake, text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        lake.search(text).sql()


def test_a_search_with_words_is_not_saved(lake: Lake) -> None:
    with pytest.raises(InvalidInputError, match="what it finds changes"):
        lake.search("vit").save("q")
    lake.search("lr:<1").save("q")
